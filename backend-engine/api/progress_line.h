// Shows how far something is: a bar that is drawn over itself on a terminal, a
// line now and then elsewhere.
#pragma once

#include <string>
#include <string_view>

#include "proxy/base/time.h"

namespace penstock::engine {

class ProgressLine {
 public:
  static constexpr MonoTime kEvery = 3 * kSecond;  // Between two lines; a bar is always drawn.

  ProgressLine(std::string what, bool terminal) : what_(std::move(what)), terminal_(terminal) {}

  // What to print for `share` (0 to 1) at `now`; empty: nothing. The first line
  // comes after kEvery: what is done sooner needs none.
  std::string At(double share, MonoTime now);

  // What to print at the end, so that the next line starts at a line's start.
  std::string End() const { return drawn_ ? "\r\033[K" : ""; }

 private:
  std::string what_;
  bool terminal_;
  bool drawn_ = false;
  MonoTime last_ = -1;
};

}  // namespace penstock::engine
