// Frames over TCP between the processes of a group: a head of a magic number, a
// word and a length, then as many bytes. The magic number tells other programs'
// bytes, and another version's, apart at the first look.
//
// Sockets here never block: Take() gives what has come, Send() waits for room
// until it is told to give up. Threads: one that takes and one that sends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend-engine/parallel/inet_address.h"

namespace penstock::engine {

// The bytes of a trivially copyable value, behind those of `to`.
template <typename T>
void Append(const T& value, std::vector<std::byte>& to) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

class FrameSocket {
 public:
  // kForeign: what came is no frame. kTooLarge: its length is above what was allowed.
  enum class Read { kNothing, kWhole, kEnded, kForeign, kTooLarge };

  explicit FrameSocket(int file = -1) : file_(file) {}  // Owned; closed at the end.
  FrameSocket(FrameSocket&& other) noexcept;
  FrameSocket& operator=(FrameSocket&& other) noexcept;
  ~FrameSocket();

  // Not open, with errno set, where it cannot be.
  static FrameSocket ListenAt(const InetAddress& address, int waiting);
  static FrameSocket Dial(const InetAddress& address, int milliseconds);
  FrameSocket Accept(InetAddress* from = nullptr) const;

  bool open() const { return file_ >= 0; }
  int file() const { return file_; }

  // The next frame, once all of it is here. Memory grows with what has been announced
  // and never beyond `bytes_max`.
  Read Take(size_t bytes_max, uint32_t& word, std::vector<std::byte>& bytes);

  // False: the other end is gone, or `give_up` said true before there was room. Then
  // a frame may have been cut, and nothing more can be sent.
  bool Send(uint32_t word, std::span<const std::byte> bytes, const std::function<bool()>& give_up);
  bool Send(uint32_t word, const std::string& text, const std::function<bool()>& give_up) {
    return Send(word, std::as_bytes(std::span(text)), give_up);
  }
  void Wait(int milliseconds) const;  // Until something comes, or so long.
  bool HasRoom() const;  // For a short frame, at once.

  // A last word to whoever does not speak in frames; it may be lost.
  void EndPlainly(const std::string& text) const;

 private:
  struct Head {
    uint64_t magic;
    uint32_t word, bytes;
  };
  bool SendAll(const void* from, size_t bytes, int flags, const std::function<bool()>& give_up);

  int file_;
  Head head_{};
  size_t got_ = 0;   // Of the head and the bytes after it.
  bool cut_ = false;
};

}  // namespace penstock::engine
