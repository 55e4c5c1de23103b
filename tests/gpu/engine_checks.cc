#include "tests/gpu/engine_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "backend-engine/exec/gpu_runner.h"
#include "backend-engine/kernels/kernels.h"
#include "backend-engine/parallel/nccl_comm.h"
#include "tests/backend-engine/model/plain_steps.h"
#include "tests/gpu/gpu_array.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;
constexpr double kFailed = std::numeric_limits<double>::infinity();

std::unique_ptr<GpuRunner> Make(const PlainModel& model, GpuRunnerOptions options,
                                std::vector<CheckResult>& results) {
  std::string error;
  auto runner = GpuRunner::Create(model.config(), model.source(), options, error);
  if (runner == nullptr) results.push_back({"engine starts", error, kFailed, 0});
  return runner;
}

std::string Ranks(size_t ranks) { return std::to_string(ranks) + " ranks on one GPU"; }

struct Golden {
  std::vector<Tokens> prompts, answers;
  int32_t stop;
};

Golden Take(const PlainModel& model, const EngineCheckOptions& options) {
  Golden golden;
  golden.stop = static_cast<int32_t>(model.golden().At("end_of_turn_id").number);
  for (const Json& item : model.golden().At("answers").items) {
    if (golden.prompts.size() == options.answers) break;
    golden.prompts.push_back(item.At("prompt_ids").Tokens());
    Tokens answer = item.At("answer_ids").Tokens();
    answer.resize(std::min(answer.size(), options.tokens));
    golden.answers.push_back(std::move(answer));
  }
  return golden;
}

// Wrong answers among all.
int Wrong(const Golden& golden, const std::vector<Tokens>& answers) {
  int wrong = 0;
  for (size_t i = 0; i < golden.answers.size(); ++i) {
    wrong += answers[i] != golden.answers[i] ? 1 : 0;
  }
  return wrong;
}

void CheckAnswers(const PlainModel& model, const EngineCheckOptions& options,
                  std::vector<CheckResult>& results) {
  const Golden golden = Take(model, options);
  const auto count = static_cast<int32_t>(golden.prompts.size());
  GpuRunnerOptions settings{.block_count = count * 32, .max_step_tokens = 2048,
                            .max_sequences = count};
  std::vector<Tokens> first;
  for (const size_t ranks : {1, 2, 4}) {
    settings.gpus.assign(ranks, 0);
    const auto runner = Make(model, settings, results);
    if (runner == nullptr) return;
    PlainSteps steps(*runner);
    const auto answers =
        steps.Greedy(golden.prompts, static_cast<int32_t>(options.tokens), golden.stop);
    if (ranks == 1) first = answers;
    results.push_back({"golden answers", Ranks(ranks) + ", of " + std::to_string(count),
                       static_cast<double>(Wrong(golden, answers)) + (steps.failed() ? kFailed : 0),
                       0});
  }
  // The same batches, so the same bits: a graph does nothing else than its kernels.
  settings.gpus = {0};
  settings.graphs = false;
  const auto eager = Make(model, settings, results);
  if (eager == nullptr) return;
  PlainSteps steps(*eager);
  const auto answers =
      steps.Greedy(golden.prompts, static_cast<int32_t>(options.tokens), golden.stop);
  int wrong = 0;
  for (size_t i = 0; i < answers.size(); ++i) wrong += answers[i] != first[i] ? 1 : 0;
  results.push_back({"graphs equal eager steps", std::to_string(count) + " answers",
                     static_cast<double>(wrong), 0});
}

double LogSumExp(std::span<const float> logits) {
  double largest = -INFINITY, sum = 0;
  for (const float logit : logits) largest = std::max(largest, double{logit});
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

void CheckLikelihoods(const PlainModel& model, const EngineCheckOptions& options,
                      std::vector<CheckResult>& results) {
  const auto& cases = model.golden().At("teacher_forced_cases").items;
  const bool all = options.likelihoods >= cases.size();
  const auto runner = Make(model, {.block_count = 32, .max_step_tokens = 512, .max_sequences = 1,
                                   .keep_logits = true}, results);
  if (runner == nullptr || !all) return;
  PlainSteps steps(*runner);
  double sum = 0;
  for (const Json& item : cases) {
    const Tokens prompt = item.At("prompt_ids").Tokens(), answer = item.At("answer_ids").Tokens();
    Tokens tokens = prompt;
    tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
    steps.Add(0, tokens, 0, false);
    steps.Run();
    for (size_t i = 0; i < answer.size() && !steps.failed(); ++i) {
      const auto logits = runner->kept_logits(static_cast<int32_t>(prompt.size() + i) - 1);
      sum += LogSumExp(logits) - logits[static_cast<size_t>(answer[i])];
    }
  }
  const double want = model.golden().At("teacher_forced").At("nll_sum").number;
  results.push_back({"golden likelihood", std::to_string(cases.size()) + " answers",
                     std::fabs(sum / want - 1) + (steps.failed() ? kFailed : 0), 1e-2});
}

}  // namespace

std::vector<CheckResult> CheckEngine(const PlainModel& model, const EngineCheckOptions& options) {
  std::vector<CheckResult> results;
  CheckAnswers(model, options, results);
  CheckLikelihoods(model, options, results);
  return results;
}

std::vector<CheckResult> CheckNccl() {
  std::vector<CheckResult> results;
  std::string id, error;
  cuda::Stream stream = nullptr;
  Must(cuda::MakeStream(stream), "a stream");
  const std::atomic<bool> stop{false};
  const auto comm = NcclComm::NewId(id, error)
                        ? NcclComm::Create(0, 1, id, stream, stop, error)
                        : nullptr;
  bool right = comm != nullptr;
  if (right) {
    GpuArray<float> values(std::vector<float>{1, 2, 3});
    right = comm->AllReduceSum(values.data(), 3) && comm->Barrier() &&
            cuda::Synchronize(stream) == cuda::kGpuOk &&
            values.Values() == std::vector<float>({1, 2, 3}) && comm->Healthy(error);
    comm->Abort();
    right = right && !comm->AllReduceSum(values.data(), 3);
  }
  cuda::DestroyStream(stream);
  results.push_back({"nccl", "one rank sums and aborts" + (error.empty() ? "" : ": " + error),
                     right ? 0.0 : kFailed, 0});
  return results;
}

}  // namespace penstock::engine
