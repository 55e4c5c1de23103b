// How fast a request's body must come: so many bytes a second on average, after a grace
// for a slow start. A pause between two reads is another limit's business; this one is
// for a client that always sends a little.
//
// Threads: one exchange's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "proxy/base/time.h"

namespace penstock {

class BodyPace {
 public:
  // `rate`: bytes a second; 0: any.
  void Begin(MonoTime now, MonoTime grace, uint64_t rate) {
    due_ = rate == 0 ? kNever : now + grace;
    rate_ = rate;
    carry_ = 0;
    held_since_ = kNever;
  }
  void Got(size_t bytes) {
    if (due_ == kNever) return;
    const uint64_t earned = bytes * static_cast<uint64_t>(kSecond) + carry_;
    due_ += static_cast<MonoTime>(earned / rate_);
    carry_ = earned % rate_;
  }
  // Time in which we do not read is not the client's.
  void Hold(MonoTime now) {
    if (held_since_ == kNever) held_since_ = now;
  }
  void GoOn(MonoTime now) {
    if (held_since_ != kNever && due_ != kNever) due_ += now - held_since_;
    held_since_ = kNever;
  }
  bool held() const { return held_since_ != kNever; }
  void End() { due_ = kNever; }

  // When the body is too slow, unless more of it comes; kNever: not as things are.
  MonoTime due() const { return held_since_ == kNever ? due_ : kNever; }

 private:
  uint64_t rate_ = 0;
  uint64_t carry_ = 0;         // Of a byte's worth of time.
  MonoTime due_ = kNever;
  MonoTime held_since_ = kNever;
};

}  // namespace penstock
