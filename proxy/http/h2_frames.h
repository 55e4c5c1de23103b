// Where frames begin in the bytes of an HTTP/2 connection: only that, so that each
// frame can be judged before its payload is looked at, however the bytes were cut.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

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
  // Bytes of something that is no body are to come: see Codec::inside_head().
  bool inside_head() const;

 private:
  size_t skip_;
  size_t have_ = 0;
  bool whole_ = false;
  bool begun_ = false;        // A head has been whole.
  std::array<uint8_t, H2FrameHead::kSize> bytes_;
  H2FrameHead head_;
};

// In which streams of its own a client may still send: those that it opened and did
// not end. Remembers so many; of older ones it says yes.
class H2OpenToPeer {
 public:
  static constexpr size_t kMax = 256;

  // False: the frame comes after the end of its stream (RFC 9113 5.1).
  bool Take(const H2FrameHead& head);

 private:
  std::vector<uint32_t> open_;   // In order.
  uint32_t last_ = 0;            // Opened.
  uint32_t forgotten_ = 0;       // Nothing is known up to this one.
};

}  // namespace penstock
