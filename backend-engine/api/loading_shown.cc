#include "backend-engine/api/loading_shown.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "backend-engine/api/open_model.h"
#include "backend-engine/api/terminal.h"

namespace penstock::engine {
namespace {

constexpr MonoTime kTick = 200 * kMillisecond;

}  // namespace

LoadingShown::LoadingShown(TimerQueue& timers, const std::string& model,
                           std::function<void(double)> told)
    : timers_(timers), line_("loading " + NameOfFolder(model), isatty(STDERR_FILENO) != 0),
      told_(std::move(told)) {}

void LoadingShown::Show() {
  const double share = share_.load();
  if (told_) told_(share);
  Print(stderr, line_.At(share, timers_.now()));
  timer_ = timers_.After(kTick, [this] { Show(); });
}

void LoadingShown::End() {
  timer_.Cancel();
  Print(stderr, line_.End());
}

}  // namespace penstock::engine
