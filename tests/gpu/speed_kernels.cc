#include "tests/gpu/speed_kernels.h"

#include "backend-engine/exec/decode_plan.h"
#include "backend-engine/kernels/cuda/cuda_kernels.h"

namespace penstock::engine {
namespace {

Timing Moved(std::string what, const Timed& timed, double bytes, double at_least = 0) {
  return {.what = std::move(what), .microseconds = timed.microseconds,
          .rate = bytes / timed.microseconds / 1e6, .unit = "TB/s", .bytes = bytes,
          .at_least = at_least, .turns = timed.turns};
}

Timing Computed(std::string what, const Timed& timed, double flops) {
  return {.what = std::move(what), .microseconds = timed.microseconds,
          .rate = flops / timed.microseconds / 1e6, .unit = "TFLOP/s", .flops = flops,
          .turns = timed.turns};
}

// One attention's sequences, blocks and memory.
class AttentionCase {
 public:
  AttentionCase(const SpeedSizes& sizes, const SpeedSizes::Attention& shape, int sm_count)
      : sizes_(sizes), shape_(shape), length_(shape.tokens == 1 ? shape.context : shape.tokens),
        blocks_((length_ + kBlock - 1) / kBlock), decodes_(shape.tokens == 1),
        splits_(DecodeSplits(shape.sequences, sizes.kv_heads, sm_count, length_)),
        numbers_(RandomBf16(static_cast<size_t>(shape.sequences) * blocks_ * kBlock *
                            sizes.kv_heads * sizes.head_dim)),
        keys_(numbers_, sizes.beyond_caches), values_(numbers_, sizes.beyond_caches),
        qkv_(RandomBf16(static_cast<size_t>(shape.sequences) * shape.tokens *
                        (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim)),
        out_(static_cast<size_t>(shape.sequences) * shape.tokens * sizes.heads * sizes.head_dim),
        partial_(Partials() * sizes.head_dim), stats_(Partials() * 2), sequences_(Sequences()),
        table_(Ascending(shape.sequences * blocks_)),
        decoding_(Ascending(decodes_ ? shape.sequences : 0)), tiles_of_all_(Tiles()),
        tiles_(tiles_of_all_) {}

  cuda::GpuError Run(cuda::Stream stream) {
    const cuda::AttentionCall call{
        qkv_.data(), sizes_.heads, sizes_.kv_heads, sizes_.head_dim, kBlock, 0.088f, keys_.Next(),
        values_.Next(), sequences_.data(), table_.data(), out_.data(), decoding_.data(),
        decodes_ ? shape_.sequences : 0, splits_, partial_.data(), stats_.data(), tiles_.data(),
        static_cast<int32_t>(tiles_of_all_.size())};
    return decodes_ ? cuda::AttentionDecode(call, stream) : cuda::AttentionPrefill(call, stream);
  }

  Timing Of(const Timed& timed) const {
    const std::string what = std::to_string(shape_.sequences) + " x " + std::to_string(length_);
    const double pairs = 1.0 * shape_.sequences * length_ * sizes_.head_dim;
    if (decodes_) {
      return Moved("decode attention " + what + ", " + std::to_string(splits_) + " splits", timed,
                   4.0 * pairs * sizes_.kv_heads, shape_.at_least);
    }
    return Computed("prefill attention " + what, timed, 2.0 * pairs * length_ * sizes_.heads);
  }

 private:
  static constexpr int32_t kBlock = 16;

  size_t Partials() const { return static_cast<size_t>(shape_.sequences) * sizes_.heads * splits_; }
  static std::vector<int32_t> Ascending(int32_t count) {
    std::vector<int32_t> numbers(static_cast<size_t>(count));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i);
    return numbers;
  }
  std::vector<cuda::GpuSequence> Sequences() const {
    std::vector<cuda::GpuSequence> sequences;
    for (int32_t s = 0; s < shape_.sequences; ++s) {
      sequences.push_back({s * shape_.tokens, shape_.tokens, length_ - shape_.tokens, s * blocks_});
    }
    return sequences;
  }
  // The longest first, as a step has them.
  std::vector<cuda::PrefillTile> Tiles() const {
    std::vector<cuda::PrefillTile> tiles;
    const int32_t rows = decodes_ ? 0 : shape_.tokens * (sizes_.heads / sizes_.kv_heads);
    for (int32_t s = 0; s < shape_.sequences; ++s) {
      for (int32_t row = (rows - 1) / cuda::kPrefillRows * cuda::kPrefillRows; row >= 0 && rows > 0;
           row -= cuda::kPrefillRows) {
        tiles.push_back({s, row});
      }
    }
    return tiles;
  }

