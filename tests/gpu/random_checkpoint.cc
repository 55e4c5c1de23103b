#include "tests/gpu/random_checkpoint.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "backend-engine/model/weight_plan.h"
#include "tests/gpu/gpu_clock.h"

namespace penstock::engine {
namespace {

// What one rank alone takes from a checkpoint: all of it.
WeightPlan PlanOfAll(const ModelConfig& config) {
  Shard all;
  std::string error;
  if (!MakeShard(config, 0, 1, all, error)) {
    std::fprintf(stderr, "a checkpoint: %s\n", error.c_str());
    std::exit(1);
  }
  return PlanWeights(config, all);
}

int64_t AvailableBytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    int64_t kib = 0;
    if (name == "MemAvailable:" && file >> kib) return kib << 10;
    std::getline(file, unit);
  }
  return 0;
}

// By several threads: pages are made as they are touched.
void Fill(std::byte* memory, int64_t bytes) {
  const auto numbers = RandomBf16(size_t{1} << 22);
  const auto piece = static_cast<int64_t>(numbers.size() * 2);
  const auto count = static_cast<int64_t>(std::clamp(std::thread::hardware_concurrency(), 1u, 16u));
  std::vector<std::thread> threads;
  for (int64_t first = 0; first < count; ++first) {
    threads.emplace_back([&, first] {
      for (int64_t at = first * piece; at < bytes; at += count * piece) {
        std::memcpy(memory + at, numbers.data(), static_cast<size_t>(std::min(piece, bytes - at)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(const ModelConfig& config) {
  for (const WeightPart& part : PlanOfAll(config).parts) Add(part.name, part.shape);
  whole_ = bytes_ + bytes_ / 2 < AvailableBytes();
  Map(whole_ ? bytes_ : largest_);
}

RandomCheckpoint::~RandomCheckpoint() { munmap(memory_, static_cast<size_t>(mapped_)); }

void RandomCheckpoint::Add(const std::string& name, std::vector<int64_t> shape) {
  int64_t bytes = 2;
  for (const int64_t dim : shape) bytes *= dim;
  places_[name] = {std::move(shape), bytes_, bytes};
  bytes_ += (bytes + 63) / 64 * 64;
  largest_ = std::max(largest_, bytes);
}

void RandomCheckpoint::Map(int64_t bytes) {
  const int file = memfd_create("checkpoint", MFD_CLOEXEC);
  void* mapped = MAP_FAILED;
  if (file >= 0 && ftruncate(file, bytes) == 0) {
    mapped = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  if (file >= 0) close(file);
  if (mapped == MAP_FAILED) {
    std::perror("memory for a checkpoint");
    std::exit(1);
  }
  memory_ = static_cast<std::byte*>(mapped);
  mapped_ = bytes;
  Fill(memory_, bytes);
}

TensorSource RandomCheckpoint::source() const {
  return [this](std::string_view name) -> std::optional<TensorView> {
    const auto found = places_.find(name);
    if (found == places_.end()) return std::nullopt;
    const Place& place = found->second;
    return TensorView{.dtype = DType::kBf16, .shape = place.shape,
                      .bytes = {memory_ + (whole_ ? place.at : 0), static_cast<size_t>(place.bytes)}};
  };
}

int64_t WeightsOfAStep(const ModelConfig& config) {
  int64_t numbers = 0;
  for (const WeightTarget& target : PlanOfAll(config).targets) {
    const bool looked_up = target.role == WeightRole::kEmbeddings && !config.tied_embeddings;
    if (IsMatrix(target.role) && !looked_up) numbers += target.rows * target.cols;
  }
  return numbers;
}

}  // namespace penstock::engine
