// Streams, events and graphs of the emulated GPU. Each stream is a thread that does
// what is queued there in its order; between streams, and with the host, there is no
// order but that of events and of whoever waits. The null stream's work is done at
// once, by who asks for it.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine {
namespace {

using Work = std::function<void()>;

std::atomic<bool> hold_graphs{false};
std::atomic<float> told_milliseconds{0};

// How often an event was recorded, and the last time that has been reached. Outlives the
// event in the streams where it is still to come.
struct EventState {
  std::mutex mutex;
  uint64_t recorded = 0, reached = 0;
};

}  // namespace
}  // namespace penstock::engine

struct CUstream_st {
 public:
  CUstream_st() : thread_([this] { Run(); }) {}
  ~CUstream_st() {
    {
      const std::lock_guard lock(mutex_);
      leaves_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  CUstream_st(const CUstream_st&) = delete;
  CUstream_st& operator=(const CUstream_st&) = delete;

  void Queue(penstock::engine::Work work) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    changed_.notify_all();
  }

  void WaitUntilIdle() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
  }

  // Of the host's thread that records.
  bool recording = false;
  std::vector<penstock::engine::Work> recorded;

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return leaves_ || !queue_.empty(); });
      if (queue_.empty()) return;
      penstock::engine::Work work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
      work = nullptr;  // What it holds goes before anybody hears that it is done.
      lock.lock();
      busy_ = false;
      if (queue_.empty()) changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<penstock::engine::Work> queue_;
  bool busy_ = false, leaves_ = false;
  std::thread thread_;
};
struct CUevent_st {
  const std::shared_ptr<penstock::engine::EventState> state =
      std::make_shared<penstock::engine::EventState>();
};
struct CUgraphExec_st {
  const std::shared_ptr<const std::vector<penstock::engine::Work>> work;
};

namespace penstock::engine {
namespace emulated {

void Perform(cuda::Stream stream, std::function<void()> work) {
  if (stream == nullptr) return work();
  if (stream->recording) {
    stream->recorded.push_back(std::move(work));
  } else {
    stream->Queue(std::move(work));
  }
}

void SetMilliseconds(float ms) { told_milliseconds = ms; }

void HoldGraphs(bool hold) {
  hold_graphs = hold;
  hold_graphs.notify_all();
}

}  // namespace emulated

namespace cuda {

GpuError MakeStream(Stream& stream) {
  stream = new CUstream_st;
  return kGpuOk;
}
void DestroyStream(Stream stream) { delete stream; }
GpuError Synchronize(Stream stream) {
  if (stream == nullptr) return kGpuOk;
  if (stream->recording) return kGpuInvalid;
  stream->WaitUntilIdle();
  return kGpuOk;
}

GpuError MakeEvent(Event& event) {
  event = new CUevent_st;
  return kGpuOk;
}
void DestroyEvent(Event event) { delete event; }

GpuError Record(Event event, Stream stream) {
  uint64_t turn = 0;
  {
    const std::lock_guard lock(event->state->mutex);
    turn = ++event->state->recorded;
  }
  emulated::Perform(stream, [state = event->state, turn] {
    const std::lock_guard lock(state->mutex);
    state->reached = turn;
  });
  return kGpuOk;
}

GpuError Query(Event event, bool& done) {
  const std::lock_guard lock(event->state->mutex);
  done = event->state->reached == event->state->recorded;
  return kGpuOk;
}

GpuError Milliseconds(Event from, Event to, float& ms) {
  bool from_done = false, to_done = false;
  (void)Query(from, from_done);
  (void)Query(to, to_done);
  ms = told_milliseconds;
  return from_done && to_done ? kGpuOk : kGpuInvalid;
}

GpuError BeginCapture(Stream stream) {
  if (stream->recording) return kGpuInvalid;
  stream->recording = true;
  return kGpuOk;
}

GpuError EndCapture(Stream stream, Graph& graph) {
  if (!stream->recording) return kGpuInvalid;
  stream->recording = false;
  graph = new CUgraphExec_st{std::make_shared<const std::vector<Work>>(
      std::exchange(stream->recorded, {}))};
  return kGpuOk;
}

// A graph that is destroyed while it runs runs to its end.
GpuError LaunchGraph(Graph graph, Stream stream) {
  emulated::Perform(stream, [all = graph->work] {
    for (const Work& work : *all) work();
  });
  return kGpuOk;
}
void DestroyGraph(Graph graph) {
  hold_graphs.wait(true);
  delete graph;
}

}  // namespace cuda
}  // namespace penstock::engine
