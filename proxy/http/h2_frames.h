// Where frames begin in the bytes of an HTTP/2 connection: only that, so that each
// frame can be judged before its payload is looked at, however the bytes were cut.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

// RFC 9113 6 and RFC 9218 7.1.
enum class H2FrameType : uint8_t {
  kData, kHeaders, kPriority, kRstStream, kSettings, kPushPromise, kPing, kGoAway, kWindowUpdate,
  kContinuation, kPriorityUpdate = 0x10,
};

struct H2FrameHead {
  static constexpr size_t kSize = 9;
  static constexpr uint8_t kEndStream = 0x1, kAck = 0x1, kEndHeaders = 0x4;

  uint32_t length = 0;
  H2FrameType type = H2FrameType::kData;
  uint8_t flags = 0;
  uint32_t stream = 0;
};

class H2FrameScan {
 public:
  // `skipped`: bytes of the client's preface in front of the first frame.
  explicit H2FrameScan(size_t skipped) : skip_(skipped) {}

  // Takes bytes up to the end of the next frame head, or all; `whole()`: a head just ended.
  size_t Take(std::string_view bytes);
  bool whole() const { return whole_; }
  const H2FrameHead& head() const { return head_; }   // The last whole one.

 private:
  size_t skip_;
  size_t have_ = 0;
  bool whole_ = false;
  std::array<uint8_t, H2FrameHead::kSize> bytes_;
  H2FrameHead head_;
};

}  // namespace penstock
