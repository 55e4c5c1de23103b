// Times work on the GPU, and makes what the work reads.
#pragma once

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "backend-engine/kernels/dtype.h"
#include "tests/gpu/gpu_array.h"

namespace penstock::engine {

struct Timed {
  double microseconds = 0;    // The fastest of
  std::vector<double> turns;  // these.
};

class GpuClock {
 public:
  GpuClock() {
    Must(cuda::MakeStream(stream_), "a stream");
    for (cuda::Event& event : events_) Must(cuda::MakeEvent(event), "an event");
  }
  ~GpuClock() {
    for (const cuda::Event event : events_) cuda::DestroyEvent(event);
    cuda::DestroyStream(stream_);
  }
  GpuClock(const GpuClock&) = delete;
  GpuClock& operator=(const GpuClock&) = delete;

  // One run of `work`, in a CUDA graph of many, so that no launch is waited for.
  Timed Of(const std::function<cuda::GpuError(cuda::Stream)>& work) {
    Must(work(stream_), "timed work");
    Must(cuda::Synchronize(stream_), "timed work");
    Must(cuda::BeginCapture(stream_), "a graph");
    for (int run = 0; run < kRuns; ++run) Must(work(stream_), "timed work");
    cuda::Graph graph = nullptr;
    Must(cuda::EndCapture(stream_, graph), "a graph");
    Timed timed;
    for (int turn = 0; turn < kTurns; ++turn) {
      Must(cuda::Record(events_[0], stream_), "an event");
      Must(cuda::LaunchGraph(graph, stream_), "a graph");
      Must(cuda::Record(events_[1], stream_), "an event");
      Must(cuda::Synchronize(stream_), "timed work");
      float ms = 0;
      Must(cuda::Milliseconds(events_[0], events_[1], ms), "an event");
      timed.turns.push_back(ms * 1000.0 / kRuns);
    }
    cuda::DestroyGraph(graph);
    timed.microseconds = *std::min_element(timed.turns.begin(), timed.turns.end());
    return timed;
  }

  cuda::Stream stream() const { return stream_; }

 private:
  static constexpr int kRuns = 20, kTurns = 5;

  cuda::Stream stream_ = nullptr;
  cuda::Event events_[2] = {};
};

// bf16, from -1 to 1. Of many, the first ones again: speed does not depend on them.
inline std::vector<uint16_t> RandomBf16(size_t count) {
  constexpr size_t kDifferentMax = size_t{1} << 24;
  std::minstd_rand random(7);
  std::vector<uint16_t> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    numbers[i] = i >= kDifferentMax
                     ? numbers[i - kDifferentMax]
                     : Bf16FromFloat(static_cast<float>(random()) / 0x1p30f - 1.0f);
  }
  return numbers;
}

// Several copies of the same numbers, together more than `bytes`, which no cache holds: in
// a step each layer has weights and keys of its own, so what is timed must not find them
// where it left them.
class Copies {
 public:
  Copies(const std::vector<uint16_t>& numbers, size_t bytes)
      : count_(numbers.size()), copies_(1 + bytes / (2 * numbers.size())),
        memory_(count_ * copies_) {
    for (size_t copy = 0; copy < copies_; ++copy) {
      Must(cuda::CopyToGpu(At(copy), numbers.data(), static_cast<int64_t>(2 * count_), nullptr),
           "copies");
    }
    Must(cuda::Synchronize(nullptr), "copies");
  }
  size_t size() const { return copies_; }
  uint16_t* At(size_t copy) { return memory_.data() + copy * count_; }
  uint16_t* Next() { return At(++last_ % copies_); }

 private:
  const size_t count_, copies_;
  size_t last_ = 0;
  GpuArray<uint16_t> memory_;
};

}  // namespace penstock::engine
