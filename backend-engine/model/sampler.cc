#include "backend-engine/model/sampler.h"

#include <algorithm>
#include <cmath>

#include "backend-engine/model/philox.h"

namespace penstock::engine {
namespace {
constexpr float kForbidden = -1e30f;  // Below any logit, and no weight at any temperature.
}

Sampler::Sampler(int64_t vocab, const Kernels& kernels)
    : vocab_(vocab),
      kernels_(kernels),
      adjusted_(static_cast<size_t>(vocab)),
      weights_(static_cast<size_t>(vocab)),
      counts_(static_cast<size_t>(vocab)) {
  candidates_.reserve(static_cast<size_t>(vocab));
}

void Sampler::Sample(const float* logits, const SamplingParams& params,
                     std::span<const int32_t> history, int64_t prompt_length, SampledToken& out) {
  const ArgMaxResult best = kernels_.arg_max(logits, vocab_);
  out.top.clear();
  out.logprob = 0;
  out.invalid = !best.finite;
  out.forbidden = false;
  out.token = -1;
  if (out.invalid) return;
  const float* adjusted = Adjust(logits, params, history, prompt_length);
  out.forbidden = params.allowed != nullptr && !Forbid(*params.allowed);
  out.invalid = out.forbidden;
  if (out.invalid) return;
  if (params.temperature <= 0.0f) {
    out.token = adjusted == logits ? best.index : kernels_.arg_max(adjusted, vocab_).index;
  } else {
    const auto position = static_cast<int64_t>(history.size()) - prompt_length;
    out.token = Draw(adjusted, params, static_cast<uint64_t>(position));
  }
  if (params.logprobs >= 0) SetLogprobs(logits, best, params.logprobs, out);
}

void Sampler::SetLogprobs(const float* logits, const ArgMaxResult& best, int32_t top_count,
                          SampledToken& out) {
  const double log_sum =
      best.value + std::log(kernels_.exp_sum(logits, vocab_, best.value, 1.0f, nullptr));
  out.logprob = static_cast<float>(logits[out.token] - log_sum);
  // The few best so far stay sorted; nearly every logit fails the first test.
  const auto wanted = static_cast<size_t>(std::min<int64_t>(top_count, vocab_));
  for (int32_t token = 0; token < vocab_ && wanted > 0; ++token) {
    const float logit = logits[token];
    if (out.top.size() == wanted && logit <= out.top.back().logprob) continue;
    if (out.top.size() == wanted) out.top.pop_back();
    const auto place =
        std::find_if(out.top.begin(), out.top.end(),
                     [logit](const TokenLogprob& other) { return logit > other.logprob; });
    out.top.insert(place, {token, logit});
  }
  for (TokenLogprob& entry : out.top) entry.logprob = static_cast<float>(entry.logprob - log_sum);
}

const float* Sampler::Adjust(const float* logits, const SamplingParams& params,
                             std::span<const int32_t> history, int64_t prompt_length) {
  const bool penalises = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                         params.frequency_penalty != 0.0f;
  if (!penalises && params.logit_bias.empty() && params.allowed == nullptr) return logits;
  std::copy_n(logits, vocab_, adjusted_.begin());
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && token < vocab_) adjusted_[static_cast<size_t>(token)] += bias;
  }
  if (penalises) Penalise(params, history, prompt_length);
  return adjusted_.data();
}

// False: no token is allowed.
bool Sampler::Forbid(const std::vector<uint32_t>& allowed) {
  bool any = false;
  for (size_t token = 0; token < adjusted_.size(); ++token) {
    const size_t word = token / 32;
    if (word < allowed.size() && (allowed[word] >> (token % 32) & 1) != 0) {
      any = true;
    } else {
      adjusted_[token] = kForbidden;
    }
  }
  return any;
}

