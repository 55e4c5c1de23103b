#include "proxy/net/uv_stream.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {
constexpr size_t kBuffersMax = 64;   // Pieces of one write call.
constexpr unsigned kSendMax = 4;     // Blocks of one uv_write: more would make it allocate.

// The shared_ptr that libuv held, released once the handle is closed.
void OnClosed(uv_handle_t* handle) {
  const std::shared_ptr<Tcp> last = std::move(static_cast<Tcp*>(handle->data)->self);
}

// libuv calls it an orderly end when a reset comes together with the last
// bytes; the socket still knows better.
ssize_t PendingError(const uv_tcp_t& handle) {
  uv_os_fd_t fd;
  int error = 0;
  socklen_t length = sizeof(error);
  if (uv_fileno(reinterpret_cast<const uv_handle_t*>(&handle), &fd) != 0) return 0;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return 0;
  return -error;
}
}  // namespace

std::shared_ptr<Tcp> Tcp::Open(UvLoop& loop) {
  auto tcp = std::make_shared<Tcp>(loop);
  CHECK(uv_tcp_init(loop.uv(), &tcp->handle) == 0);
  tcp->handle.data = tcp->write.data = tcp->connect.data = tcp.get();
  uv_tcp_nodelay(&tcp->handle, 1);   // Remembered until there is a socket.
  tcp->self = tcp;
  return tcp;
}

void Tcp::Close() {
  auto* const base = reinterpret_cast<uv_handle_t*>(&handle);
  if (!uv_is_closing(base)) uv_close(base, OnClosed);
}

void Tcp::CloseReset() {
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&handle))) return;
  if (uv_tcp_close_reset(&handle, OnClosed) != 0) Close();
}

UvStream::UvStream(std::shared_ptr<Tcp> tcp, std::string peer)
    : tcp_(std::move(tcp)), peer_(std::move(peer)) {
  tcp_->owner = this;
}

UvStream::~UvStream() {
  tcp_->owner = nullptr;
  tcp_->Close();
}

void UvStream::Resume() {
  paused_ = false;
  if (reading_ || ended_) return;
  reading_ = uv_read_start(tcp_->stream(), OnAlloc, OnRead) == 0;
  if (!reading_) Fail(UV_ENOTCONN, "read");
}

void UvStream::OnAlloc(uv_handle_t* handle, size_t, uv_buf_t* buffer) {
  Tcp& tcp = *static_cast<Tcp*>(handle->data);
  // No buffer: libuv does not read and says UV_ENOBUFS.
  const bool wanted = tcp.owner != nullptr && !tcp.owner->paused_;
  *buffer = wanted ? tcp.loop.read_buffer() : uv_buf_init(nullptr, 0);
}

void UvStream::OnRead(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer) {
  Tcp& tcp = *static_cast<Tcp*>(stream->data);
  UvStream* const self = tcp.owner;
  if (self == nullptr || self->ended_) return;
  tcp.loop.Enter();
  if (count > 0) {
    if (self->receiver_ != nullptr) {
      self->receiver_->OnData({buffer->base, static_cast<size_t>(count)});
    }
    return;
  }
  if (count == 0) return;   // EAGAIN.
  uv_read_stop(stream);
  self->reading_ = false;
  if (count == UV_ENOBUFS) return;
  if (count == UV_EOF) {
    count = PendingError(tcp.handle);
    if (count == 0) return self->End(absl::OkStatus());
  }
  self->broken_ = true;
  self->End(absl::UnavailableError(
      A(fmt::format("{}: read: {}", self->peer_, uv_strerror(static_cast<int>(count))))));
}

void UvStream::Write(std::span<const std::string_view> pieces) {
  if (broken_ || shutdown_) return;
  const size_t taken = tcp_->queue.empty() ? TryWrite(pieces) : 0;
  if (broken_) return;
  Enqueue(pieces, taken);
  if (!tcp_->queue.empty() && sending_ == 0) Send();
}

