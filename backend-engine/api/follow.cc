#include "backend-engine/api/follow.h"

#include <fmt/format.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "backend-engine/api/loading_shown.h"
#include "backend-engine/api/open_model.h"
#include "backend-engine/api/terminal.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/net/loop.h"

namespace penstock::engine {
namespace {

class Follower {
 public:
  Follower(const ServeOptions& options, std::unique_ptr<Loop> loop)
      : options_(options),
        loop_(std::move(loop)),
        loading_shown_(loop_->timers(), options.model) {}
  ~Follower() {
    if (thread_.joinable()) thread_.join();
  }

  int Run() {
    auto terminate = loop_->OnSignal(SIGTERM, [this] { OnStopSignal(); });
    auto interrupt = loop_->OnSignal(SIGINT, [this] { OnStopSignal(); });
    loading_shown_.Begin();
    thread_ = std::thread([this, now = loop_->wall_now()] { LoadAndFollow(now); });
    loop_->Run();
    Loop::IgnoreFromNowOn(std::array{SIGTERM, SIGINT});
    return exit_status_;
  }

 private:
  // On a thread beside the loop.
  void LoadAndFollow(absl::Time now) {
    auto opened = OpenModel(options_, now, [this](double share) { loading_shown_.Set(share); });
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
    loading_shown_.End();
    LogInfo("{}: {}, {} KV blocks", NameOfFolder(options_.model), note, runner_->info().block_count);
    LogLines(notes);
    const int32_t first = options_.node_rank * options_.ranks_here();
    Print(stdout, fmt::format("ready: ranks {} to {} of {}, for process 0 at {}\n", first,
                              first + options_.ranks_here() - 1, options_.tensor_parallel,
                              options_.dist_init_addr));
  }

  void OnEnd(const std::string& why) {
    loading_shown_.End();
    if (!stopping_) {
      PrintError(why);
      exit_status_ = 1;
    }
    loop_->Stop();
  }

  void OnStopSignal() {
    if (loading_ || stopping_) {
      loading_shown_.End();
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
  LoadingShown loading_shown_;
  TimerQueue::Timer stop_timer_;
  std::thread thread_;
  bool loading_ = true;
  bool stopping_ = false;
  int exit_status_ = 0;
};

}  // namespace

int Follow(const ServeOptions& options) { return Follower(options, Loop::Create()).Run(); }

}  // namespace penstock::engine
