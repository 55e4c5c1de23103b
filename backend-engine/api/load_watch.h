// The pushed load stream: every reader of GET /load?watch=1 gets a line on every
// change worth telling, at most one each kLeast and at least one each kMost.
//
// Threads: the loop's, but for Changed().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "backend-engine/api/load_report.h"
#include "proxy/http/server.h"
#include "proxy/net/loop.h"

namespace penstock::engine {

class LoadWatch {
 public:
  static constexpr MonoTime kLeast = 20 * kMillisecond;
  static constexpr MonoTime kMost = 500 * kMillisecond;
  static constexpr size_t kReadersMax = 64;

  // `read` makes a report of this moment; called on the loop.
  LoadWatch(Loop& loop, std::function<LoadReport()> read);

  // Takes a reader in and gives it its first line; false: there are kReadersMax.
  bool Add(std::unique_ptr<HttpAnswer>& answer);

  // Something may have changed. Any thread; never blocks.
  void Changed();

  // A last line, then the streams end; of those that come later too.
  void End();

  size_t readers() const { return readers_.size(); }

 private:
  void Tell();
  void TellSoon();

  Loop& loop_;
  const std::function<LoadReport()> read_;
  std::vector<std::unique_ptr<HttpAnswer>> readers_;
  EngineLoad told_;
  MonoTime told_at_ = -kMost;
  bool ended_ = false;
  bool soon_ = false;                // timer_ is set for a change rather than for kMost.
  TimerQueue::Timer timer_;
  std::atomic<bool> posted_{false};  // A Changed() is on its way to the loop.
};

}  // namespace penstock::engine
