// RmsNorm on the GPU equals its CPU twin, over the shapes of real models and
// the corners: one row, a row shorter than a warp, the widest row, no residual.
#include <cmath>
#include <cstdint>
#include <random>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/kernels.h"
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

std::vector<float> Floats(const std::vector<__nv_bfloat16>& values) {
  std::vector<float> floats(values.size());
  for (size_t i = 0; i < values.size(); ++i) floats[i] = __bfloat162float(values[i]);
  return floats;
}

// What the CPU twin makes of rows of bf16.
std::vector<float> Expected(const std::vector<__nv_bfloat16>& rows,
                            const std::vector<__nv_bfloat16>& weight, Shape shape) {
  std::vector<float> residual = Floats(rows), out(rows.size());
  const std::vector<float> weights = Floats(weight);
  KernelsAt(CpuLevel::kReference)->rms_norm({.residual = residual.data(),
                                             .weight = weights.data(),
                                             .token_count = shape.rows,
                                             .width = shape.columns,
                                             .eps = kEpsilon,
                                             .out = out.data()});
  return out;
}

// True if `shape` comes out right, to one unit in the last place of bf16's 8 bits.
bool Check(Shape shape, bool with_residual, std::mt19937& random) {
  const size_t count = size_t(shape.rows) * shape.columns;
  const auto x = RandomValues(count, random);
  const auto weight = RandomValues(shape.columns, random);
  const auto residual = RandomValues(count, random);
  // The GPU keeps the residual in bf16; the twin would keep it in fp32.
  auto normed = x;
  for (size_t i = 0; with_residual && i < count; ++i) {
    normed[i] = __float2bfloat16(__bfloat162float(x[i]) + __bfloat162float(residual[i]));
  }

  DeviceArray device_x(x), device_weight(weight), device_out(x);
  DeviceArray device_residual(residual);
  Must(cuda::RmsNorm(device_out.data(), with_residual ? device_residual.data() : nullptr,
                     device_x.data(), device_weight.data(), shape.rows, shape.columns, kEpsilon,
                     nullptr),
       "RmsNorm");
  const auto out = device_out.Values();
  const auto kept = device_residual.Values();

  const auto& expected_kept = with_residual ? normed : residual;
  const auto expected = Expected(normed, weight, shape);
  for (size_t i = 0; i < count; ++i) {
    const float got = __bfloat162float(out[i]);
    const bool residual_differs = __bfloat162float(kept[i]) != __bfloat162float(expected_kept[i]);
    if (!(std::abs(got - expected[i]) <= std::abs(expected[i]) / 128 + 1e-6f) || residual_differs) {
      std::printf("rms_norm [%d, %d] residual %d: element %zu is %g, expected %g%s\n", shape.rows,
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
  std::printf("rms_norm takes 12 columns, which are no whole vectors\n");
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
  std::printf("rms_norm: %zu shapes, %d failed\n", 2 * std::size(kShapes), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace penstock::engine

int main() {
  penstock::engine::SkipWithoutGpu();
  return penstock::engine::Run();
}
