#include "proxy/http/h2_flood.h"

#include <algorithm>

namespace penstock {
namespace {

constexpr uint32_t kSettingBytes = 6;
constexpr uint64_t kWindowUpdatesFree = 5;

}  // namespace

void RateBudget::SetNow(MonoTime now) {
  if (told_ && now > now_) {
    const int64_t lacking = full_ - left_;
    // Dividing first: after a long silence the product would not fit.
    const bool refilled = per_second_ > 0 && now - now_ >= lacking / per_second_ + 1;
    left_ = refilled ? full_ : left_ + (now - now_) * per_second_;
  }
  told_ = true;
  now_ = std::max(now, now_);
}

bool RateBudget::Spend() {
  if (left_ < kSecond) return false;
  left_ -= kSecond;
  return true;
}

H2Flood::H2Flood(const H2Limits& limits, bool peer_opens)
    : limits_(limits),
      peer_opens_(peer_opens),
      resets_(limits.reset_burst, limits.resets_per_second),
      glitches_(limits.glitch_burst, limits.glitches_per_second) {}

void H2Flood::SetNow(MonoTime now) {
  resets_.SetNow(now);
  glitches_.SetNow(now);
}

std::string_view H2Flood::OnFrame(const H2FrameHead& head) {
  if (const std::string_view word = OnEmpty(head); !word.empty()) return word;
  const bool answered = (head.flags & H2FrameHead::kAck) == 0;   // SETTINGS and PING.
  switch (head.type) {
    case H2FrameType::kHeaders:
      continuations_ = 0;
      if (peer_opens_ && head.stream > last_stream_) last_stream_ = head.stream, ++streams_;
      return {};
    case H2FrameType::kContinuation:
      return ++continuations_ > limits_.continuations ? "continuations" : std::string_view();
    case H2FrameType::kRstStream:
      return resets_.Spend() ? std::string_view() : "resets";
    case H2FrameType::kPriority:
    case H2FrameType::kPriorityUpdate:
      return ++priorities_ > limits_.priorities_per_stream * (1 + streams_) ? "priorities"
                                                                            : std::string_view();
    case H2FrameType::kWindowUpdate: {
      const uint64_t allowed = kWindowUpdatesFree +
                               2 * (streams_ + limits_.window_updates_per_data * data_sent_);
      return ++window_updates_ > allowed ? "window_updates" : std::string_view();
    }
    case H2FrameType::kSettings:
      if (head.length > limits_.settings_entries * kSettingBytes) return "settings";
      return answered ? OnDue() : OnGlitch();
    case H2FrameType::kPing:
      return answered ? OnDue() : OnGlitch();
    case H2FrameType::kData:
      return {};
    default:
      return OnGlitch();
  }
}

std::string_view H2Flood::OnEmpty(const H2FrameHead& head) {
  const bool carries = head.type == H2FrameType::kData || head.type == H2FrameType::kHeaders ||
                       head.type == H2FrameType::kContinuation;
  if (!carries || head.length > 0 || (head.flags & H2FrameHead::kEndStream) != 0) {
    empty_ = 0;
    return {};
  }
  return ++empty_ > limits_.empty_frames ? "empty_frames" : std::string_view();
}

std::string_view H2Flood::OnDue() {
  if (++due_ > limits_.control_frames) return "control_frames";
  return OnGlitch();
}

std::string_view H2Flood::OnResetSent() {
  return resets_.Spend() ? std::string_view() : "resets";
}

std::string_view H2Flood::OnGlitch() {
  return glitches_.Spend() ? std::string_view() : "glitches";
}

std::string_view H2Flood::OnFrameWritten(bool data) {
  data_sent_ += data;
  return ++outbound_ > limits_.outbound_frames ? "outbound_frames" : std::string_view();
}

}  // namespace penstock
