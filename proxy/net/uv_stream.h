// A TCP connection as a Stream.
//
// The socket's Tcp outlives its UvStream until libuv has let go of it; callbacks find out
// through Tcp::owner() whether anybody still listens.
//
// The usual path is one recv() or one send() a callback and no epoll_ctl: Pause() only
// sets a flag, and reading is really stopped when bytes arrive while it is set; Write()
// tries the kernel at once and allocates only for what the kernel does not take. An idle
// connection owns no buffer.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "proxy/net/stream.h"
#include "proxy/net/tcp.h"

namespace penstock {

class UvStream final : public Stream {
 public:
  static constexpr size_t kHighMark = 256 * 1024;
  static constexpr size_t kBlock = 64 * 1024;         // Of the queue.
  static constexpr size_t kBufferedMax = 64 << 20;    // Above: a producer ignores the mark; cut.

  UvStream(std::shared_ptr<Tcp> tcp, std::string peer);
  ~UvStream() override;

  void SetReceiver(StreamReceiver* receiver) override { receiver_ = receiver; }
  void Resume() override;
  void Pause() override { paused_ = true; }
  using Stream::Write;
  void Write(std::span<const std::string_view> pieces) override;
  size_t buffered() const override { return buffered_; }
  size_t high_mark() const override { return kHighMark; }
  void Shutdown() override;
  void Reset() override;
  std::string_view peer() const override { return peer_; }

 private:
  static void OnEvents(void* self, int events);
  void Read();
  void EndOfReading(int error);

  // How much the kernel took at once; what it did not take is for Enqueue.
  size_t TryWrite(std::span<const std::string_view> pieces);
  void Enqueue(std::span<const std::string_view> pieces, size_t skip);
  void Flush();
  void Sent(size_t count);
  void WatchWhatMatters();
  void Fail(int error, std::string_view what);
  void End(const absl::Status& status);

  std::shared_ptr<Tcp> tcp_;
  StreamReceiver* receiver_ = nullptr;
  std::list<std::string> queue_;   // What the kernel has not taken, ...
  size_t front_sent_ = 0;          // ... but for so much of the front.
  size_t buffered_ = 0;
  bool paused_ = true;
  bool reading_ = false;           // Watched for bytes to read.
  bool was_above_mark_ = false;
  bool shutdown_ = false;          // Asked for; done once nothing is buffered.
  bool ended_ = false;             // OnStreamEnd was told, or Reset: nothing more is told.
  bool broken_ = false;            // Nothing more is written.
  std::string peer_;
};

}  // namespace penstock
