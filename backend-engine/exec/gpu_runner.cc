#include "backend-engine/exec/gpu_runner.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "backend-engine/exec/gpu_flights.h"
#include "backend-engine/exec/gpu_line.h"
#include "backend-engine/exec/gpu_plan.h"
#include "backend-engine/exec/gpu_rank.h"
#include "backend-engine/exec/step_watch.h"
#include "backend-engine/exec/thread_place.h"
#include "backend-engine/parallel/local_comm.h"
#include "backend-engine/parallel/wait.h"

namespace penstock::engine {

class GpuRunner::Impl {
 public:
  explicit Impl(const GpuRunnerOptions& options)
      : options_(options), threads_meet_(static_cast<int>(options.gpus.size())),
        meeting_(static_cast<int>(options.gpus.size())) {}

  // Watched to the end: a GPU that hangs would keep each of the waits in it waiting.
  ~Impl() {
    stopping_.store(true, std::memory_order_release);
    if (watch_) watch_->Leave();
    Release();
    WakeRanks();
    for (std::thread& thread : threads_) thread.join();
    line_.reset();  // The others hear of it, and nothing calls us any more.
    for (const auto& rank : ranks_) rank->WaitUntilIdle();
    ranks_.clear();
    flights_.reset();
    watch_.reset();
  }

  bool Start(const ModelConfig& config, const TensorSource& source, std::string& error) {
    if (!PlanGpuRun(config, options_, group_, plan_, error) || !meeting_.Start(error) ||
        (options_.meeting && !MeetOthers(config, error))) {
      return false;
    }
    notes_ = plan_.notes;
    const bool own_gpus =
        std::set<int>(group_.gpus.begin(), group_.gpus.end()).size() == group_.gpus.size();
    if (line_ == nullptr && Size() > 1 && own_gpus && NcclComm::Available() &&
        !NcclComm::NewId(ids_.all, error)) {
      return false;
    }
    for (int rank = 0; rank < Size(); ++rank) {
      ranks_.push_back(std::make_unique<GpuRank>(group_, *plan_.layout, meeting_, rank));
      loaded_.emplace_back(0, 0);
      comms_.push_back(threads_meet_.MakeComm(rank));
    }
    if (line_ != nullptr) line_->OnLost([this](const std::string& why) { FailAlone(why); });
    // Memory of the host that this thread touches first lies near the GPU, too.
    const PlaceRestored restored;
    Settle(0);
    flights_.emplace(group_, plan_);
    if (!flights_->Allocate(error)) return false;
    for (int rank = 1; rank < Size(); ++rank) {
      threads_.emplace_back([this, rank, &source] { RankMain(rank, source); });
    }
    watch_.emplace(WatchOptions());
    // All have loaded, or somebody failed and released the others.
    if (!Guard(0, [&](std::string& reason) { return Prepare(0, source, reason); })) {
      error = this->error();
      return false;
    }
    if (group_.ranks() > 1) notes_ += "sums over ranks, by size:\n" + meeting_.table.Text();
    notes_ += std::to_string(group_.buckets.size()) + " CUDA graphs of decode steps\n";
    watch_->OfNothing();
    ready_ = true;
    return true;
  }

  RunStatus Start(const StepPlan& plan) {
    if (!settled_) Settle(0);  // The engine's thread, which is not the one that started us.
    settled_ = true;
    if (threads_meet_.aborted() || group_.process != 0) return RunStatus::kFailed;
    GpuFlight& flight = flights_->Of(started_);
    const int32_t awaited_max = started_ > finished_ ? flights_->Of(started_ + 1).samples() : 0;
    std::string refusal;
    if (!flights_->Pack(plan, awaited_max, flight, refusal) || !TellOthers(flight, refusal)) {
      Fail(refusal);
      return RunStatus::kFailed;
    }
    return Launch(flight) ? RunStatus::kOk : RunStatus::kFailed;
  }

  // As Start() and Finish() in turns, with the steps that come over the line.
  std::string Follow() {
    Settle(0);
    int looks = 0;
    while (!threads_meet_.aborted() && line_ != nullptr && group_.process != 0) {
      const bool busy = started_ > finished_;
      const bool room = started_ - finished_ < GpuFlights::kCount;
      if (room && TakeStep(busy ? 0 : kFollowSeconds)) {
        looks = 0;
        continue;
      }
      if (!busy) continue;
      bool done = false;
      if (!Guard(0, [&](std::string& reason) { return AllDone(done, reason); })) break;
      if (!done) {
        Rest(looks);
        continue;
      }
      Finished();
      looks = 0;
    }
    return error();
  }

