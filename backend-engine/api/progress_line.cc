#include "backend-engine/api/progress_line.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock::engine {

std::string ProgressLine::At(double share, MonoTime now) {
  constexpr int kWidth = 30;
  share = std::clamp(share, 0.0, 1.0);
  if (terminal_) {
    drawn_ = true;
    const int filled = static_cast<int>(share * kWidth);
    return fmt::format("\r{} [{:=<{}}{: <{}}] {:3.0f} %\033[K", what_, "", filled, "",
                       kWidth - filled, share * 100);
  }
  if (last_ < 0) last_ = now;
  if (now - last_ < kEvery) return "";
  last_ = now;
  return fmt::format("{}: {:.0f} %\n", what_, share * 100);
}

}  // namespace penstock::engine
