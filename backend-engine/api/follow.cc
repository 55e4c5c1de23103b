#include "backend-engine/api/follow.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "backend-engine/api/open_model.h"
#include "backend-engine/api/progress_line.h"
#include "backend-engine/api/terminal.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/net/loop.h"

namespace penstock::engine {
namespace {

constexpr MonoTime kProgressTick = 200 * kMillisecond;

class Follower {
 public:
  Follower(const ServeOptions& options, std::unique_ptr<Loop> loop)
      : options_(options),
        loop_(std::move(loop)),
        progress_("loading " + NameOfFolder(options.model), isatty(STDERR_FILENO) != 0) {}
  ~Follower() {
    if (thread_.joinable()) thread_.join();
  }

  int Run() {
    const auto terminate = loop_->OnSignal(SIGTERM, [this] { OnStopSignal(); });
    const auto interrupt = loop_->OnSignal(SIGINT, [this] { OnStopSignal(); });
    ShowProgress();
    thread_ = std::thread([this, now = loop_->wall_now()] { LoadAndFollow(now); });
    loop_->Run();
    return exit_status_;
  }

 private:
  // On a thread beside the loop.
  void LoadAndFollow(absl::Time now) {
    auto opened = OpenModel(options_, now, [this](double share) { loaded_.store(share); });
    if (!opened.ok()) {
      loop_->Post([this, why = std::string(S(opened.status().message()))] { OnEnd(why); });
      return;
    }
    runner_ = std::move(opened->runner);
    loop_->Post([this, note = opened->device_note, notes = opened->start_notes] {
      OnLoaded(note, notes);
    });
    loop_->Post([this, why = runner_->Follow()] { OnEnd(why); });
  }

  void OnLoaded(const std::string& note, const std::string& notes) {
    loading_ = false;
    progress_timer_.Cancel();
    Print(stderr, progress_.End());
    LogInfo("{}: {}, {} KV blocks", NameOfFolder(options_.model), note, runner_->info().block_count);
    LogLines(notes);
    const int32_t first = options_.node_rank * options_.ranks_here();
    Print(stdout, fmt::format("ready: ranks {} to {} of {}, for process 0 at {}\n", first,
                              first + options_.ranks_here() - 1, options_.tensor_parallel,
                              options_.dist_init_addr));
  }

  void OnEnd(const std::string& why) {
    progress_timer_.Cancel();
    Print(stderr, progress_.End());
    if (!stopping_) {
      PrintError(why);
      exit_status_ = 1;
    }
    loop_->Stop();
  }

  void ShowProgress() {
    Print(stderr, progress_.At(loaded_.load(), loop_->now()));
    progress_timer_ = loop_->timers().After(kProgressTick, [this] { ShowProgress(); });
  }

  void OnStopSignal() {
    if (loading_ || stopping_) {
      Print(stderr, progress_.End());
      LogInfo("stopping at once");
      std::_Exit(0);
    }
    // Where all are stopped together, answers in progress still need these ranks.
    stopping_ = true;
    LogInfo("stopping when process 0 has, or in {} s", options_.drain_seconds);
    stop_timer_ = loop_->timers().After(options_.drain_seconds * kSecond,
                                        [this] { runner_->Abort(); });
  }

  const ServeOptions& options_;
  const std::unique_ptr<Loop> loop_;
  std::unique_ptr<Runner> runner_;  // The thread's until it is loaded.
  ProgressLine progress_;
  TimerQueue::Timer progress_timer_;
  TimerQueue::Timer stop_timer_;
  std::atomic<double> loaded_{0};
  std::thread thread_;
  bool loading_ = true;
  bool stopping_ = false;
  int exit_status_ = 0;
};

}  // namespace

int Follow(const ServeOptions& options) { return Follower(options, Loop::Create()).Run(); }

}  // namespace penstock::engine