  RunStatus Finish(StepResult& result) {
    if (!Guard(0, [this](std::string& reason) { return WaitForAll(reason); })) {
      return RunStatus::kFailed;
    }
    flights_->Read(finished_, *ranks_[0], result);
    busy_seconds_ += ranks_[0]->BusySeconds(GpuFlights::TurnOf(finished_));
    Finished();
    return RunStatus::kOk;
  }

  void Abort() { Release(); }

  void OnFailure(std::function<void()> failed) {
    const std::lock_guard lock(failure_mutex_);
    on_failure_ = std::move(failed);
    if (on_failure_ && threads_meet_.aborted()) on_failure_();
  }

  std::string error() const {
    const std::lock_guard lock(mutex_);
    return error_.empty() ? "the step was aborted" : error_;
  }

  const RunnerInfo& info() const { return plan_.info; }
  const std::string& notes() const { return notes_; }
  const AllReduceTable& sums() const { return meeting_.table; }
  double busy_seconds() const { return busy_seconds_; }

  std::span<const float> kept_logits(int32_t index) const { return flights_->kept_logits(index); }

 private:
  static constexpr double kFollowSeconds = 0.1;  // Between two looks at whether to stop.
  static constexpr double kLossSeconds = 1;      // In which the line hears of what a rank noticed.

  int Size() const { return static_cast<int>(group_.gpus.size()); }

  // All processes have the pool of the one with the least room. It is planned anew with
  // the same readings: what is free by now may be less, by a context or another process.
  bool MeetOthers(const ModelConfig& config, std::string& error) {
    line_ = GpuLine::Meet(*options_.meeting, group_, *plan_.layout, meeting_.aborted(), error);
    if (line_ == nullptr) return false;
    ids_ = line_->ids();
    if (line_->block_count() == group_.limits.step.block_count) return true;
    GpuRunnerOptions alike = options_;
    alike.block_count = line_->block_count();
    GpuPlan again;
    again.readings = std::move(plan_.readings);
    plan_ = std::move(again);
    return PlanGpuRun(config, alike, group_, plan_, error);
  }

  // Watched, as the step itself is: a process that takes nothing is as bad as one that hangs.
  bool TellOthers(const GpuFlight& flight, std::string& error) {
    BeginWatch(flight);
    return line_ == nullptr || line_->SendStep(flight.shape, flight.packed, error);
  }

  void BeginWatch(const GpuFlight& flight) {
    if (started_ == finished_) watch_->OfStep(flight.number);
  }

  bool Launch(const GpuFlight& flight) {
    BeginWatch(flight);
    const uint64_t step = started_;
    started_.store(step + 1, std::memory_order_release);
    WakeRanks();
    return Guard(0, [&](std::string& reason) { return Queue(0, step, reason); });
  }

  void Finished() {
    ++finished_;
    if (started_ == finished_) return watch_->OfNothing();
    watch_->OfStep(flights_->Of(finished_).number);
  }

  // True: there was one, and it is under way.
  bool TakeStep(double seconds) {
    GpuFlight& flight = flights_->Of(started_);
    std::string reason;
    switch (line_->ReceiveStep(seconds, flight.packed, flight.shape, reason)) {
      case GpuLine::Next::kNothing: return false;
      case GpuLine::Next::kEnd: Fail(reason); return false;
      case GpuLine::Next::kStep: break;
    }
    flight.number = started_;
    return Launch(flight);
  }

  // The first reason stays: what follows it is what it caused.
  void Fail(const std::string& reason) {
    if (FailAlone(reason) && line_ != nullptr) line_->Leave(reason);
  }

