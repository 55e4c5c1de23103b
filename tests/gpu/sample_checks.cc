// The GPU's choice of tokens against model/sampler.h: the same logits, settings
// and draws must give the same tokens, whatever is asked for.
#include <cmath>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/model/gpu_sampling.h"
#include "backend-engine/model/sampler.h"
#include "tests/gpu/gpu_array.h"
#include "tests/gpu/op_checks.h"

namespace penstock::engine {
namespace {

struct Setting {
  const char* name;
  SamplingParams params;
};

// Every `each`-th token from `first` on; the mask is shorter than the vocabulary.
std::shared_ptr<const std::vector<uint32_t>> Mask(int first, int each, int words) {
  auto mask = std::make_shared<std::vector<uint32_t>>(static_cast<size_t>(words));
  for (int token = first; token < words * 32; token += each) {
    (*mask)[static_cast<size_t>(token / 32)] |= 1u << (token % 32);
  }
  return mask;
}

std::vector<Setting> Settings() {
  return {
      {"greedy, mask", {.temperature = 0, .logprobs = 1, .allowed = Mask(5, 7, 9)}},
      {"one token allowed", {.temperature = 1.0f, .top_p = 0.9f, .allowed = Mask(261, 1000, 9)}},
      {"drawn, mask", {.temperature = 1.3f, .top_k = 40, .top_p = 0.95f, .presence_penalty = 0.3f,
                       .logit_bias = {{33, 2.0f}}, .allowed = Mask(1, 2, 6)}},
      {"mask alone", {.temperature = 3.0f, .allowed = Mask(0, 3, 9)}},
      {"nothing allowed", {.temperature = 1.0f, .allowed = Mask(9999, 1, 3)}},
      {"greedy", {.temperature = 0}},
      {"greedy, logprobs", {.temperature = 0, .logprobs = 5}},
      {"greedy, bias", {.temperature = 0, .logprobs = 0, .logit_bias = {{7, 9.0f}, {-1, 1.0f},
                                                                        {7, 3.0f}, {1 << 20, 2.0f}}}},
      {"greedy, penalties", {.temperature = 0, .repetition_penalty = 1.7f,
                             .presence_penalty = 0.9f, .frequency_penalty = 0.4f, .logprobs = 20}},
      {"temperature", {.temperature = 0.8f}},
      {"temperature, logprobs", {.temperature = 1.5f, .logprobs = 1}},
      {"hot", {.temperature = 20.0f}},
      {"cold", {.temperature = 1e-30f, .top_p = 0.9f}},
      {"top_k 1", {.temperature = 2.0f, .top_k = 1}},
      {"top_k 7", {.temperature = 3.0f, .top_k = 7}},
      {"top_p 0.9", {.temperature = 1.0f, .top_p = 0.9f}},
      {"top_p tiny", {.temperature = 1.0f, .top_p = 1e-9f}},
      {"min_p 0.1", {.temperature = 2.0f, .min_p = 0.1f}},
      {"all of them", {.temperature = 1.3f, .top_k = 40, .top_p = 0.95f, .min_p = 0.01f,
                       .repetition_penalty = 1.2f, .presence_penalty = 0.3f,
                       .frequency_penalty = 0.2f, .logprobs = 3, .logit_bias = {{3, 2.0f}}}},
  };
}

// Rows of logits, each with a history.
struct Rows {
  int32_t vocab, ranks, padded, count;
  std::vector<float> logits;                  // [count][vocab]
  std::vector<std::vector<int32_t>> histories;

