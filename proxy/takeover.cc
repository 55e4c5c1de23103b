#include "proxy/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_split.h"
#include "proxy/base/status.h"

extern char** environ;

namespace penstock {
namespace {

constexpr char kVariable[] = "PENSTOCK_TAKEOVER_FD";
constexpr size_t kTextMax = 1024;
constexpr int kWaitSeconds = 5;
constexpr std::string_view kOperator = "operator ";

absl::Status Failed(std::string_view what) {
  return absl::FailedPreconditionError(A(fmt::format("{}: {}", what, strerror(errno))));
}

absl::StatusOr<sockaddr_un> PathAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(A(fmt::format(
        "takeover {}: a socket's path has 1 to {} bytes", path, sizeof(address.sun_path) - 1)));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int Socket() { return ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0); }

}  // namespace

TakeoverChannel& TakeoverChannel::operator=(TakeoverChannel&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void TakeoverChannel::Close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

// Bound under another name and renamed: the path always leads to somebody.
absl::StatusOr<TakeoverChannel> TakeoverChannel::Offer(const std::string& path) {
  const std::string fresh = fmt::format("{}.{}", path, getpid());
  const absl::StatusOr<sockaddr_un> address = PathAddress(fresh);
  if (!address.ok()) return address.status();
  TakeoverChannel channel(Socket());
  if (!channel.open()) return Failed("takeover: socket");
  ::unlink(fresh.c_str());
  if (::bind(channel.descriptor_, reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) {
    return Failed("takeover " + path);
  }
  if (::chmod(fresh.c_str(), 0600) != 0 || ::listen(channel.descriptor_, 4) != 0 ||
      ::rename(fresh.c_str(), path.c_str()) != 0) {
    const absl::Status status = Failed("takeover " + path);
    ::unlink(fresh.c_str());
    return status;
  }
  fcntl(channel.descriptor_, F_SETFL, O_NONBLOCK);
  return channel;
}

absl::StatusOr<TakeoverChannel> TakeoverChannel::Ask(const std::string& path) {
  const absl::StatusOr<sockaddr_un> address = PathAddress(path);
  if (!address.ok()) return address.status();
  TakeoverChannel channel(Socket());
  if (!channel.open()) return Failed("takeover: socket");
  if (::connect(channel.descriptor_, reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0) {
    return channel;
  }
  if (errno == ENOENT || errno == ECONNREFUSED) return absl::NotFoundError("nobody offers a takeover");
  return Failed("takeover " + path);
}

absl::StatusOr<std::pair<TakeoverChannel, TakeoverChannel>> TakeoverChannel::Pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Failed("takeover: socketpair");
  }
  return std::pair(TakeoverChannel(ends[0]), TakeoverChannel(ends[1]));
}

TakeoverChannel TakeoverChannel::Accept() {
  TakeoverChannel channel(::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC));
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (channel.open() &&
      (getsockopt(channel.descriptor_, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
       (peer.uid != geteuid() && peer.uid != 0))) {
    channel.Close();
  }
  return channel;
}

pid_t TakeoverChannel::peer() const {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return getsockopt(descriptor_, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

bool TakeoverChannel::Send(std::string_view text, const std::vector<ListeningSocket>& sockets) {
  if (sockets.size() > kSocketsMax || text.size() > kTextMax) return false;
  iovec data{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kSocketsMax * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!sockets.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sockets.size() * sizeof(int));
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sockets.size() * sizeof(int));
    for (size_t i = 0; i < sockets.size(); ++i) {
      const int descriptor = sockets[i].descriptor();
      std::memcpy(CMSG_DATA(header) + i * sizeof(int), &descriptor, sizeof(int));
    }
  }
  return ::sendmsg(descriptor_, &message, MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

absl::StatusOr<TakeoverChannel::Message> TakeoverChannel::Receive(bool wait) {
  const timeval patience{wait ? kWaitSeconds : 0, 0};
  setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  char text[kTextMax];
  iovec data{text, sizeof(text)};
  alignas(cmsghdr) char control[CMSG_SPACE(kSocketsMax * sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t size = ::recvmsg(descriptor_, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    return absl::UnavailableError("takeover: the other process says nothing");
  }
  Message out;
  if (size <= 0) return out;
  out.text.assign(text, static_cast<size_t>(size));
  explicit_bzero(text, sizeof(text));   // It may have been a secret.
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      absl::StatusOr<ListeningSocket> socket = ListeningSocket::Take(descriptor);
      if (socket.ok()) out.sockets.push_back(*std::move(socket));
    }
  }
  return out;
}

void Wipe(std::string& secret) {
  explicit_bzero(secret.data(), secret.size());
  secret.clear();
}

std::string ToMessage(const OperatorWord& word) {
  return fmt::format("{}{}\n{}\n{}", kOperator, word.word, word.pool, word.backend);
}

absl::StatusOr<Taken> TakeAll(TakeoverChannel& channel) {
  constexpr std::string_view kListen = "listen ", kKeys = "keys ";
  Taken taken;
  if (!channel.Send("take 1 keys operator")) {
    return absl::UnavailableError("takeover: the other process is gone");
  }
  while (true) {
    absl::StatusOr<TakeoverChannel::Message> message = channel.Receive(true);
    if (!message.ok()) return message.status();
    if (message->text == "end") return taken;
    if (message->text.starts_with(kKeys)) {
      taken.keys.assign(message->text, kKeys.size());
      Wipe(message->text);
      continue;
    }
    if (message->text.starts_with(kOperator)) {
      const std::vector<std::string> parts =
          absl::StrSplit(message->text.substr(kOperator.size()), absl::MaxSplits('\n', 2));
      if (parts.size() == 3) taken.words.push_back({parts[0], parts[1], parts[2]});
      continue;
    }
    if (!message->text.starts_with(kListen)) {
      return absl::UnavailableError("takeover: the other process refused");
    }
    taken.sockets[message->text.substr(kListen.size())] = std::move(message->sockets);
  }
}

absl::StatusOr<pid_t> StartHeir(const std::vector<std::string>& command, TakeoverChannel channel) {
  std::vector<char*> arguments, variables;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::string given = fmt::format("{}={}", kVariable, channel.descriptor());
  for (char** variable = environ; *variable != nullptr; ++variable) {
    // What systemd passed on was for this process.
    const std::string_view text = *variable;
    if (!text.starts_with("LISTEN_") && !text.starts_with(kVariable)) variables.push_back(*variable);
  }
  variables.push_back(given.data());
  variables.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // To itself: the child keeps it open.
  posix_spawn_file_actions_adddup2(&actions, channel.descriptor(), channel.descriptor());
  pid_t heir = 0;
  errno = posix_spawnp(&heir, arguments[0], &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (errno != 0) return Failed("takeover: starting " + command[0]);
  return heir;
}

TakeoverChannel GivenChannel() {
  const char* const text = std::getenv(kVariable);
  if (text == nullptr) return {};
  int descriptor = -1;
  std::from_chars(text, text + std::strlen(text), descriptor);
  ::unsetenv(kVariable);
  struct stat status;
  if (descriptor < 0 || fstat(descriptor, &status) != 0 || !S_ISSOCK(status.st_mode)) return {};
  fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  return TakeoverChannel(descriptor);
}

}  // namespace penstock
