#include "proxy/net/uv_stream.h"

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr size_t kPiecesMax = 64;    // Of one call.
constexpr int kReadsPerEvent = 32;   // Then it is others' turn.
constexpr int kSendsPerEvent = 4;

iovec PieceOf(std::string_view bytes) { return {const_cast<char*>(bytes.data()), bytes.size()}; }

}  // namespace

UvStream::UvStream(std::shared_ptr<Tcp> tcp, std::string peer)
    : tcp_(std::move(tcp)), peer_(std::move(peer)) {
  tcp_->SetOwner(this, OnEvents);
  tcp_->Watch(0);
}

UvStream::~UvStream() { tcp_->Close(); }

void UvStream::Resume() {
  paused_ = false;
  if (reading_ || ended_) return;
  reading_ = true;
  WatchWhatMatters();
}

void UvStream::WatchWhatMatters() {
  tcp_->Watch((reading_ ? UV_READABLE : 0) | (queue_.empty() || broken_ ? 0 : UV_WRITABLE));
}

// Receivers may destroy the stream inside any call; its Tcp lives on for this turn.
void UvStream::OnEvents(void* owner, int events) {
  auto* const self = static_cast<UvStream*>(owner);
  Tcp& tcp = *self->tcp_;
  if ((events & UV_READABLE) != 0) self->Read();
  if (tcp.owner() != self) return;
  if ((events & UV_WRITABLE) != 0) self->Flush();
  if (tcp.owner() == self && tcp.watched() == 0) self->WatchWhatMatters();  // After an error that was none.
}

void UvStream::Read() {
  Tcp& tcp = *tcp_;
  for (int i = 0; i < kReadsPerEvent && reading_ && !ended_; ++i) {
    if (paused_) {
      reading_ = false;
      return WatchWhatMatters();
    }
    const uv_buf_t buffer = tcp.loop().read_buffer();
    const ssize_t count = tcp.Receive(buffer.base, buffer.len);
    if (count <= 0) {
      if (count == 0 || errno != EAGAIN) EndOfReading(count == 0 ? 0 : errno);
      return;
    }
    const size_t size = static_cast<size_t>(count);
    if (receiver_ != nullptr) receiver_->OnData({buffer.base, size});
    if (tcp.owner() != this || size < buffer.len) return;
  }
}

// A reset that comes together with the last bytes looks like an orderly end; the socket
// still knows better.
void UvStream::EndOfReading(int error) {
  reading_ = false;
  if (error == 0) error = tcp_->TakeError();
  const bool told = std::exchange(broken_, broken_ || error != 0);
  WatchWhatMatters();   // Nothing is written to what is broken: it would always be ready.
  if (told) return;     // Fail() tells why, which the socket has forgotten.
  if (error == 0) return End(absl::OkStatus());
  End(absl::UnavailableError(A(fmt::format("{}: read: {}", peer_, uv_strerror(-error)))));
}

void UvStream::Write(std::span<const std::string_view> pieces) {
  if (broken_ || shutdown_) return;
  const size_t taken = queue_.empty() ? TryWrite(pieces) : 0;
  if (broken_) return;
  Enqueue(pieces, taken);
  if (!queue_.empty()) WatchWhatMatters();
}

size_t UvStream::TryWrite(std::span<const std::string_view> pieces) {
  size_t taken = 0;
  while (!pieces.empty()) {
    std::array<iovec, kPiecesMax> some;
    size_t count = 0;
    size_t offered = 0;
    size_t used = 0;
    for (; used < pieces.size() && count < kPiecesMax; ++used) {
      if (pieces[used].empty()) continue;
      offered += pieces[used].size();
      some[count++] = PieceOf(pieces[used]);
    }
    if (count == 0) return taken;
    const ssize_t result = tcp_->Send({some.data(), count});
    if (result < 0) {
      if (errno != EAGAIN && errno != ENOBUFS) Fail(errno, "write");
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
      if (queue_.empty() || queue_.back().size() >= kBlock) queue_.emplace_back();
      std::string& block = queue_.back();
      const size_t part = std::min(piece.size(), kBlock - block.size());
      block.append(piece.substr(0, part));
      piece.remove_prefix(part);
    }
  }
  if (above_mark()) was_above_mark_ = true;
  if (buffered_ > kBufferedMax) Fail(ENOBUFS, "write");
}

// The last thing in its callback.
void UvStream::Flush() {
  for (int i = 0; i < kSendsPerEvent && !queue_.empty() && !broken_; ++i) {
    std::array<iovec, 4> blocks;
    size_t count = 0;
    for (const std::string& block : queue_) {
      if (count == blocks.size()) break;
      const size_t gone = count == 0 ? front_sent_ : 0;
      blocks[count++] = PieceOf(std::string_view(block).substr(gone));
    }
    const ssize_t result = tcp_->Send({blocks.data(), count});
    if (result >= 0) {
      Sent(static_cast<size_t>(result));
      continue;
    }
    if (errno == EAGAIN || errno == ENOBUFS) break;
    return Fail(errno, "write");
  }
  if (broken_) return;
  if (queue_.empty()) {
    WatchWhatMatters();
    if (std::exchange(shutdown_, false)) Shutdown();
  }
  if (!was_above_mark_ || buffered_ > kHighMark / 2) return;
  was_above_mark_ = false;
  if (receiver_ != nullptr && !ended_) receiver_->OnWritable();
}

void UvStream::Sent(size_t count) {
  buffered_ -= count;
  count += std::exchange(front_sent_, 0);
  while (!queue_.empty() && count >= queue_.front().size()) {
    count -= queue_.front().size();
    queue_.pop_front();
  }
  front_sent_ = count;
}

void UvStream::Shutdown() {
  if (shutdown_ || broken_) return;
  shutdown_ = true;
  if (buffered_ == 0) tcp_->EndWriting();
}

void UvStream::Reset() {
  ended_ = true;
  broken_ = true;
  reading_ = false;
  queue_.clear();
  buffered_ = front_sent_ = 0;
  tcp_->Close(true);
}

// A failed write: told at the end of this turn, never inside Write().
void UvStream::Fail(int error, std::string_view what) {
  if (broken_) return;
  broken_ = true;
  queue_.clear();
  buffered_ = front_sent_ = 0;
  WatchWhatMatters();
  tcp_->loop().Defer([tcp = tcp_, error, what] {
    auto* const self = static_cast<UvStream*>(tcp->owner());
    if (self == nullptr || self->ended_) return;
    self->reading_ = false;
    self->WatchWhatMatters();
    self->End(absl::UnavailableError(
        A(fmt::format("{}: {}: {}", self->peer_, what, uv_strerror(-error)))));
  });
}

void UvStream::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  if (receiver_ != nullptr) receiver_->OnStreamEnd(status);
}

}  // namespace penstock