size_t UvStream::TryWrite(std::span<const std::string_view> pieces) {
  size_t taken = 0;
  while (!pieces.empty()) {
    uv_buf_t buffers[kBuffersMax];
    unsigned count = 0;
    size_t offered = 0;
    size_t used = 0;
    for (; used < pieces.size() && count < kBuffersMax; ++used) {
      const std::string_view piece = pieces[used];
      if (piece.empty()) continue;
      offered += piece.size();
      buffers[count++] =
          uv_buf_init(const_cast<char*>(piece.data()), static_cast<unsigned>(piece.size()));
    }
    if (count == 0) return taken;
    const int result = uv_try_write(tcp_->stream(), buffers, count);
    if (result == UV_EAGAIN) return taken;
    if (result < 0) {
      Fail(result, "write");
      return taken;
    }
    taken += static_cast<size_t>(result);
    if (static_cast<size_t>(result) < offered) return taken;
    pieces = pieces.subspan(used);
  }
  return taken;
}

void UvStream::Enqueue(std::span<const std::string_view> pieces, size_t skip) {
  for (std::string_view piece : pieces) {
    const size_t gone = std::min(skip, piece.size());
    skip -= gone;
    piece.remove_prefix(gone);
    buffered_ += piece.size();
    while (!piece.empty()) {
      // The blocks under way must not move, so only a last block behind them grows.
      const bool fits =
          tcp_->queue.size() > sending_ && tcp_->queue.back().size() < kBlock;
      if (!fits) tcp_->queue.emplace_back();
      std::string& block = tcp_->queue.back();
      const size_t part = std::min(piece.size(), kBlock - block.size());
      block.append(piece.substr(0, part));
      piece.remove_prefix(part);
    }
  }
  if (above_mark()) was_above_mark_ = true;
  if (buffered_ > kBufferedMax) Fail(UV_ENOBUFS, "write");
}

void UvStream::Send() {
  uv_buf_t buffers[kSendMax];
  unsigned count = 0;
  for (std::string& block : tcp_->queue) {
    if (count == kSendMax) break;
    buffers[count++] = uv_buf_init(block.data(), static_cast<unsigned>(block.size()));
  }
  const int result = uv_write(&tcp_->write, tcp_->stream(), buffers, count, OnWritten);
  if (result != 0) return Fail(result, "write");
  sending_ = count;
}

void UvStream::OnWritten(uv_write_t* request, int status) {
  Tcp& tcp = *static_cast<Tcp*>(request->data);
  UvStream* const self = tcp.owner;
  if (self == nullptr || self->broken_) return;
  tcp.loop.Enter();
  if (status != 0) return self->Fail(status, "write");
  for (; self->sending_ > 0; --self->sending_) {
    self->buffered_ -= tcp.queue.front().size();
    tcp.queue.pop_front();
  }
  if (!tcp.queue.empty()) {
    self->Send();
  } else if (self->shutdown_) {
    self->shutdown_ = false;
    self->Shutdown();
  }
  if (self->was_above_mark_ && self->buffered_ <= kHighMark / 2) {
    self->was_above_mark_ = false;
    if (self->receiver_ != nullptr && !self->ended_) self->receiver_->OnWritable();
  }
}

// Nothing is buffered in libuv here, so the socket is shut down directly:
// uv_shutdown would wait for a turn and an epoll_ctl of its own.
void UvStream::Shutdown() {
  if (shutdown_ || broken_) return;
  shutdown_ = true;
  uv_os_fd_t fd;
  if (buffered_ > 0 || uv_fileno(reinterpret_cast<uv_handle_t*>(&tcp_->handle), &fd) != 0) return;
  ::shutdown(fd, SHUT_WR);
}

void UvStream::Reset() {
  ended_ = true;
  broken_ = true;
  buffered_ = 0;
  tcp_->CloseReset();
}

// A failed write: told at the end of this turn, never inside Write().
void UvStream::Fail(int error, std::string_view what) {
  if (broken_) return;
  broken_ = true;
  buffered_ = 0;
  tcp_->loop.Defer([tcp = tcp_, error, what] {
    UvStream* const self = tcp->owner;
    if (self == nullptr || self->ended_) return;
    if (self->reading_) uv_read_stop(tcp->stream());
    self->reading_ = false;
    self->End(absl::UnavailableError(
        A(fmt::format("{}: {}: {}", self->peer_, what, uv_strerror(error)))));
  });
}

void UvStream::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  if (receiver_ != nullptr) receiver_->OnStreamEnd(status);
}

}  // namespace penstock
