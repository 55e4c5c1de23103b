#include "tests/gpu/op_checks.h"

#include <cmath>
#include <limits>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/gemm.h"
#include "backend-engine/kernels/kernels.h"
#include "tests/gpu/gpu_array.h"
#include "tests/gpu/plain_matrix.h"

namespace penstock::engine {
namespace {

// bf16 has 8 bits: a rounding is at most 2^-9 of the number, and what was
// rounded before (x, or a sum in another order) moves it over the edge.
constexpr double kRounded = 0x1p-8;
constexpr double kExact = 0;

const Kernels& Plain() { return *KernelsAt(CpuLevel::kReference); }

std::string Text(const char* format, int a, int b = 0, int c = 0, int d = 0) {
  char text[96];
  std::snprintf(text, sizeof text, format, a, b, c, d);
  return text;
}

}  // namespace

std::vector<float> Widened(const std::vector<uint16_t>& bits) {
  std::vector<float> numbers(bits.size());
  for (size_t i = 0; i < bits.size(); ++i) numbers[i] = FloatFromBf16(bits[i]);
  return numbers;
}

std::vector<uint16_t> Checks::Numbers(size_t count, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<uint16_t> numbers(count);
  for (uint16_t& number : numbers) number = Bf16FromFloat(normal(random_));
  return numbers;
}

std::vector<float> Checks::Floats(size_t count, float scale) {
  return Widened(Numbers(count, scale));
}

int32_t Checks::Below(int32_t limit) {
  return std::uniform_int_distribution<int32_t>(0, limit - 1)(random_);
}

void Checks::Compare(const char* op, std::string shape, const std::vector<float>& got,
                     const std::vector<float>& want, double scale, double allowed) {
  double worst = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < want.size() && i < got.size(); ++i) {
    if (!std::isfinite(got[i])) {
      worst = std::numeric_limits<double>::infinity();
      break;
    }
    const double difference = std::fabs(static_cast<double>(got[i]) - want[i]);
    if (difference == 0) continue;
    worst = std::max(worst, difference / (std::fabs(static_cast<double>(want[i])) + scale));
  }
  results_.push_back({op, std::move(shape), worst, allowed});
}

void Checks::Embed() {
  for (const int32_t width : {8, 64, 1000, 4096}) {
    const int32_t rows = 21, first = 40;
    const std::vector<int32_t> tokens = {40, 60, 39, 41, 61, 0, 55};
    const auto table = Numbers(static_cast<size_t>(rows * width));
    GpuArray<uint16_t> gpu_table(table), out(tokens.size() * static_cast<size_t>(width));
    GpuArray<int32_t> gpu_tokens(tokens);
    const auto count = static_cast<int32_t>(tokens.size());
    Must(cuda::Embed({gpu_tokens.data(), count, gpu_table.data(), first, rows, width, out.data()},
                     nullptr), "Embed");
    const PlainMatrix matrix(table, rows, width);
    std::vector<float> want(tokens.size() * static_cast<size_t>(width));
    Plain().embed({.tokens = tokens.data(), .token_count = count, .table = matrix.matrix(),
                   .first_row = first, .out = want.data()});
    Compare("embed", Text("7 tokens, width %d", width), Widened(out.Values()), want, 0, kExact);
  }
}

void Checks::RmsNorm() {
  struct Shape {
    int32_t tokens, width;
  };
  for (const Shape shape : {Shape{1, 8}, {1, 896}, {3, 256}, {7, 1000}, {2, 4096}, {33, 512},
                            {3, 8192}, {1, 16384}, {2, 32768}}) {
    for (const bool starts : {true, false}) {
      // Small numbers, of which epsilon is a part that shows, for some.
      const float size = shape.tokens == 3 ? 0.004f : 1.0f;
      const auto count = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.width);
      const auto x = Numbers(count, size), old = Numbers(count, 3.0f * size);
      const auto weight = Floats(static_cast<size_t>(shape.width));
      GpuArray<uint16_t> gpu_x(x), out(count);
      GpuArray<float> residual(starts ? std::vector<float>(count, NAN) : Widened(old));
      GpuArray<float> gpu_weight(weight);
      Must(cuda::RmsNorm({gpu_x.data(), residual.data(), starts, gpu_weight.data(), shape.tokens,
                          shape.width, 1e-5f, out.data()}, nullptr), "RmsNorm");
      std::vector<float> kept = starts ? Widened(x) : Widened(old), want(count);
      const auto added = Widened(x);
      Plain().rms_norm({.x = starts ? nullptr : added.data(), .residual = kept.data(),
                        .weight = weight.data(), .token_count = shape.tokens,
                        .width = shape.width, .eps = 1e-5f, .out = want.data()});
      const auto text = Text(starts ? "[%d, %d] first" : "[%d, %d] added", shape.tokens,
                             shape.width);
      Compare("rms_norm", text, Widened(out.Values()), want, 1e-6, kRounded);
      Compare("rms_norm residual", text, residual.Values(), kept, 0, kExact);
    }
  }
}

