#include "backend-engine/exec/emulated_runner.h"

#include <algorithm>
#include <span>
#include <utility>

#include "backend-engine/sched/check.h"

namespace penstock::engine {
namespace {

uint64_t Mix(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}

double OnLine(const std::vector<TimingTable::Point>& points, double x, double none) {
  if (points.empty()) return none;
  if (points.size() == 1 || x <= points.front().x) return points.front().y;
  size_t right = 1;
  while (right + 1 < points.size() && points[right].x < x) ++right;
  const auto& a = points[right - 1];
  const auto& b = points[right];
  return a.y + (b.y - a.y) * (x - a.x) / (b.x - a.x);
}

TimingTable H200() {
  TimingTable table;
  table.name = "h200";
  table.matmul_ms = {{1, 4.2}, {64, 4.4}, {256, 5.7}, {1024, 18.8}, {4096, 71.5}, {8192, 143}};
  table.fixed_ms = 0.3;
  table.decode_ms_per_context_token = 3.25e-5;
  table.prefill_ms_per_token_pair = 8.9e-7;
  table.kv_tokens = 860000;
  return table;
}

TimingTable V100() {
  TimingTable table;
  table.name = "v100";
  table.matmul_ms = {{64, 7.5}, {512, 50}};
  // Between one and eight in flight nothing is known: a gentle slope.
  table.crowd = {{1, 1}, {8, 2}, {9, 850.0 / 120}, {10, 850.0 / 120}};
  table.kv_tokens = 110000;
  return table;
}

TimingTable Instant() {
  TimingTable table;
  table.name = "instant";
  table.kv_tokens = 65536;
  return table;
}

}  // namespace

std::optional<TimingTable> FindTimingTable(std::string_view name) {
  for (TimingTable (*make)() : {H200, V100, Instant}) {
    if (TimingTable table = make(); table.name == name) return table;
  }
  return std::nullopt;
}

double TimingTable::StepMs(const StepPlan& plan) const {
  double ms = fixed_ms + OnLine(matmul_ms, static_cast<double>(plan.tokens.size()), 0);
  for (const StepSequence& sequence : plan.sequences) {
    const double count = sequence.token_count;
    if (count == 1) {
      ms += decode_ms_per_context_token * sequence.start;
    } else {
      ms += prefill_ms_per_token_pair * count * (sequence.start + count / 2);
    }
  }
  return ms * OnLine(crowd, static_cast<double>(plan.sequences.size()), 1);
}

EmulatedRunner::EmulatedRunner(EmulatedOptions options) : options_(std::move(options)) {
  ENGINE_CHECK(options_.speed > 0 && !options_.plain_tokens.empty() && options_.block_tokens > 0,
               "speed %g, %zu plain tokens, block_tokens %d", options_.speed,
               options_.plain_tokens.size(), options_.block_tokens);
  ENGINE_CHECK(options_.answer_tokens_max == 0 || options_.stop_token >= 0,
               "answer_tokens_max %d without a stop token", options_.answer_tokens_max);
  info_.device = "emulated " + options_.timing.name;
  info_.tensor_parallel = options_.tensor_parallel;
  info_.block_tokens = options_.block_tokens;
  info_.block_count = options_.block_count > 0
                          ? options_.block_count
                          : std::max(options_.timing.kv_tokens / options_.block_tokens, 1);
  info_.max_step_tokens = options_.max_step_tokens;
  info_.max_sequences = options_.max_sequences;
  info_.vocab_size = options_.vocab_size;
  slots_.resize(static_cast<size_t>(options_.max_sequences));
}

RunStatus EmulatedRunner::Run(const StepPlan& plan, StepResult& result) {
  if (!SleepFor(options_.timing.StepMs(plan) / options_.speed)) return RunStatus::kFailed;
  result.number = plan.number;
  result.sampled.clear();
  for (const StepSequence& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    SampledToken& sampled = result.sampled.emplace_back();
    sampled.id = sequence.id;
    sampled.token = ChooseToken(sequence);
    // As certain as a device without doubts can be: probability 1.
    if (sequence.sampling->logprobs > 0) sampled.top.push_back({sampled.token, 0});
  }
  return RunStatus::kOk;
}

int32_t EmulatedRunner::ChooseToken(const StepSequence& sequence) {
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  if (slot.id != sequence.id) {
    slot.id = sequence.id;
    slot.prompt_hash = 0;
    const auto prompt = sequence.history.first(static_cast<size_t>(sequence.prompt_length));
    for (const int32_t token : prompt) {
      slot.prompt_hash = Mix(slot.prompt_hash + static_cast<uint32_t>(token) + 1);
    }
  }
  const size_t position = sequence.history.size() - static_cast<size_t>(sequence.prompt_length);
  if (options_.answer_tokens_max > 0) {
    const auto most = static_cast<uint64_t>(options_.answer_tokens_max);
    if (position > slot.prompt_hash % most) return options_.stop_token;
  }
  return options_.plain_tokens[Mix(slot.prompt_hash + position) % options_.plain_tokens.size()];
}

// Sleeps; false if it was told to stop. A step that follows at once is counted
// from where the last one should have ended, so that late wake-ups on a busy
// machine do not make the device slower than its table.
bool EmulatedRunner::SleepFor(double ms) {
  const auto cost = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double, std::milli>(ms));
  constexpr auto kLateness = std::chrono::milliseconds(5);
  std::unique_lock lock(mutex_);
  if (cost > Clock::duration::zero()) {
    const auto now = Clock::now();
    const bool follows = now - last_end_ < kLateness;
    last_end_ = (follows ? last_end_ : now) + cost;
    wake_.wait_until(lock, last_end_, [this] { return aborted_; });
  }
  return !aborted_;
}

void EmulatedRunner::Abort() {
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  wake_.notify_all();
}

}  // namespace penstock::engine
