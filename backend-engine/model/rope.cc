#include "backend-engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace penstock::engine {
namespace {

// Long waves are stretched, short ones kept, those between blended.
double Llama3Frequency(const RopeConfig& rope, double original, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double smooth = (original / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

// Which dimension turns `rotations` times over the original length.
double YarnDimension(const RopeConfig& rope, double original, double dims, double rotations) {
  return dims * std::log(original / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

double YarnFrequency(const RopeConfig& rope, double original, double dims, double pair,
                     double frequency) {
  const double low = std::max(0.0, std::floor(YarnDimension(rope, original, dims, rope.beta_fast)));
  double high = std::min(dims - 1.0, std::ceil(YarnDimension(rope, original, dims, rope.beta_slow)));
  if (low == high) high += 0.001;
  const double stretched = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return frequency / rope.factor * stretched + frequency * (1.0 - stretched);
}

}  // namespace

std::vector<float> RopeFrequencies(const ModelConfig& config, int64_t length) {
  const RopeConfig& rope = config.rope;
  const auto dims = static_cast<double>(config.head_dim);
  const auto original = static_cast<double>(
      rope.original_max_positions > 0 ? rope.original_max_positions : config.max_positions);
  double base = rope.theta;
  if (rope.kind == RopeKind::kDynamic) {
    const double reach = std::max(static_cast<double>(length), original);
    base *= std::pow(rope.factor * reach / original - (rope.factor - 1.0), dims / (dims - 2.0));
  }
  std::vector<float> frequencies;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    const auto pair = static_cast<double>(i);
    double frequency = std::pow(base, -2.0 * pair / dims);
    switch (rope.kind) {
      case RopeKind::kDefault:
      case RopeKind::kDynamic:
        break;
      case RopeKind::kLinear:
        frequency /= rope.factor;
        break;
      case RopeKind::kLlama3:
        frequency = Llama3Frequency(rope, original, frequency);
        break;
      case RopeKind::kYarn:
        frequency = YarnFrequency(rope, original, dims, pair, frequency);
        break;
    }
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

double RopeFactor(const RopeConfig& rope) {
  if (rope.kind != RopeKind::kYarn) return 1.0;
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  return rope.factor > 1.0 ? 0.1 * std::log(rope.factor) + 1.0 : 1.0;
}

RopeTable MakeRopeTable(const ModelConfig& config, int64_t positions) {
  const std::vector<float> frequencies = RopeFrequencies(config, positions);
  const double factor = RopeFactor(config.rope);
  RopeTable table;
  table.cosines.reserve(frequencies.size() * static_cast<size_t>(positions));
  table.sines.reserve(frequencies.size() * static_cast<size_t>(positions));
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      // The product is rounded to fp32, as the models were trained with.
      const double angle = static_cast<float>(position) * frequency;
      table.cosines.push_back(static_cast<float>(std::cos(angle) * factor));
      table.sines.push_back(static_cast<float>(std::sin(angle) * factor));
    }
  }
  return table;
}

}  // namespace penstock::engine
