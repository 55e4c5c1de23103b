// A TCP connection as a Stream.
//
// The libuv handle lives in a Tcp, which outlives its UvStream until libuv has
// closed it; callbacks find out through Tcp::owner whether anybody still listens.
//
// The usual path is one read() or one write() a callback and no epoll_ctl:
// Pause() only sets a flag, and reading is really stopped when bytes arrive
// while it is set; Write() tries the kernel at once and allocates only for what
// the kernel does not take. An idle connection owns no buffer.
#pragma once

#include <uv.h>

#include <deque>
#include <memory>
#include <string>

#include "proxy/net/address.h"
#include "proxy/net/stream.h"
#include "proxy/net/uv_loop.h"

namespace penstock {

class UvStream;

struct Tcp {
  explicit Tcp(UvLoop& its_loop) : loop(its_loop) {}

  uv_tcp_t handle;
  uv_connect_t connect;        // Used once, by the dialer.
  uv_write_t write;            // At most one is under way.
  UvLoop& loop;
  UvStream* owner = nullptr;
  std::shared_ptr<Tcp> self;   // What libuv holds: from Open() until closed.
  std::deque<std::string> queue;   // What the kernel has not taken; the front may be under way.

  static std::shared_ptr<Tcp> Open(UvLoop& loop);
  uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&handle); }
  void Close();                // Asynchronous; once. `self` goes when it is done.
  void CloseReset();
};

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
  static void OnAlloc(uv_handle_t* handle, size_t suggested, uv_buf_t* buffer);
  static void OnRead(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer);
  static void OnWritten(uv_write_t* request, int status);

  // How much the kernel took at once; what it did not take is for Enqueue.
  size_t TryWrite(std::span<const std::string_view> pieces);
  void Enqueue(std::span<const std::string_view> pieces, size_t skip);
  void Send();
  void Fail(int error, std::string_view what);
  void End(const absl::Status& status);

  std::shared_ptr<Tcp> tcp_;
  StreamReceiver* receiver_ = nullptr;
  size_t buffered_ = 0;
  unsigned sending_ = 0;        // Blocks at the front of the queue that tcp_->write holds.
  bool paused_ = true;
  bool reading_ = false;        // uv_read_start is in force.
  bool was_above_mark_ = false;
  bool shutdown_ = false;       // Asked for; done once nothing is buffered.
  bool ended_ = false;          // OnStreamEnd was told, or Reset: nothing more is told.
  bool broken_ = false;         // Nothing more is written.
  std::string peer_;
};

}  // namespace penstock
