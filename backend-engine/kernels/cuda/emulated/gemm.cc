// gemm.h in plain loops, fast enough to run a small model.
#include "backend-engine/kernels/cuda/gemm.h"

#include <vector>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/kernels/dtype.h"

namespace penstock::engine::cuda {

class Gemm::State {};

Gemm::Gemm() = default;
Gemm::~Gemm() = default;
bool Gemm::Start(std::string&) { return true; }
bool Gemm::Tune(std::span<const GemvCall>, int, Stream, std::string&) { return true; }

namespace {

void Multiply(const GemvCall& call) {
  const auto cols = static_cast<size_t>(call.cols);
  std::vector<float> x(static_cast<size_t>(call.token_count) * cols);
  for (size_t i = 0; i < x.size(); ++i) x[i] = FloatFromBf16(call.x[i]);
  std::vector<float> weight(cols);
  for (int32_t row = 0; row < call.rows; ++row) {
    const Bf16* from = call.weight + static_cast<size_t>(row) * cols;
    for (size_t c = 0; c < cols; ++c) weight[c] = FloatFromBf16(from[c]);
    for (int32_t t = 0; t < call.token_count; ++t) {
      const float* numbers = x.data() + static_cast<size_t>(t) * cols;
      float sums[8] = {};
      for (size_t c = 0; c < cols; c += 8) {
        for (size_t i = 0; i < 8; ++i) sums[i] += weight[c + i] * numbers[c + i];
      }
      float sum = call.bias != nullptr ? FloatFromBf16(call.bias[row]) : 0.0f;
      for (const float part : sums) sum += part;
      const size_t at = static_cast<size_t>(t) * static_cast<size_t>(call.rows) +
                        static_cast<size_t>(row);
      if (call.y != nullptr) {
        call.y[at] = Bf16FromFloat(sum);
      } else {
        call.y_float[at] = sum;
      }
    }
  }
}

}  // namespace

GpuError Gemm::Run(const GemvCall& call, Stream stream) {
  const bool one_result = (call.y == nullptr) != (call.y_float == nullptr);
  if (call.token_count < 1 || call.rows < 1 || call.cols < 8 || call.cols % 8 != 0 ||
      !one_result || (call.y == nullptr && call.bias != nullptr)) {
    return kGpuInvalid;
  }
  emulated::Perform(stream, [call] { Multiply(call); });
  return kGpuOk;
}

}  // namespace penstock::engine::cuda