  const SpeedSizes& sizes_;
  const SpeedSizes::Attention shape_;
  const int32_t length_, blocks_;
  const bool decodes_;
  const int32_t splits_;
  const std::vector<uint16_t> numbers_;
  Copies keys_, values_;
  GpuArray<uint16_t> qkv_, out_;
  GpuArray<float> partial_, stats_;
  GpuArray<cuda::GpuSequence> sequences_;
  GpuArray<int32_t> table_, decoding_;
  const std::vector<cuda::PrefillTile> tiles_of_all_;
  GpuArray<cuda::PrefillTile> tiles_;
};

}  // namespace

void MeasureCeilings(const SpeedSizes& sizes, GpuClock& clock, cuda::Gemm& gemm, Report& report) {
  GpuArray<std::byte> from(static_cast<size_t>(sizes.copy_bytes));
  GpuArray<std::byte> to(static_cast<size_t>(sizes.copy_bytes));
  const Timed copy = clock.Of([&](cuda::Stream stream) {
    return cuda::CopyOnGpu(to.data(), from.data(), sizes.copy_bytes, stream);
  });
  const double bytes = 2.0 * static_cast<double>(sizes.copy_bytes);
  const int32_t n = sizes.square;
  GpuArray<uint16_t> x(RandomBf16(static_cast<size_t>(n) * n)), y(static_cast<size_t>(n) * n);
  GpuArray<uint16_t> weight(RandomBf16(static_cast<size_t>(n) * n));
  const cuda::GemvCall call{x.data(), n, weight.data(), nullptr, n, n, y.data(), nullptr};
  std::string error;
  if (!gemm.Tune({&call, 1}, cuda::Gemm::kGuessesMax, clock.stream(), error)) {
    Must(cuda::kGpuInvalid, error.c_str());
  }
  const Timed product = clock.Of([&](cuda::Stream stream) { return gemm.Run(call, stream); });
  const double flops = 2.0 * n * n * n;
  report.Ceilings(bytes / copy.microseconds * 1e6, flops / product.microseconds * 1e6);
  report.Time(Moved("ceiling: a copy of " + std::to_string(sizes.copy_bytes >> 20) +
                        " MiB, read and written", copy, bytes));
  report.Time(Computed("ceiling: product of two square matrices, " + std::to_string(n), product,
                       flops));
}

void MeasureProducts(const SpeedSizes& sizes, GpuClock& clock, cuda::Gemm& gemm, Report& report) {
  for (const SpeedSizes::Product& shape : sizes.products) {
    const auto count = static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.cols);
    Copies weight(RandomBf16(count), sizes.beyond_caches);
    for (const int32_t tokens : sizes.product_tokens) {
      const auto rows = static_cast<size_t>(cuda::GemmTokens(tokens));
      GpuArray<uint16_t> x(RandomBf16(rows * static_cast<size_t>(shape.cols)));
      GpuArray<uint16_t> y(rows * static_cast<size_t>(shape.rows));
      const auto call = [&](const uint16_t* of) -> cuda::GemvCall {
        return {x.data(), tokens, of, nullptr, shape.rows, shape.cols, y.data(), nullptr};
      };
      const std::string what = "[" + std::to_string(shape.rows) + ", " +
                               std::to_string(shape.cols) + "] x " + std::to_string(tokens);
      const double bytes = 2.0 * static_cast<double>(count);
      if (tokens <= cuda::kGemvTokensMax) {
        report.Time(Moved("gemv " + what, clock.Of([&](cuda::Stream stream) {
          return cuda::Gemv(call(weight.Next()), stream);
        }), bytes));
      }
      std::string error;
      std::vector<cuda::GemvCall> calls;
      for (size_t copy = 0; copy < weight.size(); ++copy) calls.push_back(call(weight.At(copy)));
      if (!gemm.Tune(calls, cuda::Gemm::kGuessesMax, clock.stream(), error)) {
        report.Fact("cublaslt " + what + " not measured", error);
        continue;
      }
      report.Time(Moved("cublaslt " + what, clock.Of([&](cuda::Stream stream) {
        return gemm.Run(call(weight.Next()), stream);
      }), bytes));
    }
  }
}

void MeasureAttention(const SpeedSizes& sizes, int sm_count, GpuClock& clock, Report& report) {
  for (const SpeedSizes::Attention& shape : sizes.attentions) {
    AttentionCase attention(sizes, shape, sm_count);
    report.Time(attention.Of(
        clock.Of([&](cuda::Stream stream) { return attention.Run(stream); })));
  }
}

}  // namespace penstock::engine
