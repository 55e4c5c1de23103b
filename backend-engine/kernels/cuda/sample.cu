// Chooses the next token of each row: bias, penalties and mask, temperature, min_p,
// top_k, top_p, one draw, log probabilities; or the most likely token. One block
// a row, in the order that model/sampler.h tells, without a sort (sample_prefix.cuh).
//
// A greedy row is walked over once: 5 us for a vocabulary of 128k, from the
// second-level cache, by one multiprocessor. A drawn one is walked over some six
// times more for each of top_k, top_p and the draw.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"
#include "backend-engine/kernels/cuda/sample.cuh"
#include "backend-engine/kernels/cuda/sample_prefix.cuh"

namespace penstock::engine::cuda {
namespace {

__device__ bool Penalises(const SampleRow& row) {
  return row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f ||
         row.frequency_penalty != 0.0f;
}

// A token's count is 1 if it came at all, plus 2 for each time in the answer. Who
// takes a count away applies it, so that each token is penalised once.
__device__ void Penalise(const SampleCall& call, const SampleRow& row, int32_t* counts,
                         const WorkRow& work) {
  const int32_t* history = call.history + row.history_first;
  for (int i = threadIdx.x; i < row.history_count; i += kSampleThreads) {
    const int token = history[i];
    if (token < 0 || token >= call.vocab) continue;
    atomicOr(&counts[token], 1);
    if (i >= row.prompt_count) atomicAdd(&counts[token], 2);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < row.history_count; i += kSampleThreads) {
    const int token = history[i];
    if (token < 0 || token >= call.vocab) continue;
    const int count = atomicExch(&counts[token], 0);
    if (count == 0) continue;
    float logit = work.numbers[token];
    logit = logit > 0.0f ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    const int in_answer = count / 2;
    if (in_answer > 0) {
      logit -= row.presence_penalty + row.frequency_penalty * static_cast<float>(in_answer);
    }
    work.numbers[token] = logit;
  }
  __syncthreads();
}

// Copies the row and applies bias and penalties.
__device__ void Adjust(const SampleCall& call, const SampleRow& row, const RawRow& raw,
                       int32_t* counts, const WorkRow& work) {
  raw.ForEach([&](int token, float logit) { work.numbers[token] = logit; });
  __syncthreads();
  if (threadIdx.x == 0) {  // Few, and a token may be named twice.
    for (int i = 0; i < row.bias_count; ++i) {
      const TokenBias bias = call.biases[row.bias_first + i];
      if (bias.token >= 0 && bias.token < call.vocab) work.numbers[bias.token] += bias.bias;
    }
  }
  __syncthreads();
  if (Penalises(row)) Penalise(call, row, counts, work);
}

// Takes from the race what the mask does not allow. False: nothing is left.
__device__ bool Forbid(const uint32_t* mask, const WorkRow& work) {
  int any = 0;
  for (int i = threadIdx.x; i < work.vocab; i += kSampleThreads) {
    if ((mask[i / 32] >> (i % 32) & 1u) != 0) {
      any = 1;
    } else {
      work.numbers[i] = kForbiddenLogit;
    }
  }
  return ReduceBlock(any, 0, Larger()) != 0;
}

// The place of the draw in a sum.
__device__ Measure Goal(double share, Measure sum) {
  const auto goal = static_cast<Measure>(share * static_cast<double>(sum)) + 1;
  return goal > sum ? sum : goal;
}

__device__ int Draw(const SampleRow& row, const WorkRow& work) {
  const Measure best = LargestKey(work, ~Measure{0});
  if (row.top_k == 1) return TokenOfKey(best);
  const float largest = work.numbers[TokenOfKey(best)];
  // Below this a logit's share is no number; the most likely token is all there is.
  const float scale = 1.0f / (row.temperature > 1e-5f ? row.temperature : 1e-5f);
  __syncthreads();  // Everybody has read the largest before it becomes a weight.
  // At most 1, also where a penalty has made several infinite: their difference is no number.
  for (int i = threadIdx.x; i < work.vocab; i += kSampleThreads) {
    work.numbers[i] = expf(fminf((work.numbers[i] - largest) * scale, 0.0f));
  }
  __syncthreads();
  const auto one = [](uint32_t) -> Measure { return 1; };
  const auto fixed = [](uint32_t bits) -> Measure { return FixedWeight(bits); };
  Measure kept = SumFrom(work, 0, fixed);
  const bool all = row.top_k <= 0 && row.top_p >= 1.0f && row.min_p <= 0.0f;
  if (all) return Find(work, Goal(row.draw, kept), fixed);
  if (row.min_p > 0.0f) {
    const float least = row.min_p < 1.0f ? row.min_p : 1.0f;  // The most likely weighs 1.
    kept = SumFrom(work, __float_as_uint(least), fixed);
  }
  if (row.top_k > 0 && row.top_k < work.vocab) {
    kept = min(kept, WeightOf(work, Reach(work, static_cast<Measure>(row.top_k), one)));
  }
  if (row.top_p < 1.0f) {
    const double enough = ceil(static_cast<double>(row.top_p) * static_cast<double>(kept));
    const Measure goal = enough > 1.0 ? static_cast<Measure>(enough) : 1;
    kept = WeightOf(work, Reach(work, min(goal, kept), fixed));
  }
  const Prefix drawn = Reach(work, Goal(row.draw, kept), fixed);
  return Find(work, drawn.equals,
              [&](uint32_t bits) -> Measure { return bits == drawn.bits ? 1 : 0; });
}

// Of the model's own distribution, before everything else.
__device__ void SetLogprobs(const SampleRow& row, const RawRow& raw, Measure best, int token,
                            SampledRow& out) {
  const float largest = raw.At(TokenOfKey(best));
  double sum = 0.0;
  raw.ForEach([&](int, float logit) { sum += static_cast<double>(expf(logit - largest)); });
  sum = ReduceBlock(sum, 0.0, Plus());
  const double log_sum = static_cast<double>(largest) + log(sum);
  if (threadIdx.x == 0) out.logprob = static_cast<float>(raw.At(token) - log_sum);
  for (int n = 0; n < row.top_count; ++n) {
    if (n > 0) best = LargestKey(raw, best);
    if (threadIdx.x != 0) continue;
    out.top_tokens[n] = best == 0 ? -1 : TokenOfKey(best);
    if (best != 0) out.top_logprobs[n] = static_cast<float>(raw.At(TokenOfKey(best)) - log_sum);
  }
}

// Block b: row b of `rows`.
__global__ void __launch_bounds__(kSampleThreads) SampleKernel(SampleCall call) {
  const SampleRow row = call.rows[blockIdx.x];
  SampledRow& out = call.out[blockIdx.x];
  const int64_t own = int64_t{blockIdx.x} * call.vocab;
  const WorkRow work{call.work + own, call.vocab};
  const RawRow raw{call, row.logit_row};
  if (!AllFinite(raw)) {
    if (threadIdx.x == 0) out.token = kNoTokenFinite;
    return;
  }
  const Measure best = LargestKey(raw, ~Measure{0});
  int token = TokenOfKey(best);
  const bool adjusts = Penalises(row) || row.bias_count > 0 || row.mask_first >= 0;
  if (adjusts || row.temperature > 0.0f) {
    Adjust(call, row, raw, call.counts + own, work);
    if (row.mask_first >= 0 && !Forbid(call.masks + row.mask_first, work)) {
      if (threadIdx.x == 0) out.token = kNoTokenAllowed;
      return;
    }
    token = row.temperature > 0.0f ? Draw(row, work) : TokenOfKey(LargestKey(work, ~Measure{0}));
  }
  if (threadIdx.x == 0) out.token = token;
  if (row.top_count >= 0) SetLogprobs(row, raw, best, token, out);
}

}  // namespace

GpuError Sample(const SampleCall& call, Stream stream) {
  if (call.row_count < 0 || call.vocab < 1 || call.padded < 1 || call.ranks < 1 ||
      int64_t{call.ranks} * call.padded < call.vocab || call.vocab >= 1 << 19) {
    return kGpuInvalid;
  }
  if (call.row_count == 0) return kGpuOk;
  return Launch(SampleKernel, dim3(call.row_count), kSampleThreads, 0, stream, call);
}

GpuError LoadSample() { return LoadKernels(SampleKernel); }

}  // namespace penstock::engine::cuda
