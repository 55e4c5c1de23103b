#include "backend-engine/sched/admission.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "backend-engine/sched/check.h"

namespace penstock::engine {
namespace {

SubmitResult Refuse(SubmitCode code, std::string message) {
  SubmitResult result;
  result.code = code;
  result.message = std::move(message);
  return result;
}

// A mask without a word allows nothing either; bits beyond the vocabulary are of no token.
bool AllowsNothing(const SamplingParams& sampling, int32_t vocab_size) {
  if (sampling.allowed == nullptr) return false;
  const std::vector<uint32_t>& words = *sampling.allowed;
  const auto last = static_cast<size_t>(vocab_size) / 32;
  for (size_t word = 0; word < words.size() && (vocab_size == 0 || word <= last); ++word) {
    const uint32_t of_vocab =
        vocab_size > 0 && word == last ? (1u << (vocab_size % 32)) - 1 : ~uint32_t{0};
    if ((words[word] & of_vocab) != 0) return false;
  }
  return true;
}

}  // namespace

SubmitResult Admission::CheckRequest(const GenerateRequest& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return Refuse(SubmitCode::kInvalid, "the prompt is empty; at least 1 token");
  if (request.max_tokens < 1) {
    return Refuse(SubmitCode::kInvalid, "max_tokens is " + std::to_string(request.max_tokens) +
                                            "; at least 1");
  }
  if (options_.vocab_size > 0) {
    for (const int32_t token : request.prompt) {
      if (token < 0 || token >= options_.vocab_size) {
        return Refuse(SubmitCode::kInvalid, "the prompt holds token " + std::to_string(token) +
                                                "; tokens are 0 to " +
                                                std::to_string(options_.vocab_size - 1));
      }
    }
  }
  if (AllowsNothing(request.sampling, options_.vocab_size)) {
    return Refuse(SubmitCode::kInvalid,
                  "the mask of allowed tokens allows none of the model's " +
                      std::to_string(options_.vocab_size) + " tokens; at least 1");
  }
  // The last token of an answer is handed out but never computed: no place in the cache.
  const int64_t in_pool = int64_t{options_.block_count} * options_.block_tokens + 1;
  const int64_t allowed =
      options_.max_length > 0 ? std::min<int64_t>(options_.max_length, in_pool) : in_pool;
  if (prompt + request.max_tokens > allowed) {
    return Refuse(SubmitCode::kTooLong,
                  "the prompt has " + std::to_string(prompt) + " tokens and max_tokens is " +
                      std::to_string(request.max_tokens) + ", together " +
                      std::to_string(prompt + request.max_tokens) + "; " +
                      (allowed == in_pool ? "the KV cache holds " : "this model allows ") +
                      std::to_string(allowed));
  }
  return {};
}

SubmitResult Admission::Offer(std::span<const GenerateRequest> group, double now) {
  int64_t tokens = 0;
  for (const GenerateRequest& request : group) {
    if (SubmitResult bad = CheckRequest(request); bad.code != SubmitCode::kOk) return bad;
    tokens += static_cast<int64_t>(request.prompt.size());
  }
  const auto count = static_cast<int32_t>(group.size());
  const int32_t queue_max = std::max(options_.queue_max, 1);
  if (count > queue_max) {
    return Refuse(SubmitCode::kTooMany, "the request asks for " + std::to_string(count) +
                                            " answers at once; allowed here: up to " +
                                            std::to_string(queue_max) + " (queue_max)");
  }
  if (const int32_t over = queued_ + count - queue_max; over > 0) {
    return Full(over, now,
                std::to_string(queued_) + " requests wait" +
                    (count > 1 ? " and this one brings " + std::to_string(count) : "") +
                    "; queue_max is " + std::to_string(queue_max));
  }
  const int64_t over = queued_tokens_ + tokens - options_.queue_tokens_max;
  if (over > 0 && queued_ > 0) {
    const double mean = static_cast<double>(queued_tokens_) / queued_;
    const double needed = std::min<double>(std::ceil(static_cast<double>(over) / mean), queued_);
    return Full(needed, now,
                std::to_string(queued_tokens_) + " prompt tokens wait and this request brings " +
                    std::to_string(tokens) + "; queue_tokens_max is " +
                    std::to_string(options_.queue_tokens_max));
  }
  if (queued_ == 0) {
    spell_start_ = now;
    spell_departures_ = 0;
    next_return_ = now;  // Whoever was turned away before waits for nobody any more.
  }
  queued_ += count;
  queued_tokens_ += tokens;
  return {};
}

SubmitResult Admission::Full(double departures_needed, double now, std::string message) {
  const double wait = departures_needed / DrainRate(now);
  next_return_ = std::min(std::max(next_return_, now) + wait, now + kRetryAfterMax);
  SubmitResult result = Refuse(SubmitCode::kQueueFull, std::move(message));
  result.retry_after_seconds = next_return_ - now;
  return result;
}

void Admission::OnLeft(int32_t sequences, int64_t tokens, double now) {
  ENGINE_CHECK(sequences <= queued_ && tokens <= queued_tokens_,
               "%d sequences leave, %d are queued", sequences, queued_);
  if (sequences == 0) return;
  queued_ -= sequences;
  queued_tokens_ -= tokens;
  spell_departures_ += sequences;
  if (queued_ == 0 || spell_departures_ >= kSpellMax) {
    prior_rate_ = DrainRate(now);
    spell_start_ = now;
    spell_departures_ = 0;
  }
}

double Admission::DrainRate(double now) const {
  if (queued_ == 0 && spell_departures_ == 0) return prior_rate_;
  const double elapsed = std::max(now - spell_start_, 0.0);
  const double rate = (spell_departures_ + kPriorWeight) / (elapsed + kPriorWeight / prior_rate_);
  return std::clamp(rate, 1e-3, 1e4);
}

}  // namespace penstock::engine