  // False: something had failed before.
  bool FailAlone(const std::string& reason) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = error_.empty() && !threads_meet_.aborted();
      if (first) error_ = reason;
    }
    Release();
    if (first && ready_ && options_.failed) options_.failed(reason);
    const std::lock_guard lock(failure_mutex_);
    if (on_failure_) on_failure_();
    return first;
  }

  // A step that does not end is somebody's death: of a GPU, a peer, a link. Nor may the
  // end of all that runs take long, where Create() or the destructor waits for it.
  StepWatchOptions WatchOptions() {
    return {.step_seconds_max = options_.step_seconds_max,
            .end_seconds_max = options_.end_seconds_max,
            .hangs = [this](const std::string& why) { Fail(why + ": a GPU or a rank hangs"); },
            .must_end = [this](bool leaves) {
              return all_loaded_.load(std::memory_order_acquire) &&
                     (leaves || (threads_meet_.aborted() && !ready_));
            },
            .lasts = [this] { Lose(); }};
  }

  void Lose() const {
    const std::string why = "the GPUs do not end what they run within " +
                            std::to_string(options_.end_seconds_max) + " s of an abort: " + error();
    if (options_.lost) return options_.lost(why);
    std::fprintf(stderr, "penstock-engine: %s\n", why.c_str());
    std::_Exit(1);
  }

  // Nobody waits any longer, on the host or on a GPU.
  void Release() {
    threads_meet_.Abort();
    meeting_.Abort();
    for (const auto& rank : ranks_) rank->Abort();
  }

  template <typename Work>
  bool Guard(int rank, const Work& work) {
    std::string reason;
    try {
      if (work(reason)) return true;
    } catch (const std::exception& exception) {
      reason = "rank " + std::to_string(rank) + ": " + exception.what();
    }
    // What a rank sees of a process that ended is a puzzle; the line knows its name.
    const bool first = line_ != nullptr && !threads_meet_.aborted();
    if (std::string why; first && line_->IsLostWithin(kLossSeconds, why)) reason = why;
    reason.empty() ? Release() : Fail(reason);
    return false;
  }

  bool Prepare(int index, const TensorSource& source, std::string& error) {
    const auto at = static_cast<size_t>(index);
    GpuRank& rank = *ranks_[at];
    Comm& threads = *comms_[at];
    const LoadProgress progress = [this, at](int64_t done, int64_t total) {
      ReportProgress(at, done, total);
    };
    return rank.Use(error) && rank.Allocate(plan_.shards[at], plan_.memory[at], error) &&
           rank.Load(source, progress, error) && threads.Barrier() && Loaded() &&
           (line_ != nullptr || Watched(index)) && rank.Connect(ids_, error) && Watched(index) &&
           rank.Tune(error) && threads.Barrier() &&
           (group_.ranks() == 1 || rank.MeasureSums(error)) && threads.Barrier() &&
           (index != 0 || line_ == nullptr || ShareTable(error)) && threads.Barrier() &&
           rank.RunBuckets(flights_->Of(0).packed, error) && threads.Barrier() &&
           rank.Record(error) && threads.Barrier();
  }

  // Only weights may take long to let go of, and nobody holds any GPU up with them.
  bool Loaded() {
    all_loaded_.store(true, std::memory_order_release);
    return true;
  }

  // From here on the start is watched as a step is: ranks wait for each other. Ranks of
  // other processes may still load for as long as they like, which only the line watches.
  bool Watched(int rank) {
    if (rank == 0) watch_->OfStart();
    return true;
  }

  bool ShareTable(std::string& error) {
    return line_->ShareTable(*plan_.layout, meeting_.aborted(), meeting_.table, error);
  }

  void ReportProgress(size_t index, int64_t done, int64_t total) {
    if (!options_.progress) return;
    const std::lock_guard lock(mutex_);
    loaded_[index] = {done, total};
    int64_t all_done = 0;
    int64_t all_total = 0;
    for (const auto& [rank_done, rank_total] : loaded_) {
      all_done += rank_done;
      // Ranks have equal shares: one that has not begun will read as much.
      all_total += rank_total > 0 ? rank_total : total;
    }
    options_.progress(all_done, all_total);
  }

  void Settle(int rank) {
    const std::vector<int>& cpus = plan_.cpus[static_cast<size_t>(rank)];
    if (!cpus.empty()) (void)KeepThisThreadOn(cpus);
  }

  void RankMain(int rank, const TensorSource& source) {
    Settle(rank);
    const auto prepare = [&](std::string& reason) { return Prepare(rank, source, reason); };
    if (!Guard(rank, prepare)) return;
    uint64_t queued = 0, done = 0;  // Steps of this rank.
    int looks = 0;
    while (!stopping_.load(std::memory_order_acquire) && !threads_meet_.aborted()) {
      const int seen = step_.load(std::memory_order_acquire);
      if (queued < started_.load(std::memory_order_acquire)) {
        if (!Guard(rank, [&](std::string& reason) { return Queue(rank, queued, reason); })) return;
        ++queued;
      } else if (done < queued) {
        bool is_done = false;
        if (!Guard(rank, [&](std::string& reason) {
              return ranks_[static_cast<size_t>(rank)]->Done(GpuFlights::TurnOf(done), is_done, reason);
            })) {
          return;
        }
        if (!is_done) {
          Rest(looks);
          continue;
        }
        done_[static_cast<size_t>(rank)].store(++done, std::memory_order_release);
      } else if (!stopping_.load(std::memory_order_acquire)) {
        WaitWhile(step_, seen);
      }
      looks = 0;
    }
  }

  // Between two looks at something that is not yet done.
  static void Rest(int& looks) {
    if (++looks < kSpinPauses) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }

  void WakeRanks() {
    step_.fetch_add(1, std::memory_order_acq_rel);
    step_.notify_all();
  }

  bool Queue(int index, uint64_t step, std::string& error) {
    GpuRank& rank = *ranks_[static_cast<size_t>(index)];
    const GpuFlight& flight = flights_->Of(step);
    return rank.Use(error) &&
           rank.Queue(flight.shape, flight.samples(), flight.packed, GpuFlights::TurnOf(step),
                      error);
  }

  // Rank 0 waits until every rank has done the oldest step: then nobody looks at
  // its memory any more.
  bool WaitForAll(std::string& error) {
    const uint64_t step = finished_;
    int looks = 0;
    for (int index = 0; index < Size(); looks = 0, ++index) {
      for (bool done = false; !done;) {
        if (threads_meet_.aborted()) return false;
        if (index > 0) {
          done = done_[static_cast<size_t>(index)].load(std::memory_order_acquire) > step;
        } else if (!ranks_[0]->Done(GpuFlights::TurnOf(step), done, error)) {
          return false;
        }
        if (!done) Rest(looks);
      }
    }
    return true;
  }

  bool AllDone(bool& done, std::string& error) {
    done = true;
    for (int index = 1; index < Size(); ++index) {
      done = done && done_[static_cast<size_t>(index)].load(std::memory_order_acquire) > finished_;
    }
    return !done || ranks_[0]->Done(GpuFlights::TurnOf(finished_), done, error);
  }

  const GpuRunnerOptions options_;
  GpuGroup group_;
  GpuPlan plan_;
  std::string notes_;
  std::unique_ptr<GpuLine> line_;            // To the other processes; null: there are none.
  NcclIds ids_;
  LocalGroup threads_meet_;
  GpuMeeting meeting_;
  std::vector<std::unique_ptr<Comm>> comms_;  // Of the ranks' threads.
  std::vector<std::unique_ptr<GpuRank>> ranks_;
  std::vector<std::pair<int64_t, int64_t>> loaded_;

  bool settled_ = false;

  std::optional<GpuFlights> flights_;
  std::atomic<uint64_t> started_{0};   // Steps; written by rank 0.
  uint64_t finished_ = 0;
  double busy_seconds_ = 0;
  std::array<std::atomic<uint64_t>, cuda::kPeersMax> done_{};  // Steps that a rank has done.

  std::atomic<int> step_{0};           // One more: there is something to do, or to stop for.
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;           // Of error_ and the ranks' progress.
  std::string error_;
  std::atomic<bool> ready_{false};     // Create() has succeeded, or is about to.
  std::mutex failure_mutex_;           // Held while the failure is told.
  std::function<void()> on_failure_;
  std::vector<std::thread> threads_;
  std::atomic<bool> all_loaded_{false};
  std::optional<StepWatch> watch_;
};