void Checks::GemvShape(int32_t tokens, int32_t rows, int32_t cols, bool biased) {
  const auto weight = Numbers(static_cast<size_t>(rows) * static_cast<size_t>(cols));
  const auto x = Numbers(static_cast<size_t>(tokens) * static_cast<size_t>(cols));
  const auto bias = Numbers(static_cast<size_t>(rows));
  GpuArray<uint16_t> gpu_weight(weight), gpu_x(x), gpu_bias(bias);
  const auto outputs = static_cast<size_t>(tokens) * static_cast<size_t>(rows);
  std::vector<float> want(outputs);
  PlainLinear(weight, x, biased ? &bias : nullptr, tokens, rows, cols, want);
  const cuda::GemvCall call{.x = gpu_x.data(), .token_count = tokens,
                            .weight = gpu_weight.data(),
                            .bias = biased ? gpu_bias.data() : nullptr, .rows = rows,
                            .cols = cols, .y = nullptr, .y_float = nullptr};
  const auto text = Text(biased ? "[%d, %d] x %d + bias" : "[%d, %d] x %d", rows, cols, tokens);
  const double scale = std::sqrt(static_cast<double>(cols));

  GpuArray<float> floats(outputs);
  cuda::GemvCall to_floats = call;
  to_floats.y_float = floats.data();
  Must(cuda::Gemv(to_floats, nullptr), "Gemv");
  Compare("gemv fp32", text, floats.Values(), want, scale, 2e-6);

  GpuArray<uint16_t> halves(outputs);
  cuda::GemvCall to_halves = call;
  to_halves.y = halves.data();
  Must(cuda::Gemv(to_halves, nullptr), "Gemv");
  Compare("gemv bf16", text, Widened(halves.Values()), want, 1e-4 * scale, kRounded);

  if (rows % 2 != 0) return;
  GpuArray<uint16_t> gated(outputs / 2);
  cuda::GemvCall to_gated = call;
  to_gated.y = gated.data();
  Must(cuda::GemvSiluMul(to_gated, nullptr), "GemvSiluMul");
  std::vector<float> want_gated(outputs / 2);
  Plain().silu_mul({want.data(), tokens, rows / 2, want_gated.data()});
  Compare("gemv silu_mul", text, Widened(gated.Values()), want_gated, 1e-4 * scale, kRounded);
}

void Checks::Gemv() {
  for (int32_t tokens = 1; tokens <= cuda::kGemvTokensMax; ++tokens) {
    for (const bool biased : {false, true}) {
      GemvShape(tokens, 1, 8, biased);
      GemvShape(tokens, 33, 256, biased);
      GemvShape(tokens, 64, 264, biased);
      GemvShape(tokens, 102, 1216, biased);
    }
  }
  if (!large_) return;
  GemvShape(1, 6144, 4096, false);
  GemvShape(2, 4096, 14336, false);
  GemvShape(3, 4608, 3584, true);
  GemvShape(4, 37888, 3584, false);
}

