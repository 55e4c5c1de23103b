// weighted_score: the lowest of
//
//   score_i = alpha * L_i + beta * Q_i  [+ gamma * k_i / (1 - k_i)]  [- delta * p_i]
//
//   L_i  T_i / median(T), from 0.5 to 4. T_i is the peak-EWMA of the time to first
//        token, and never less than the age of the oldest request there that still
//        waits for one, so that a hung backend does not look fast.
//   Q_i  u_i / mean(u), u_i = (total_i + sent_since_i + 1) / size_i: what the backend
//        would carry with this request on it, for its size
//        max_running * weight * slow_start.
//   k_i  share of KV blocks in use;  p_i  share of the prompt already cached there.
//
// A missing figure is never zero, and never an advantage:
// - no latency: L_i = 1, or more if its oldest request waits longer than the median;
// - unknown max_running: the mean of the known ones, 1 if none is known;
// - unknown KV use: the mean of the known KV terms.
//
// The ladder: candidates are compared on the lowest rung that they have in common.
// Pushed, piggybacked and polled reports all say the node's total, so they compare
// with each other. As soon as one candidate is on kOwn, total_i + sent_since_i is
// its in-flight count from this proxy for all of them, the KV term is left out, and
// the better of two candidates drawn at random wins: with figures that know nothing
// of other proxies, taking the best of all would send every proxy to the same one.
//
// The trap: a median needs the figures side by side, and nothing may be allocated.
// Above kMedianMax candidates it is the median of kMedianMax of them, evenly spaced
// from a random start; every candidate is still scored.
#include <algorithm>
#include <array>
#include <memory>

#include "absl/status/status.h"
#include "lb-policies/choice.h"
#include "lb-policies/median.h"
#include "lb-policies/params.h"
#include "lb-policies/policy.h"

namespace penstock::lb {
namespace {

constexpr float kLatencyMin = 0.5f;
constexpr float kLatencyMax = 4;
constexpr float kKvMax = 0.99f;  // k/(1-k) ends at 99 instead of at infinity.

struct Weights {
  double alpha = 0.6;
  double beta = 0.4;
  double gamma = 0;
  double delta = 0;
};

// What the candidates have in common.
struct Fleet {
  bool own = false;        // The common rung is kOwn.
  float per_median_t = 0;  // 1 / median; 0: nobody has latency.
  float max_running = 1;   // For candidates that do not say.
  float per_mean_u = 1;    // 1 / mean.
  float mean_kv_term = 0;  // For candidates that do not say.
};

bool HasLatency(const Candidate& candidate) { return candidate.ttft_s >= 0; }

// Time to first token that a client waits there; with HasLatency only.
float WaitThere(const Candidate& candidate) {
  return std::max(candidate.ttft_s, candidate.oldest_wait_s);
}

float Load(const Fleet& fleet, const Candidate& candidate) {
  const float max_running = candidate.max_running > 0 ? candidate.max_running : fleet.max_running;
  const float carried =
      fleet.own ? candidate.inflight : candidate.reported_total + candidate.sent_since;
  return (carried + 1) / (max_running * WeightNow(candidate));
}

float LatencyTerm(const Fleet& fleet, const Candidate& candidate) {
  if (fleet.per_median_t == 0) return 1;
  const float lowest = HasLatency(candidate) ? kLatencyMin : 1;
  return std::clamp(WaitThere(candidate) * fleet.per_median_t, lowest, kLatencyMax);
}

float KvTerm(float kv_used) {
  const float k = std::min(kv_used, kKvMax);
  return k / (1 - k);
}

float MedianWait(std::span<const Candidate> candidates, Dice& dice) {
  std::array<float, kMedianMax> waits;
  size_t count = 0;
  const auto look_at = [&](const Candidate& candidate) {
    waits[count] = WaitThere(candidate);
    count += HasLatency(candidate) ? 1 : 0;
  };
  const size_t size = candidates.size();
  if (size <= kMedianMax) {
    for (const Candidate& candidate : candidates) look_at(candidate);
  } else {
    const size_t start = dice.Below(size);
    for (size_t i = 0; i < kMedianMax; ++i) {
      look_at(candidates[(start + i * size / kMedianMax) % size]);
    }
  }
  return count == 0 ? 0 : Median(std::span(waits).first(count));
}

Fleet Survey(std::span<const Candidate> candidates, bool with_kv, Dice& dice) {
  Fleet fleet;
  float max_running_sum = 0;
  float kv_sum = 0;
  size_t max_running_known = 0;
  size_t kv_known = 0;
  for (const Candidate& candidate : candidates) {
    fleet.own = fleet.own || candidate.rung == Rung::kOwn;
    if (candidate.max_running > 0) {
      max_running_sum += candidate.max_running;
      ++max_running_known;
    }
    if (with_kv && candidate.kv_used >= 0) {
      kv_sum += KvTerm(candidate.kv_used);
      ++kv_known;
    }
  }
  if (max_running_known > 0) {
    fleet.max_running = max_running_sum / static_cast<float>(max_running_known);
  }
  if (kv_known > 0) fleet.mean_kv_term = kv_sum / static_cast<float>(kv_known);
  float u_sum = 0;
  for (const Candidate& candidate : candidates) u_sum += Load(fleet, candidate);
  fleet.per_mean_u = static_cast<float>(candidates.size()) / u_sum;
  const float median = MedianWait(candidates, dice);
  fleet.per_median_t = median > 0 ? 1 / median : 0;
  return fleet;
}

class WeightedScore final : public Policy {
 public:
  explicit WeightedScore(const Weights& weights)
      : alpha_(static_cast<float>(weights.alpha)),
        beta_(static_cast<float>(weights.beta)),
        gamma_(static_cast<float>(weights.gamma)),
        delta_(static_cast<float>(weights.delta)) {}

