// Counts what one HTTP/2 peer makes us do and says when it is too much: the limits
// of H2Limits, each with a word of its own. It looks at frame heads alone, and never
// at a clock.
#pragma once

#include <cstdint>
#include <string_view>

#include "proxy/base/time.h"
#include "proxy/http/codec_limits.h"
#include "proxy/http/h2_frames.h"

namespace penstock {

// `burst` at once, then `per_second`.
class RateBudget {
 public:
  RateBudget(uint32_t burst, uint32_t per_second)
      : full_(burst * kSecond), left_(full_), per_second_(per_second) {}

  void SetNow(MonoTime now);
  bool Spend();   // False: nothing is left.
  bool low() const { return left_ <= full_ / 4; }

 private:
  const int64_t full_;        // In millionths, so that microseconds add up.
  int64_t left_;
  const int64_t per_second_;
  MonoTime now_ = 0;
  bool told_ = false;
};

class H2Flood {
 public:
  // `peer_opens`: the peer's HEADERS open streams (it is a client).
  H2Flood(const H2Limits& limits, bool peer_opens);

  void SetNow(MonoTime now);

  // Each returns the word of the limit that was just exceeded, or "".
  std::string_view OnFrame(const H2FrameHead& head);   // One that the peer began.
  std::string_view OnResetSent();                      // Because of what the peer sent.
  std::string_view OnGlitch();
  std::string_view OnFrameWritten(bool data);
  void OnStreamOpened() { ++streams_; }                // By us.
  // All that was due has been written; `taken`: and what was written before, taken.
  void OnWritten() { due_ = 0; }
  void OnTaken() { outbound_ = 0; }
  // Three quarters of a budget that fills up again are used. The other limits leave no
  // such time: whoever reaches them does it within a moment, or a frame.
  bool low() const { return resets_.low() || glitches_.low(); }

 private:
  std::string_view OnDue();
  std::string_view OnEmpty(const H2FrameHead& head);

  const H2Limits limits_;
  const bool peer_opens_;
  RateBudget resets_;
  RateBudget glitches_;
  uint32_t last_stream_ = 0;
  uint64_t streams_ = 0;            // Opened so far.
  uint64_t priorities_ = 0;
  uint64_t window_updates_ = 0;
  uint64_t data_sent_ = 0;
  uint32_t continuations_ = 0;      // Of this header block.
  uint32_t empty_ = 0;              // In a row.
  uint32_t due_ = 0;
  uint32_t outbound_ = 0;
};

}  // namespace penstock