void Checks::GemmShape(int32_t tokens, int32_t rows, int32_t cols, bool biased) {
  const auto weight = Numbers(static_cast<size_t>(rows) * static_cast<size_t>(cols));
  const auto x = Numbers(static_cast<size_t>(tokens) * static_cast<size_t>(cols));
  const auto bias = Numbers(static_cast<size_t>(rows));
  GpuArray<uint16_t> gpu_weight(weight), gpu_x(x), gpu_bias(bias);
  const auto outputs = static_cast<size_t>(tokens) * static_cast<size_t>(rows);
  std::vector<float> want(outputs);
  PlainLinear(weight, x, biased ? &bias : nullptr, tokens, rows, cols, want);
  cuda::Gemm gemm;
  std::string error;
  if (!gemm.Start(error)) Must(cuda::kGpuInvalid, error.c_str());
  cuda::GemvCall call{.x = gpu_x.data(), .token_count = tokens, .weight = gpu_weight.data(),
                      .bias = biased ? gpu_bias.data() : nullptr, .rows = rows, .cols = cols,
                      .y = nullptr, .y_float = nullptr};
  const auto text = Text(biased ? "[%d, %d] x %d + bias" : "[%d, %d] x %d", rows, cols, tokens);
  const double scale = std::sqrt(static_cast<double>(cols));
  if (!biased) {
    GpuArray<float> floats(outputs);
    call.y_float = floats.data();
    Must(gemm.Run(call, nullptr), "Gemm");
    // Tensor cores cut off where fp32 would round, at each of the sum's steps.
    Compare("gemm fp32", text, floats.Values(), want, scale, 1e-5);
    call.y_float = nullptr;
  }
  GpuArray<uint16_t> halves(outputs);
  call.y = halves.data();
  Must(gemm.Run(call, nullptr), "Gemm");
  Compare("gemm bf16", text, Widened(halves.Values()), want, 1e-4 * scale, kRounded);
}

void Checks::Gemm() {
  for (const int32_t tokens : {1, 5, 16, 100}) {
    GemmShape(tokens, 96, 64, true);
    GemmShape(tokens, 160, 520, false);
  }
  if (!large_) return;
  GemmShape(64, 6144, 4096, false);
  GemmShape(257, 4608, 3584, true);
}

void Checks::RopeKvWrite() {
  struct Shape {
    int32_t heads, kv_heads, dim, block_tokens, tokens;
  };
  for (const Shape shape : {Shape{4, 2, 64, 16, 5}, {1, 1, 16, 4, 3}, {28, 4, 128, 16, 2},
                            {8, 8, 128, 32, 7}}) {
    const int32_t blocks = 6, positions = 50;
    const auto row = static_cast<size_t>((shape.heads + 2 * shape.kv_heads) * shape.dim);
    const auto qkv = Numbers(row * static_cast<size_t>(shape.tokens));
    const auto angles = Floats(static_cast<size_t>(positions * shape.dim));
    const std::vector<float> cosines(angles.begin(), angles.begin() + positions * shape.dim / 2);
    const std::vector<float> sines(angles.begin() + positions * shape.dim / 2, angles.end());
    std::vector<int32_t> position;
    std::vector<int64_t> slots;
    for (int32_t t = 0; t < shape.tokens; ++t) {
      position.push_back(Below(positions));
      slots.push_back((t * 7 + 3) % (blocks * shape.block_tokens));
    }
    const auto cache = static_cast<size_t>(blocks * shape.kv_heads * shape.block_tokens *
                                           shape.dim);
    const std::vector<uint16_t> untouched(cache, 0);
    GpuArray<uint16_t> gpu_qkv(qkv), keys(untouched), values(untouched);
    GpuArray<int32_t> gpu_position(position);
    GpuArray<int64_t> gpu_slots(slots);
    GpuArray<float> gpu_cosines(cosines), gpu_sines(sines);
    Must(cuda::RopeKvWrite({gpu_qkv.data(), shape.tokens, shape.heads, shape.kv_heads, shape.dim,
                            shape.block_tokens, gpu_position.data(), gpu_slots.data(),
                            gpu_cosines.data(), gpu_sines.data(), keys.data(), values.data()},
                           nullptr), "RopeKvWrite");
    std::vector<float> want = Widened(qkv), want_keys(cache), want_values(cache);
    Plain().rope_kv_write(
        {.qkv = want.data(), .token_count = shape.tokens, .heads = shape.heads,
         .positions = position.data(), .slots = slots.data(), .cosines = cosines.data(),
         .sines = sines.data(),
         .kv = {reinterpret_cast<std::byte*>(want_keys.data()),
                reinterpret_cast<std::byte*>(want_values.data()), DType::kF32, shape.kv_heads,
                shape.block_tokens, shape.dim}});
    const auto text = Text("%d + 2 * %d heads of %d, %d tokens", shape.heads, shape.kv_heads,
                           shape.dim, shape.tokens);
    // Queries alone are turned in place; keys and values of the row stay.
    auto got = Widened(gpu_qkv.Values());
    for (size_t i = 0; i < got.size(); ++i) {
      if (i % row >= static_cast<size_t>(shape.heads * shape.dim)) got[i] = want[i] = 0;
    }
    Compare("rope queries", text, got, want, 1, kRounded);
    Compare("rope keys", text, Widened(keys.Values()), want_keys, 1, kRounded);
    Compare("rope values", text, Widened(values.Values()), want_values, 0, kExact);
  }
}

