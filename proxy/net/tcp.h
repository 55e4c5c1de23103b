// A TCP socket that the loop watches: for whoever dials it, then for its UvStream.
//
// Bytes are read and written here, not by libuv: recv() and send() are cheaper than its
// read() and write() (which look after files, too), and a handle that is only polled is
// half as large as one that reads. What they cost is in docs/performance.md.
//
// Threads: the loop's thread only.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>
#include <uv.h>

#include <cstddef>
#include <memory>
#include <span>

#include "proxy/net/uv_loop.h"

namespace penstock {

class Tcp {
 public:
  using OnEvents = void (*)(void* owner, int events);   // UV_READABLE, UV_WRITABLE

  // Takes `fd`, which must not block; null: the loop cannot watch it, it is closed, and
  // errno says why.
  static std::shared_ptr<Tcp> Open(UvLoop& loop, int fd);
  Tcp(UvLoop& loop, int fd) : loop_(loop), fd_(fd) {}

  // Who hears of events; null: nobody any more.
  void SetOwner(void* owner, OnEvents on_events);
  void* owner() const { return owner_; }

  // Calls back while one of `events` is true; 0: never. An event that is an error comes as
  // all that was watched, and ends the watch: reading or writing will tell it.
  void Watch(int events);
  int watched() const { return watched_; }

  // What read() and write() say, errno included; no SIGPIPE.
  ssize_t Receive(char* buffer, size_t size);
  ssize_t Send(std::span<const iovec> pieces);
  int TakeError();                         // SO_ERROR, which forgets it; 0: none.
  void EndWriting();

  // At once; the loop keeps the memory for a moment. Resetting: with RST.
  void Close(bool resetting = false);

  UvLoop& loop() { return loop_; }

 private:
  static void OnPoll(uv_poll_t* handle, int status, int events);

  UvLoop& loop_;
  int fd_;                                 // -1: closed.
  int watched_ = 0;
  void* owner_ = nullptr;
  OnEvents on_events_ = nullptr;
  std::shared_ptr<Tcp> self_;              // What libuv holds: from Open() until closed.
  uv_poll_t handle_;
};

}  // namespace penstock