// A token's count is that of its places in the answer, plus one, so that a
// token of the prompt alone is told from one that never came.
void Sampler::Penalise(const SamplingParams& params, std::span<const int32_t> history,
                       int64_t prompt_length) {
  const auto prompt = static_cast<size_t>(prompt_length);
  const auto count_of = [this](int32_t token) -> int32_t& {
    return counts_[static_cast<size_t>(token)];
  };
  const auto known = [this](int32_t token) { return token >= 0 && token < vocab_; };
  for (size_t i = 0; i < history.size(); ++i) {
    if (!known(history[i])) continue;
    int32_t& count = count_of(history[i]);
    if (count == 0) count = 1;
    if (i >= prompt) ++count;
  }
  for (const int32_t token : history) {
    if (!known(token) || count_of(token) == 0) continue;
    const int32_t in_answer = count_of(token) - 1;
    count_of(token) = 0;
    float& logit = adjusted_[static_cast<size_t>(token)];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (in_answer > 0) {
      logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(in_answer);
    }
  }
}

int32_t Sampler::Draw(const float* logits, const SamplingParams& params, uint64_t position) {
  const ArgMaxResult best = kernels_.arg_max(logits, vocab_);
  if (params.top_k == 1) return best.index;
  // Below this a logit's share is no number; the most likely token is all there is.
  const float temperature = std::max(params.temperature, 1e-5f);
  const double total =
      kernels_.exp_sum(logits, vocab_, best.value, 1.0f / temperature, weights_.data());
  const double draw = PhiloxUniform(params.seed, position);
  const bool all = params.top_k <= 0 && params.top_p >= 1.0f && params.min_p <= 0.0f;
  double left = draw * (all ? total : KeepMostLikely(params));
  int32_t last = best.index;
  const auto takes = [&](int32_t token) {
    const float weight = weights_[static_cast<size_t>(token)];
    if (weight <= 0.0f) return false;
    last = token;
    left -= static_cast<double>(weight);
    return left < 0.0;
  };
  if (all) {
    for (int32_t token = 0; token < vocab_; ++token) {
      if (takes(token)) break;
    }
  } else {
    for (const int32_t token : candidates_) {
      if (takes(token)) break;
    }
  }
  return last;
}

// Leaves in candidates_ what min_p, top_k and top_p allow, most likely first
// (ties: lower number first), and returns the sum of their weights.
double Sampler::KeepMostLikely(const SamplingParams& params) {
  const auto weight_of = [this](int32_t token) {
    return weights_[static_cast<size_t>(token)];
  };
  const auto likelier = [&](int32_t a, int32_t b) {
    return weight_of(a) != weight_of(b) ? weight_of(a) > weight_of(b) : a < b;
  };
  candidates_.clear();
  for (int32_t token = 0; token < vocab_; ++token) {
    // The most likely token weighs 1.
    if (weight_of(token) >= params.min_p) candidates_.push_back(token);
  }
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params.top_k, candidates_.end(),
                     likelier);
    candidates_.resize(static_cast<size_t>(params.top_k));
  }
  const bool cuts = params.top_p < 1.0f;
  double enough = 0;  // Weight at which top_p stops.
  if (cuts) {
    // All that is lighter than the cut's even share cannot reach into it, and
    // need not be sorted.
    double sum = 0;
    for (const int32_t token : candidates_) sum += static_cast<double>(weight_of(token));
    const double trifle = (1.0 - static_cast<double>(params.top_p)) * sum /
                          (2.0 * static_cast<double>(candidates_.size()));
    std::erase_if(candidates_, [&](int32_t token) {
      return static_cast<double>(weight_of(token)) < trifle;
    });
    enough = static_cast<double>(params.top_p) * sum;
  }
  std::sort(candidates_.begin(), candidates_.end(), likelier);
  double kept = 0;
  size_t count = 0;
  while (count < candidates_.size()) {
    kept += static_cast<double>(weight_of(candidates_[count++]));
    if (cuts && kept >= enough) break;
  }
  candidates_.resize(count);
  return kept;
}

}  // namespace penstock::engine