  // As the ranks' parts are gathered; what pads them is NaN.
  std::vector<float> Gathered() const {
    std::vector<float> gathered(static_cast<size_t>(ranks * count * padded), NAN);
    for (int32_t row = 0; row < count; ++row) {
      for (int32_t v = 0; v < vocab; ++v) {
        gathered[static_cast<size_t>((v / padded * count + row) * padded + v % padded)] =
            logits[static_cast<size_t>(row * vocab + v)];
      }
    }
    return gathered;
  }
};

}  // namespace

void Checks::SampleSetting(const std::string& name, const SamplingParams& params, int32_t vocab,
                           int32_t ranks) {
  Rows rows{vocab, ranks, (vocab + ranks - 1) / ranks + 3, large_ ? 64 : 3, {}, {}};
  // Few different numbers, so that there are equals at every edge.
  rows.logits = Floats(static_cast<size_t>(rows.count * vocab), 2.0f);
  GpuSampling sampling(rows.count, 4096, 64, vocab);
  std::vector<StepSequence> sequences;
  for (int32_t row = 0; row < rows.count; ++row) {
    std::vector<int32_t> history(static_cast<size_t>(5 + Below(60)));
    for (int32_t& token : history) token = Below(vocab + 2) - 1;
    rows.histories.push_back(std::move(history));
  }
  SamplingParams asked = params;
  asked.seed = static_cast<uint64_t>(Below(1 << 30));
  for (int32_t row = 0; row < rows.count; ++row) {
    const auto& history = rows.histories[static_cast<size_t>(row)];
    sequences.push_back({.sampling = &asked, .history = history,
                         .prompt_length = std::min<int32_t>(3, static_cast<int32_t>(history.size()))});
    // Backwards, so that the order of logits and of rows differ.
    if (!sampling.Add(sequences.back(), rows.count - 1 - row)) Must(cuda::kGpuInvalid, "rows");
  }
  GpuArray<float> logits(rows.Gathered());
  GpuArray<cuda::SampleRow> gpu_rows(sampling.rows());
  GpuArray<int32_t> history(sampling.history());
  GpuArray<cuda::TokenBias> biases(sampling.biases());
  GpuArray<uint32_t> masks(sampling.masks());
  const auto all = static_cast<size_t>(rows.count * vocab);
  GpuArray<float> work(all);
  GpuArray<int32_t> counts(std::vector<int32_t>(all, 0));
  GpuArray<cuda::SampledRow> out(static_cast<size_t>(rows.count));
  Must(cuda::Sample({logits.data(), ranks, rows.count, rows.padded, vocab, gpu_rows.data(),
                     rows.count, history.data(), biases.data(), masks.data(), work.data(),
                     counts.data(), out.data()}, nullptr), "Sample");
  const auto got = out.Values();
  int32_t wrong = 0;
  double logprob_error = 0;
  Sampler plain(vocab, *KernelsAt(CpuLevel::kReference));
  for (int32_t row = 0; row < rows.count; ++row) {
    SampledToken want, ours;
    const StepSequence& sequence = sequences[static_cast<size_t>(row)];
    plain.Sample(rows.logits.data() + (rows.count - 1 - row) * vocab, asked, sequence.history,
                 sequence.prompt_length, want);
    ReadSampled(got[static_cast<size_t>(row)], asked.logprobs, vocab, ours);
    wrong += ours.token != want.token || ours.forbidden != want.forbidden ||
                     ours.top.size() != want.top.size()
                 ? 1 : 0;
    if (ours.token != want.token) continue;
    if (asked.logprobs >= 0) {
      logprob_error = std::max(logprob_error, std::fabs(double{ours.logprob} - want.logprob));
    }
    for (size_t i = 0; i < std::min(ours.top.size(), want.top.size()); ++i) {
      wrong += ours.top[i].token != want.top[i].token ? 1 : 0;
      logprob_error =
          std::max(logprob_error, std::fabs(double{ours.top[i].logprob} - want.top[i].logprob));
    }
  }
  for (const int32_t count : counts.Values()) wrong += count != 0 ? 1 : 0;
  const std::string shape = name + ", " + std::to_string(vocab) + " tokens of " +
                            std::to_string(ranks) + " ranks";
  // Two libraries' expf differ in the last bit now and then: among a hundred thousand weights
  // the draw may then fall on the neighbour.
  const double allowed = vocab > 100000 && params.temperature > 0 ? 1 : 0;
  results_.push_back({"sample token", shape, static_cast<double>(wrong), allowed});
  if (asked.logprobs >= 0) results_.push_back({"sample logprobs", shape, logprob_error, 1e-4});
}

void Checks::Sample() {
  for (const Setting& setting : Settings()) {
    SampleSetting(setting.name, setting.params, 1051, 4);
    if (!large_) continue;
    SampleSetting(setting.name, setting.params, 300, 1);
    SampleSetting(setting.name, setting.params, 128256, 1);
  }
  // So many nearly equal weights that the search walks over all of them to the end.
  SampleSetting("flat", {.temperature = 1000.0f, .top_k = 6000, .top_p = 0.9f}, 9001, 1);
  SampleSetting("one token", {.temperature = 1.0f, .top_p = 0.5f}, 1, 1);
}

void Checks::SampleSpoiled() {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> logits(300, 1.0f);
    logits[137] = bad;
    GpuArray<float> gpu_logits(logits), work(300);
    GpuArray<int32_t> counts(std::vector<int32_t>(300, 0));
    GpuArray<cuda::SampleRow> rows(std::vector<cuda::SampleRow>{
        {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .top_count = 2}});
    GpuArray<cuda::SampledRow> out(1);
    Must(cuda::Sample({gpu_logits.data(), 1, 1, 300, 300, rows.data(), 1, nullptr, nullptr,
                       nullptr, work.data(), counts.data(), out.data()}, nullptr), "Sample");
    const bool refused = out.Values()[0].token == -1;
    results_.push_back({"sample refuses", std::to_string(bad), refused ? 0.0 : 1.0, 0});
  }
  // Finite, but for what a penalty makes of it.
  std::vector<float> logits(300, 1.0f);
  logits[137] = 1e37f;
  GpuArray<float> gpu_logits(logits), work(300);
  GpuArray<int32_t> counts(std::vector<int32_t>(300, 0)), history(std::vector<int32_t>{137});
  GpuArray<cuda::SampleRow> rows(std::vector<cuda::SampleRow>{
      {.temperature = 1.0f, .top_p = 0.9f, .repetition_penalty = 0.001f, .draw = 0.5,
       .top_count = -1, .history_count = 1, .prompt_count = 1}});
  GpuArray<cuda::SampledRow> out(1);
  Must(cuda::Sample({gpu_logits.data(), 1, 1, 300, 300, rows.data(), 1, history.data(), nullptr,
                     nullptr, work.data(), counts.data(), out.data()}, nullptr), "Sample");
  const bool chosen = out.Values()[0].token == 137;
  results_.push_back({"sample an infinite logit", "by a penalty", chosen ? 0.0 : 1.0, 0});
}

}  // namespace penstock::engine
