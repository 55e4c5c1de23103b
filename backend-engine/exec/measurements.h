// Rolling figures of the engine's own speed, as it reports them: over the last
// kWindow steps or answers, so that they follow a change within seconds and
// one slow step does not show for ever. Told time; the engine thread only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock::engine {

// The last kWindow values, in no order.
template <typename T, size_t kWindow>
class LastValues {
 public:
  void Add(T value) {
    values_[count_ % kWindow] = value;
    ++count_;
  }
  std::span<const T> values() const { return std::span(values_).first(std::min(count_, kWindow)); }

 private:
  std::array<T, kWindow> values_{};
  size_t count_ = 0;
};

class Measurements {
 public:
  void OnStep(int64_t prefill_tokens, double seconds) {
    steps_.Add(seconds);
    if (prefill_tokens > 0) prefills_.Add({static_cast<double>(prefill_tokens), seconds});
  }

  void OnFirstTokens(std::span<const double> waits) {
    for (const double wait : waits) first_tokens_.Add(wait);
    if (!waits.empty()) ttft_p50_ = Median(first_tokens_.values());
  }

  // Each is 0 while there is nothing to go by.
  double step_seconds() const {
    double sum = 0;
    for (const double seconds : steps_.values()) sum += seconds;
    return steps_.values().empty() ? 0 : sum / static_cast<double>(steps_.values().size());
  }
  double prefill_tokens_per_second() const {
    double tokens = 0;
    double seconds = 0;
    for (const Prefill& prefill : prefills_.values()) {
      tokens += prefill.tokens;
      seconds += prefill.seconds;
    }
    return seconds > 0 ? tokens / seconds : 0;
  }
  double ttft_p50_seconds() const { return ttft_p50_; }

 private:
  static constexpr size_t kWindow = 64;
  struct Prefill {
    double tokens = 0;
    double seconds = 0;
  };

  static double Median(std::span<const double> values) {
    std::array<double, kWindow> sorted{};
    const auto end = std::copy(values.begin(), values.end(), sorted.begin());
    const auto middle = sorted.begin() + (end - sorted.begin()) / 2;
    std::nth_element(sorted.begin(), middle, end);
    return *middle;
  }

  LastValues<double, kWindow> steps_;
  LastValues<Prefill, kWindow> prefills_;
  LastValues<double, kWindow> first_tokens_;
  double ttft_p50_ = 0;
};

}  // namespace penstock::engine
