#include "backend-engine/parallel/frames.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace penstock::engine {
namespace {

constexpr uint64_t kMagic = 0x325652544e45500a;  // Counts versions of the messages, too.
constexpr int kTickMs = 100;

FrameSocket NewSocket(const InetAddress& address) {
  FrameSocket made(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (made.open()) setsockopt(made.file(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return made;
}

}  // namespace

FrameSocket::FrameSocket(FrameSocket&& other) noexcept
    : file_(std::exchange(other.file_, -1)), head_(other.head_), got_(other.got_), cut_(other.cut_) {}

FrameSocket& FrameSocket::operator=(FrameSocket&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(head_, other.head_);
  std::swap(got_, other.got_);
  std::swap(cut_, other.cut_);
  return *this;
}

FrameSocket::~FrameSocket() {
  if (file_ >= 0) close(file_);
}

FrameSocket FrameSocket::ListenAt(const InetAddress& address, int waiting) {
  FrameSocket door = NewSocket(address);
  const int on = 1;
  setsockopt(door.file(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (door.open() && bind(door.file(), address.get(), address.size) == 0 &&
      listen(door.file(), waiting) == 0) {
    return door;
  }
  const int failed = errno;
  door = FrameSocket();
  errno = failed;
  return door;
}

FrameSocket FrameSocket::Dial(const InetAddress& address, int milliseconds) {
  FrameSocket made = NewSocket(address);
  if (!made.open()) return made;
  int failed = connect(made.file(), address.get(), address.size) == 0 ? 0 : errno;
  if (failed == EINPROGRESS) {
    pollfd polled{made.file(), POLLOUT, 0};
    socklen_t size = sizeof failed;
    failed = ETIMEDOUT;
    if (poll(&polled, 1, milliseconds) == 1) {
      getsockopt(made.file(), SOL_SOCKET, SO_ERROR, &failed, &size);
    }
  }
  if (failed != 0) made = FrameSocket();
  errno = failed;
  return made;
}

FrameSocket FrameSocket::Accept(InetAddress* from) const {
  InetAddress address;
  FrameSocket come(accept4(file_, address.get(), &address.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const int on = 1;
  if (come.open()) setsockopt(come.file(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (from != nullptr) *from = address;
  return come;
}

FrameSocket::Read FrameSocket::Take(size_t bytes_max, uint32_t& word,
                                    std::vector<std::byte>& bytes) {
  while (true) {
    if (got_ >= sizeof head_.magic && head_.magic != kMagic) return Read::kForeign;
    if (got_ == sizeof head_) {
      if (head_.bytes > bytes_max) return Read::kTooLarge;
      bytes.resize(head_.bytes);
    }
    if (got_ == sizeof head_ + head_.bytes && got_ >= sizeof head_) break;
    const bool in_head = got_ < sizeof head_;
    std::byte* to = in_head ? reinterpret_cast<std::byte*>(&head_) + got_
                            : bytes.data() + (got_ - sizeof head_);
    const size_t wanted = (in_head ? sizeof head_ : sizeof head_ + head_.bytes) - got_;
    const ssize_t count = recv(file_, to, wanted, 0);
    if (count == 0) return Read::kEnded;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Read::kNothing : Read::kEnded;
    got_ += static_cast<size_t>(count);
  }
  word = head_.word;
  got_ = 0;
  return Read::kWhole;
}

bool FrameSocket::Send(uint32_t word, std::span<const std::byte> bytes,
                       const std::function<bool()>& give_up) {
  const Head head{kMagic, word, static_cast<uint32_t>(bytes.size())};
  return SendAll(&head, sizeof head, bytes.empty() ? 0 : MSG_MORE, give_up) &&
         SendAll(bytes.data(), bytes.size(), 0, give_up);
}

bool FrameSocket::SendAll(const void* from, size_t bytes, int flags,
                          const std::function<bool()>& give_up) {
  const auto* next = static_cast<const std::byte*>(from);
  while (bytes > 0 && !cut_) {
    const ssize_t sent = send(file_, next, bytes, MSG_NOSIGNAL | flags);
    if (sent > 0) {
      next += sent;
      bytes -= static_cast<size_t>(sent);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN || give_up()) {
      cut_ = true;
      break;
    }
    pollfd polled{file_, POLLOUT, 0};
    (void)poll(&polled, 1, kTickMs);
  }
  return !cut_;
}

void FrameSocket::Wait(int milliseconds) const {
  pollfd polled{file_, POLLIN, 0};
  (void)poll(&polled, 1, milliseconds);
}

bool FrameSocket::HasRoom() const {
  pollfd polled{file_, POLLOUT, 0};
  return poll(&polled, 1, 0) == 1 && (polled.revents & POLLOUT) != 0;
}

void FrameSocket::EndPlainly(const std::string& text) const {
  (void)send(file_, text.data(), text.size(), MSG_NOSIGNAL);
  shutdown(file_, SHUT_WR);
  // A socket that is closed with bytes unread resets, and the last word is lost.
  char unread[4096];
  for (int i = 0; i < 16 && recv(file_, unread, sizeof unread, 0) > 0; ++i) {
  }
}

}  // namespace penstock::engine
