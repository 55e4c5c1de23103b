#include "backend-engine/model/gpu_sampling.h"

#include <algorithm>

#include "backend-engine/model/philox.h"

namespace penstock::engine {
namespace {

bool Penalises(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

}  // namespace

GpuSampling::GpuSampling(int64_t rows_max, int64_t history_max, int64_t biases_max, int64_t vocab)
    : mask_words_(static_cast<size_t>(cuda::MaskWords(vocab))) {
  masks_.reserve(static_cast<size_t>(rows_max) * mask_words_);
  rows_.reserve(static_cast<size_t>(rows_max));
  history_.reserve(static_cast<size_t>(history_max));
  biases_.reserve(static_cast<size_t>(biases_max));
  awaited_.reserve(static_cast<size_t>(rows_max));
}

void GpuSampling::Clear() {
  rows_.clear();
  history_.clear();
  biases_.clear();
  awaited_.clear();
  masks_.clear();
}

bool GpuSampling::Add(const StepSequence& sequence, int32_t logit_row) {
  static const SamplingParams kGreedy{.temperature = 0.0f};
  const SamplingParams& params = sequence.sampling != nullptr ? *sequence.sampling : kGreedy;
  // A token that is awaited is one that the draw and the penalties count.
  const size_t known = sequence.history.size() + (sequence.awaited >= 0 ? 1 : 0);
  const size_t history = Penalises(params) ? known : 0;
  if (rows_.size() == rows_.capacity() || history > history_.capacity() - history_.size() ||
      params.logit_bias.size() > biases_.capacity() - biases_.size()) {
    return false;
  }
  const auto position = static_cast<int64_t>(known) - sequence.prompt_length;
  rows_.push_back({.logit_row = logit_row,
                   .temperature = params.temperature,
                   .top_k = params.top_k,
                   .top_p = params.top_p,
                   .min_p = params.min_p,
                   .repetition_penalty = params.repetition_penalty,
                   .presence_penalty = params.presence_penalty,
                   .frequency_penalty = params.frequency_penalty,
                   .draw = PhiloxUniform(params.seed, static_cast<uint64_t>(position)),
                   .top_count = std::min(params.logprobs, cuda::kSampleTopMax),
                   .history_first = static_cast<int32_t>(history_.size()),
                   .history_count = static_cast<int32_t>(history),
                   .prompt_count = sequence.prompt_length,
                   .bias_first = static_cast<int32_t>(biases_.size()),
                   .bias_count = static_cast<int32_t>(params.logit_bias.size()),
                   .mask_first = params.allowed != nullptr ? static_cast<int32_t>(masks_.size())
                                                           : -1});
  if (params.allowed != nullptr) {
    const auto end = params.allowed->begin() +
                     static_cast<std::ptrdiff_t>(std::min(params.allowed->size(), mask_words_));
    masks_.insert(masks_.end(), params.allowed->begin(), end);
    masks_.resize(masks_.size() + mask_words_ -
                  static_cast<size_t>(end - params.allowed->begin()));
  }
  if (history > 0) {
    history_.insert(history_.end(), sequence.history.begin(), sequence.history.end());
    if (sequence.awaited >= 0) {
      awaited_.push_back({static_cast<int32_t>(history_.size()), sequence.awaited});
      history_.push_back(0);
    }
  }
  for (const auto& [token, bias] : params.logit_bias) biases_.push_back({token, bias});
  return true;
}

void ReadSampled(const cuda::SampledRow& row, int32_t logprobs, int64_t vocab, SampledToken& out) {
  out.token = std::max(row.token, -1);
  out.invalid = row.token < 0;
  out.forbidden = row.token == cuda::kNoTokenAllowed;
  out.logprob = 0;
  out.top.clear();
  if (out.invalid || logprobs < 0) return;
  out.logprob = row.logprob;
  const int64_t count = std::min<int64_t>({logprobs, cuda::kSampleTopMax, vocab});
  for (int64_t i = 0; i < count; ++i) {
    out.top.push_back({row.top_tokens[i], row.top_logprobs[i]});
  }
}

}  // namespace penstock::engine
