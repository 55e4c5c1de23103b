// RmsNorm on the GPU equals its definition, over the shapes of real models and
// the corners: one row, a row shorter than a warp, the widest row, no residual.
#include <cmath>
#include <cstdint>
#include <random>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "tests/gpu/gpu.h"

namespace penstock::engine {
namespace {

constexpr float kEpsilon = 1e-6f;

struct Shape {
  int32_t rows, columns;
};

std::vector<__nv_bfloat16> RandomValues(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<__nv_bfloat16> values(count);
  for (auto& value : values) value = __float2bfloat16(normal(random));
  return values;
}

// The definition, in double. `residual` may be empty.
std::vector<double> Expected(std::vector<__nv_bfloat16>& residual,
                             const std::vector<__nv_bfloat16>& x,
                             const std::vector<__nv_bfloat16>& weight, Shape shape) {
  std::vector<double> out(x.size());
  for (int32_t row = 0; row < shape.rows; ++row) {
    const size_t start = size_t(row) * shape.columns;
    double sum = 0;
    for (int32_t c = 0; c < shape.columns; ++c) {
      float value = __bfloat162float(x[start + c]);
      if (!residual.empty()) {
        residual[start + c] = __float2bfloat16(value + __bfloat162float(residual[start + c]));
        value = __bfloat162float(residual[start + c]);
      }
      out[start + c] = value;
      sum += double(value) * value;
    }
    const double rms = std::sqrt(sum / shape.columns + kEpsilon);
    for (int32_t c = 0; c < shape.columns; ++c) {
      out[start + c] *= __bfloat162float(weight[c]) / rms;
    }
  }
  return out;
}

// True if `shape` comes out right, to one unit in the last place of bf16's 8 bits.
bool Check(Shape shape, bool with_residual, std::mt19937& random) {
  const size_t count = size_t(shape.rows) * shape.columns;
  const auto x = RandomValues(count, random);
  const auto weight = RandomValues(shape.columns, random);
  auto residual = RandomValues(with_residual ? count : 0, random);

  DeviceArray device_x(x), device_weight(weight), device_out(x);
  DeviceArray device_residual(with_residual ? residual : x);
  Must(cuda::RmsNorm(device_out.data(), with_residual ? device_residual.data() : nullptr,
                     device_x.data(), device_weight.data(), shape.rows, shape.columns, kEpsilon,
                     nullptr),
       "RmsNorm");
  const auto out = device_out.Values();
  const auto kept = device_residual.Values();

  const auto expected = Expected(residual, x, weight, shape);
  for (size_t i = 0; i < count; ++i) {
    const double got = __bfloat162float(out[i]);
    const bool residual_differs =
        with_residual && __bfloat162float(kept[i]) != __bfloat162float(residual[i]);
    if (!(std::abs(got - expected[i]) <= std::abs(expected[i]) / 128 + 1e-6) || residual_differs) {
      std::printf("rmsnorm [%d, %d] residual %d: element %zu is %g, expected %g%s\n", shape.rows,
                  shape.columns, with_residual, i, got, expected[i],
                  residual_differs ? "; the residual kept differs" : "");
      return false;
    }
  }
  return true;
}

bool RefusesAPartOfAVector() {
  if (cuda::RmsNorm(nullptr, nullptr, nullptr, nullptr, 1, 12, kEpsilon, nullptr) ==
      cudaErrorInvalidValue) {
    return true;
  }
  std::printf("rmsnorm takes 12 columns, which are no whole vectors\n");
  return false;
}

int Run() {
  constexpr Shape kShapes[] = {{1, 8},     {1, 896},   {3, 256},   {7, 1000},  {64, 4096},
                               {33, 5120}, {16, 8192}, {5, 16384}, {2, 32768}, {4097, 1024}};
  std::mt19937 random(20240607);
  int failed = !RefusesAPartOfAVector();
  for (const Shape shape : kShapes) {
    failed += !Check(shape, false, random);
    failed += !Check(shape, true, random);
  }
  std::printf("rmsnorm: %zu shapes, %d failed\n", 2 * std::size(kShapes), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace penstock::engine

int main() {
  penstock::engine::SkipWithoutGpu();
  return penstock::engine::Run();
}
