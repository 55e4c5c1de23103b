// The floor of the comparison (compare.py): bytes go from a client to the origin and
// back, one read and one write each way, and nothing is looked at. No proxy on an
// epoll loop costs less.
//
// Usage: relay LISTEN_PORT ORIGIN_PORT
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

int loop;
std::vector<int> other(65536, -1);   // By descriptor: its peer.

void Watch(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

void Part(int fd) {
  const int peer = other[fd];
  other[fd] = other[peer] = -1;
  close(fd);
  close(peer);
}

void Carry(int fd) {
  static char buffer[64 * 1024];
  if (other[fd] < 0) return;
  const ssize_t size = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
  if (size == 0) return Part(fd);
  if (size > 0 && send(other[fd], buffer, static_cast<size_t>(size), MSG_NOSIGNAL) < 0) Part(fd);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: relay LISTEN_PORT ORIGIN_PORT\n"), 2;
  loop = epoll_create1(0);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[1])));
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return std::perror("relay"), 1;
  }
  if (listen(listener, 1024) != 0) return std::perror("relay"), 1;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[2])));
  Watch(listener);
  while (true) {
    epoll_event events[256];
    const int count = epoll_wait(loop, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd != listener) {
        Carry(fd);
        continue;
      }
      const int client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      const int origin = socket(AF_INET, SOCK_STREAM, 0);
      if (client < 0 || connect(origin, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        return std::perror("relay"), 1;
      }
      other[client] = origin;
      other[origin] = client;
      Watch(client);
      Watch(origin);
    }
  }
}