  std::optional<size_t> Pick(const RequestInfo& request, std::span<const Candidate> candidates,
                             std::span<Terms> terms_out) override {
    Dice dice(request.random);
    const Fleet fleet = Survey(candidates, gamma_ > 0, dice);
    const size_t count = candidates.size();
    const size_t first = dice.Below(count);
    const size_t second = count > 1 ? (first + 1 + dice.Below(count - 1)) % count : first;
    Lowest lowest;
    for (size_t i = 0; i < count; ++i) {
      Terms unread;
      Terms& terms = terms_out.empty() ? unread : terms_out[i];
      Score(request, fleet, candidates[i], terms);
      if (!fleet.own || i == first || i == second) lowest.Offer(i, terms.score, dice);
    }
    return lowest.index();
  }

 private:
  // Sets every term, whatever stood there.
  void Score(const RequestInfo& request, const Fleet& fleet, const Candidate& candidate,
             Terms& terms) const {
    terms = {};
    terms.t_s = HasLatency(candidate) ? WaitThere(candidate) : candidate.oldest_wait_s;
    terms.u = Load(fleet, candidate);
    terms.latency = LatencyTerm(fleet, candidate);
    terms.queue = terms.u * fleet.per_mean_u;
    if (gamma_ > 0 && !fleet.own) {
      terms.kv = candidate.kv_used >= 0 ? KvTerm(candidate.kv_used) : fleet.mean_kv_term;
    }
    if (delta_ > 0 && request.prompt_tokens > 0) {
      const auto prompt_tokens = static_cast<float>(request.prompt_tokens);
      terms.prefix = std::min(candidate.prefix_tokens, prompt_tokens) / prompt_tokens;
    }
    terms.score =
        alpha_ * terms.latency + beta_ * terms.queue + gamma_ * terms.kv - delta_ * terms.prefix;
  }

  const float alpha_;
  const float beta_;
  const float gamma_;
  const float delta_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakeWeightedScore(const Params& params) {
  Weights weights;
  ParamReader reader("weighted_score", params);
  reader.Number("alpha", 0, 100, weights.alpha);
  reader.Number("beta", 0, 100, weights.beta);
  reader.Number("gamma", 0, 100, weights.gamma);
  reader.Number("delta", 0, 100, weights.delta);
  if (auto status = reader.Finish(); !status.ok()) return status;
  if (weights.alpha + weights.beta <= 0) {
    return absl::InvalidArgumentError(
        "alpha and beta are both 0, so neither latency nor queue would count; "
        "give one of them a value above 0");
  }
  return std::make_unique<WeightedScore>(weights);
}

}  // namespace penstock::lb