std::unique_ptr<GpuRunner> GpuRunner::Create(const ModelConfig& config, const TensorSource& source,
                                             const GpuRunnerOptions& options, std::string& error) {
  try {
    auto impl = std::make_unique<Impl>(options);
    if (!impl->Start(config, source, error)) return nullptr;
    return std::unique_ptr<GpuRunner>(new GpuRunner(std::move(impl)));
  } catch (const std::exception& exception) {
    error = "the " + std::to_string(options.gpus.size()) +
            " ranks could not be started: " + exception.what();
    return nullptr;
  }
}

GpuRunner::GpuRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GpuRunner::~GpuRunner() = default;

const RunnerInfo& GpuRunner::info() const { return impl_->info(); }
RunStatus GpuRunner::Run(const StepPlan& plan, StepResult& result) {
  const RunStatus started = impl_->Start(plan);
  return started == RunStatus::kOk ? impl_->Finish(result) : started;
}
RunStatus GpuRunner::Start(const StepPlan& plan) { return impl_->Start(plan); }
RunStatus GpuRunner::Finish(StepResult& result) { return impl_->Finish(result); }
std::string GpuRunner::error() const { return impl_->error(); }
void GpuRunner::Abort() { impl_->Abort(); }
void GpuRunner::OnFailure(std::function<void()> failed) { impl_->OnFailure(std::move(failed)); }
std::string GpuRunner::Follow() { return impl_->Follow(); }
const std::string& GpuRunner::notes() const { return impl_->notes(); }
const AllReduceTable& GpuRunner::sums() const { return impl_->sums(); }
double GpuRunner::busy_seconds() const { return impl_->busy_seconds(); }
std::span<const float> GpuRunner::kept_logits(int32_t index) const {
  return impl_->kept_logits(index);
}

}  // namespace penstock::engine
