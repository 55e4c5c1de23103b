// Loaded before a program (LD_PRELOAD): its reads and writes are interrupted, find
// nothing, take less than they could, and its sockets have buffers as small as they get.
//
//   FAULTY_SHARE   of 1,000 calls, how many are spoilt
//   FAULTY_BUFFERS size in bytes of the kernel's buffers of each socket; 0: as it comes
//
// All of it is what the kernel may do at any time. Only sockets find nothing or take
// less; every call may be interrupted.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned share;
static int buffers;
static _Thread_local uint64_t state = 88172645463325252u;

__attribute__((constructor)) static void Begin(void) {
  const char* text = getenv("FAULTY_SHARE");
  share = text ? (unsigned)atoi(text) : 0;
  text = getenv("FAULTY_BUFFERS");
  buffers = text ? atoi(text) : 0;
}

static uint64_t Next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int IsSocket(int file) {
  const int error = errno;
  struct stat info;
  const int found = fstat(file, &info) == 0 && S_ISSOCK(info.st_mode);
  errno = error;
  return found;
}

// 0: go on; else an errno.
static int Spoilt(int file) {
  if (Next() % 1000 >= share) return 0;
  if (Next() % 2 == 0) return EINTR;
  return IsSocket(file) ? EAGAIN : 0;
}

static size_t Less(int file, size_t size) {
  if (size < 2 || Next() % 1000 >= share || !IsSocket(file)) return size;
  return 1 + (size_t)(Next() % (size - 1));
}

#define REAL(type, name, ...)                                   \
  static type (*real)(__VA_ARGS__);                             \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define SPOIL(file)                   \
  const int spoilt = Spoilt(file);    \
  if (spoilt) {                       \
    errno = spoilt;                   \
    return -1;                        \
  }

ssize_t read(int file, void* data, size_t size) {
  REAL(ssize_t, read, int, void*, size_t);
  SPOIL(file)
  return real(file, data, Less(file, size));
}

ssize_t write(int file, const void* data, size_t size) {
  REAL(ssize_t, write, int, const void*, size_t);
  SPOIL(file)
  return real(file, data, Less(file, size));
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec*, int);
  SPOIL(file)
  if (count > 0 && IsSocket(file) && Next() % 1000 < share) {
    struct iovec one = parts[0];
    one.iov_len = Less(file, one.iov_len);
    return real(file, &one, 1);
  }
  return real(file, parts, count);
}

ssize_t sendmsg(int file, const struct msghdr* message, int flags) {
  REAL(ssize_t, sendmsg, int, const struct msghdr*, int);
  SPOIL(file)
  return real(file, message, flags);
}

ssize_t recvmsg(int file, struct msghdr* message, int flags) {
  REAL(ssize_t, recvmsg, int, struct msghdr*, int);
  SPOIL(file)
  return real(file, message, flags);
}

static int Small(int file) {
  const int error = errno;
  if (file >= 0 && buffers > 0 && IsSocket(file)) {
    setsockopt(file, SOL_SOCKET, SO_SNDBUF, &buffers, sizeof buffers);
    setsockopt(file, SOL_SOCKET, SO_RCVBUF, &buffers, sizeof buffers);
  }
  errno = error;
  return file;
}

int accept4(int file, struct sockaddr* address, socklen_t* length, int flags) {
  REAL(int, accept4, int, struct sockaddr*, socklen_t*, int);
  SPOIL(file)
  return Small(real(file, address, length, flags));
}

int accept(int file, struct sockaddr* address, socklen_t* length) {
  REAL(int, accept, int, struct sockaddr*, socklen_t*);
  SPOIL(file)
  return Small(real(file, address, length));
}

int socket(int family, int type, int protocol) {
  REAL(int, socket, int, int, int);
  return Small(real(family, type, protocol));
}

int epoll_wait(int file, struct epoll_event* events, int most, int timeout) {
  REAL(int, epoll_wait, int, struct epoll_event*, int, int);
  if (Next() % 1000 < share) {
    errno = EINTR;
    return -1;
  }
  return real(file, events, most, timeout);
}

int epoll_pwait(int file, struct epoll_event* events, int most, int timeout, const sigset_t* mask) {
  REAL(int, epoll_pwait, int, struct epoll_event*, int, int, const sigset_t*);
  if (Next() % 1000 < share) {
    errno = EINTR;
    return -1;
  }
  return real(file, events, most, timeout, mask);
}
