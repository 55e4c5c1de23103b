#include "backend-engine/exec/gpu_flights.h"

#include <algorithm>

#include "backend-engine/exec/decode_plan.h"

namespace penstock::engine {

GpuFlights::GpuFlights(const GpuGroup& group, const GpuPlan& plan)
    : group_(group), plan_(plan),
      sampling_(group.limits.step.sequences, plan.layout->history_max(), plan.layout->biases_max(),
                group.limits.step.vocab) {
  const StepLimits& limits = group.limits.step;
  input_.Reserve(limits);
  if (group.keep_logits) {
    kept_.resize(static_cast<size_t>(limits.tokens) * static_cast<size_t>(group.config.vocab_size));
  }
}

GpuFlights::~GpuFlights() {
  for (const GpuFlight& flight : flights_) {
    if (flight.packed != nullptr) cuda::FreePinned(flight.packed);
  }
}

bool GpuFlights::Allocate(std::string& error) {
  for (GpuFlight& flight : flights_) {
    void* pinned = nullptr;
    if (const auto failed = cuda::AllocatePinned(plan_.layout->bytes(), &pinned);
        failed != cuda::kGpuOk) {
      error = "pinned memory for steps: " + cuda::ErrorText(failed);
      return false;
    }
    flight.packed = static_cast<std::byte*>(pinned);
    flight.asked.reserve(static_cast<size_t>(group_.limits.step.sequences));
  }
  if (!group_.buckets.empty()) {
    plan_.layout->Pack(StepInput(), sampling_, group_.buckets.back(), flights_[0].packed);
  }
  return true;
}

bool GpuFlights::Pack(const StepPlan& plan, int32_t awaited_max, GpuFlight& flight,
                      std::string& error) {
  if (!FillStepInput(plan, group_.limits.step, group_.keep_logits, input_, error)) return false;
  sampling_.Clear();
  flight.number = plan.number;
  flight.asked.clear();
  int32_t row = 0;
  for (const StepSequence& sequence : plan.sequences) {
    const auto refuse = [&](const char* what) {
      error = "step " + std::to_string(plan.number) + ", sequence " + std::to_string(sequence.id) +
              ": " + what;
      return false;
    };
    if (sequence.awaited >= awaited_max) return refuse("it awaits a token that nobody chooses");
    if (group_.keep_logits) row += sequence.token_count - 1;
    if (sequence.sample) {
      if (!sampling_.Add(sequence, row)) {
        return refuse("more history or biases than were planned for");
      }
      flight.asked.push_back(
          {sequence.id, sequence.sampling != nullptr ? sequence.sampling->logprobs : -1});
    }
    if (sequence.sample || group_.keep_logits) ++row;
  }
  const int32_t bucket =
      IsDecodeStep(input_) ? BucketFor(group_.buckets, static_cast<int32_t>(input_.sequences.size()))
                           : 0;
  flight.shape = plan_.layout->Pack(input_, sampling_, bucket, flight.packed);
  return true;
}

void GpuFlights::Read(uint64_t step, const GpuRank& first, StepResult& result) {
  const GpuFlight& flight = Of(step);
  result.number = flight.number;
  result.sampled.resize(flight.asked.size());
  const cuda::SampledRow* rows = first.sampled(TurnOf(step));
  for (size_t i = 0; i < flight.asked.size(); ++i) {
    result.sampled[i].id = flight.asked[i].id;
    ReadSampled(rows[i], flight.asked[i].logprobs, group_.config.vocab_size, result.sampled[i]);
  }
  if (group_.keep_logits) KeepLogits(flight, first.logits());
}

// They lie as the ranks gathered them.
void GpuFlights::KeepLogits(const GpuFlight& flight, const float* logits) {
  const int64_t padded = plan_.shards[0].vocab_padded;
  for (int32_t row = 0; row < flight.shape.rows; ++row) {
    float* to = kept_.data() + int64_t{input_.logit_rows[static_cast<size_t>(row)]} *
                                   group_.config.vocab_size;
    for (const Shard& shard : plan_.of_all) {
      std::copy_n(logits + (int64_t{shard.rank} * flight.shape.rows + row) * padded,
                  shard.vocab.count, to + shard.vocab.first);
    }
  }
}

std::span<const float> GpuFlights::kept_logits(int32_t index) const {
  const auto vocab = static_cast<size_t>(group_.config.vocab_size);
  return std::span(kept_).subspan(static_cast<size_t>(index) * vocab, vocab);
}

}  // namespace penstock::engine