void Checks::SiluMul() {
  struct Shape {
    int32_t tokens, width;
  };
  for (const Shape shape : {Shape{1, 8}, {3, 704}, {2, 1216}, {5, 14336}}) {
    auto gate_up = Numbers(static_cast<size_t>(2 * shape.tokens * shape.width), 4.0f);
    gate_up[0] = Bf16FromFloat(-200.0f);
    gate_up[1] = Bf16FromFloat(200.0f);
    gate_up[2] = Bf16FromFloat(-INFINITY);
    const auto count = static_cast<size_t>(shape.tokens * shape.width);
    GpuArray<uint16_t> gpu(gate_up), out(count);
    Must(cuda::SiluMul({gpu.data(), shape.tokens, shape.width, out.data()}, nullptr), "SiluMul");
    std::vector<float> want(count);
    const auto floats = Widened(gate_up);
    Plain().silu_mul({floats.data(), shape.tokens, shape.width, want.data()});
    want[2] = 0.0f;  // Its twin says NaN.
    Compare("silu_mul", Text("[%d, %d]", shape.tokens, shape.width), Widened(out.Values()), want,
            1e-6, kRounded);
  }
}

void Checks::GatherRows() {
  const int32_t width = 264;
  const auto rows = Numbers(static_cast<size_t>(9 * width));
  const std::vector<int32_t> indexes = {8, 0, 3, 3, 7};
  GpuArray<uint16_t> gpu_rows(rows), out(indexes.size() * static_cast<size_t>(width));
  GpuArray<int32_t> gpu_indexes(indexes);
  Must(cuda::GatherRows({gpu_rows.data(), gpu_indexes.data(), 5, width, out.data()}, nullptr),
       "GatherRows");
  std::vector<float> want;
  const auto floats = Widened(rows);
  for (const int32_t index : indexes) {
    want.insert(want.end(), floats.begin() + index * width, floats.begin() + (index + 1) * width);
  }
  Compare("gather_rows", Text("5 of 9 rows of %d", width), Widened(out.Values()), want, 0, kExact);
}

// What a kernel cannot do is refused, not done wrong.
void Checks::Refusals() {
  const auto refuse = [this](const char* what, cuda::GpuError error) {
    results_.push_back({"refuses", what, error == cuda::kGpuInvalid ? 0.0 : 1.0, 0});
  };
  refuse("rms_norm of 12 columns", cuda::RmsNorm({.token_count = 1, .width = 12}, nullptr));
  refuse("rms_norm of 40000 columns", cuda::RmsNorm({.token_count = 1, .width = 40000}, nullptr));
  refuse("gemv of 5 tokens",
         cuda::Gemv({.token_count = 5, .rows = 8, .cols = 8, .y = reinterpret_cast<uint16_t*>(8)},
                    nullptr));
  refuse("gemv without a place for its result",
         cuda::Gemv({.token_count = 1, .rows = 8, .cols = 8}, nullptr));
  refuse("attention of heads of 80",
         cuda::AttentionPrefill({.heads = 4, .kv_heads = 2, .head_dim = 80, .block_tokens = 16,
                                 .tile_count = 1}, nullptr));
  refuse("attention of blocks of 24",
         cuda::AttentionDecode({.heads = 4, .kv_heads = 2, .head_dim = 64, .block_tokens = 24,
                                .decode_count = 1, .splits = 1}, nullptr));
}

void Checks::All() {
  Embed();
  RmsNorm();
  Gemv();
  Gemm();
  RopeKvWrite();
  AttentionDecode();
  AttentionPrefill();
  SiluMul();
  GatherRows();
  Sample();
  SampleSpoiled();
  Refusals();
}

}  // namespace penstock::engine
