// One message exchange on an HTTP/2 connection: what the codec keeps of it while its
// stream lives, reused from message to message.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/arena.h"
#include "proxy/http/codec.h"
#include "proxy/http/h2_head.h"

namespace penstock {

// Bytes that wait for the peer's window: appended at one end, taken at the other.
class UnsentBytes {
 public:
  void Append(std::string_view data) { bytes_.append(data); }
  std::string_view view() const { return std::string_view(bytes_).substr(taken_); }
  size_t size() const { return bytes_.size() - taken_; }
  void Take(size_t count);
  void Clear();

 private:
  std::string bytes_;
  size_t taken_ = 0;
};

struct H2Message {
  // What was asked of the writing side.
  enum class Writing : uint8_t {
    kNothing,   // No head of ours yet.
    kBody,      // Head written, body under way.
    kEnded,     // Nothing more comes from the owner; bytes may wait.
    kSent,      // The end is on its way to the peer.
  };
  static constexpr size_t kChunk = 2048;
  static constexpr size_t kArenaMax = 256 * 1024;

  // As new, for another message; memory that is worth it stays.
  void Reset();
  bool ended() const { return writing == Writing::kEnded; }

  Arena arena{kChunk, kArenaMax};
  MessageId id = 0;
  H2FieldCount count;
  RequestHead request;
  ProtocolError refusal;
  std::span<Header> trailers;          // The peer's.
  std::span<Header> trailers_to_send;
  UnsentBytes unsent;
  uint64_t left = 0;                   // Framing::kLength: bytes still to write.
  size_t lost = 0;                     // Of its body: unsent when the peer reset it.
  size_t unconsumed = 0;               // Bytes told whose window was not given back.
  uint32_t error_code = 0;             // Of its reset.
  Writing writing = Writing::kNothing;
  Framing framing = Framing::kNone;    // Of what we write.
  uint8_t interim_count = 0;
  bool head_read = false;              // The peer's (final) head was read.
  bool read_over = false;              // The peer's end was read.
  bool told = false;                   // The owner knows of it.
  bool over = false;                   // Nothing more is noted of it.
  bool quiet = false;                  // And what was noted is not told: its owner gave it up.
  bool refused = false;                // Its body is thrown away.
  bool closed = false;                 // Its stream is no more.
  bool reset_ours = false;             // Its reset is not the peer's fault.
  bool paused = false;
  bool to_head = false;                // The request is a HEAD.
  bool above_mark = false;             // unsent was above kUnsentMark and has not fallen to half.
};

}  // namespace penstock
