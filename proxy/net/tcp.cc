#include "proxy/net/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "proxy/base/check.h"

namespace penstock {
namespace {

// The C library's recv() and send() are points where threads may be cancelled: in a
// process of several threads, two atomic exchanges around each call. ThreadSanitizer
// wants to see them.
#if defined(__SANITIZE_THREAD__)
ssize_t Recv(int fd, void* to, size_t size) { return ::recv(fd, to, size, 0); }
ssize_t SendOne(int fd, const void* from, size_t size) { return ::send(fd, from, size, MSG_NOSIGNAL); }
#else
ssize_t Recv(int fd, void* to, size_t size) {
  return syscall(SYS_recvfrom, fd, to, size, 0, nullptr, nullptr);
}
ssize_t SendOne(int fd, const void* from, size_t size) {
  return syscall(SYS_sendto, fd, from, size, MSG_NOSIGNAL, nullptr, 0);
}
#endif

}  // namespace

std::shared_ptr<Tcp> Tcp::Open(UvLoop& loop, int fd) {
  auto tcp = std::make_shared<Tcp>(loop, fd);
  if (const int result = uv_poll_init(loop.uv(), &tcp->handle_, fd); result != 0) {
    close(fd);
    errno = -result;
    return nullptr;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  tcp->handle_.data = tcp.get();
  tcp->self_ = tcp;
  return tcp;
}

void Tcp::SetOwner(void* owner, OnEvents on_events) {
  owner_ = owner;
  on_events_ = on_events;
}

void Tcp::Watch(int events) {
  if (events == watched_ || fd_ < 0) return;
  watched_ = events;
  if (events == 0) {
    uv_poll_stop(&handle_);
  } else {
    CHECK(uv_poll_start(&handle_, events, OnPoll) == 0);
  }
}

void Tcp::OnPoll(uv_poll_t* handle, int status, int events) {
  Tcp& tcp = *static_cast<Tcp*>(handle->data);
  if (status != 0) events = std::exchange(tcp.watched_, 0);
  if (tcp.owner_ == nullptr) return;
  tcp.loop_.Enter();
  tcp.on_events_(tcp.owner_, events);
}

ssize_t Tcp::Receive(char* buffer, size_t size) {
  ssize_t count = 0;
  do {
    count = Recv(fd_, buffer, size);
  } while (count < 0 && errno == EINTR);
  return count;
}

ssize_t Tcp::Send(std::span<const iovec> pieces) {
  ssize_t count = 0;
  do {
    if (pieces.size() == 1) {
      count = SendOne(fd_, pieces[0].iov_base, pieces[0].iov_len);
      continue;
    }
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    count = sendmsg(fd_, &message, MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  return count;
}

int Tcp::TakeError() {
  int error = 0;
  socklen_t length = sizeof(error);
  return getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

void Tcp::EndWriting() { shutdown(fd_, SHUT_WR); }

void Tcp::Close(bool resetting) {
  if (fd_ < 0) return;
  owner_ = nullptr;
  if (resetting) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_), [](uv_handle_t* handle) {
    const std::shared_ptr<Tcp> last = std::move(static_cast<Tcp*>(handle->data)->self_);
  });
  close(std::exchange(fd_, -1));
}

}  // namespace penstock
