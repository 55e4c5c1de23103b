#include "backend-engine/exec/device_watch.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace penstock::engine {
namespace {

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct DeviceWatch::Shared {
  DeviceWatchOptions options;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  bool ended = false;
  bool possible = true;
  double read_at = 0;
  std::vector<GpuFigures> figures;

  void Note(const std::string& text) const {
    if (options.note) options.note(text);
  }
};

DeviceWatch::DeviceWatch(DeviceWatchOptions options) : shared_(std::make_shared<Shared>()) {
  shared_->options = std::move(options);
  if (!shared_->options.now) shared_->options.now = SteadySeconds;
  shared_->read_at = shared_->options.now();
  std::thread([shared = shared_] { Watch(shared); }).detach();
}

DeviceWatch::~DeviceWatch() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, std::chrono::duration<double>(shared_->options.leave_seconds),
                            [this] { return shared_->ended; });
}

DeviceReading DeviceWatch::Read() const {
  DeviceReading reading;
  const double now = shared_->options.now();
  const std::lock_guard lock(shared_->mutex);
  reading.possible = shared_->possible;
  reading.age_seconds = now > shared_->read_at ? now - shared_->read_at : 0;
  if (reading.age_seconds <= kFreshSeconds) reading.figures = shared_->figures;
  return reading;
}

// No lock is held while the library works.
void DeviceWatch::Watch(const std::shared_ptr<Shared>& shared) {
  const DeviceWatchOptions& options = shared->options;
  bool started = false;
  {
    std::string why_not;
    const auto nvml = Nvml::Open(options.library, why_not);
    started = nvml != nullptr;
    if (nvml == nullptr) shared->Note("no figures of GPUs: " + why_not);
    std::vector<void*> gpus;
    for (const std::string& bus_id : options.bus_ids) {
      if (nvml == nullptr) break;
      gpus.push_back(nvml->Find(bus_id, why_not));
      if (gpus.back() == nullptr) shared->Note("no figures of " + why_not);
    }
    while (nvml != nullptr) {
      std::vector<GpuFigures> figures;
      for (void* gpu : gpus) figures.push_back(gpu != nullptr ? nvml->Read(gpu) : GpuFigures());
      const double now = options.now();
      std::unique_lock lock(shared->mutex);
      shared->figures = std::move(figures);
      shared->read_at = now;
      const auto period = std::chrono::duration<double>(options.period_seconds);
      if (shared->changed.wait_for(lock, period, [&] { return shared->stopping; })) break;
    }
  }
  const std::lock_guard lock(shared->mutex);
  shared->possible = shared->possible && started;
  shared->ended = true;
  shared->changed.notify_all();
}

}  // namespace penstock::engine
