// A connection that is over still reads for a while, so that the client gets our last
// bytes before the kernel answers its late ones with a reset. A slow client may still
// take the rest of its answer; one that takes nothing for as long as an idle
// connection may last does not hold it for ever.
#pragma once

#include <utility>

#include "proxy/base/time.h"
#include "proxy/net/stream.h"

namespace penstock {

class Linger {
 public:
  static constexpr MonoTime kTime = 2 * kSecond;

  // `time`: how long, once all is sent. Returns when to look again.
  MonoTime Begin(const Stream& stream, MonoTime now, MonoTime time = kTime) {
    time_ = time;
    unsent_ = stream.buffered();
    moved_ = now;
    return now + time_;
  }
  // When to look again; kNever: it is over.
  MonoTime Look(const Stream& stream, MonoTime now, MonoTime idle_time) {
    const size_t unsent = stream.buffered();
    if (std::exchange(unsent_, unsent) != unsent) moved_ = now;
    return now - moved_ >= (unsent == 0 ? time_ : idle_time) ? kNever : now + time_;
  }

 private:
  MonoTime time_ = kTime;
  size_t unsent_ = 0;            // When it was last looked at.
  MonoTime moved_ = 0;           // When the client last took something.
};

}  // namespace penstock
