// Products of many tokens with a weight matrix, by cuBLASLt. The algorithm of
// each shape is measured once, the first time it comes, and remembered; token
// counts are rounded up to buckets, so that there are few shapes (rows beyond
// the last token are computed from whatever is there, and nobody reads them).
//
// Threads: one rank's own. One GPU: the one in use at Start().
#pragma once

#include <memory>
#include <span>
#include <string>

#include "backend-engine/kernels/cuda/cuda_kernels.h"

namespace penstock::engine::cuda {

// Tokens that a product of `tokens` tokens computes: buffers hold that many rows.
constexpr int32_t GemmTokens(int32_t tokens) {
  if (tokens <= 8) return 8;
  int32_t step = 8;
  while (tokens > 16 * step && step < 256) step *= 2;
  return (tokens + step - 1) / step * step;
}

class Gemm {
 public:
  Gemm();
  ~Gemm();

  bool Start(std::string& error);

  // As Gemv(), for any number of tokens; a bias only with bf16 results.
  // REQUIRES: x and y have memory for GemmTokens(token_count) rows. While
  // `stream` records a graph, only shapes that were seen before.
  GpuError Run(const GemvCall& call, Stream stream);

  // Measures cuBLASLt's best `guesses` for a shape and takes the fastest one; of one
  // guess, only loads its kernels. `calls`: of that shape, with weights of different
  // layers, so that none is in a cache because the run before has read it. Waits for the GPU.
  bool Tune(std::span<const GemvCall> calls, int guesses, Stream stream, std::string& error);

  static constexpr int kGuessesMax = 8;

  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock::engine::cuda
