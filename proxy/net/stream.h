// An ordered byte pipe: TCP, TLS, or in memory for tests.
//
// Reads only while resumed (it starts paused), says when its write buffer has
// drained, and reports its end exactly once. Destroying a stream closes it and
// no callback follows; a receiver may destroy the stream inside any callback.
//
// Threads: the loop's thread only.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "proxy/net/tls_info.h"

namespace penstock {

class StreamReceiver {
 public:
  // `data` is valid during the call only (a read buffer shared by the loop).
  virtual void OnData(std::string_view data) = 0;
  // Exactly once, and no OnData after it: OK for an orderly end of the peer's
  // bytes (writing may still work), an error for a reset or a failed write.
  virtual void OnStreamEnd(const absl::Status& status) = 0;
  // buffered() fell to the low mark after having been above the high mark.
  virtual void OnWritable() = 0;

 protected:
  ~StreamReceiver() = default;
};

class Stream {
 public:
  virtual ~Stream() = default;

  // REQUIRES: before the first Resume(), or while paused, or inside OnData.
  virtual void SetReceiver(StreamReceiver* receiver) = 0;
  virtual void Resume() = 0;
  virtual void Pause() = 0;

  // Writes in order, one system call if the kernel takes it all; what it does
  // not take is copied and sent later. A failure is reported by OnStreamEnd,
  // never from inside this call.
  virtual void Write(std::span<const std::string_view> pieces) = 0;
  void Write(std::string_view bytes) { Write(std::span(&bytes, 1)); }

  // Bytes accepted by Write that the kernel has not taken yet, and the mark
  // above which a producer should stop (OnWritable comes at half of it).
  virtual size_t buffered() const = 0;
  virtual size_t high_mark() const = 0;
  bool above_mark() const { return buffered() > high_mark(); }

  // Sends what is buffered, then ends our direction.
  virtual void Shutdown() = 0;
  // Drops what is buffered and resets the connection at once (RST on TCP), so
  // that the peer cannot take a cut answer for a whole one. No callback follows.
  virtual void Reset() = 0;

  // Address of the peer as text, "10.0.0.7:4711" or "[::1]:4711"; lives as long as the stream.
  virtual std::string_view peer() const = 0;

  // What TLS settled; nullptr: the bytes go as they are. Lives as long as the stream.
  virtual const TlsInfo* tls() const { return nullptr; }
  // The client spoke TLS: to us, or to the balancer in front that says so.
  virtual bool secure() const { return tls() != nullptr; }
  // The protocol agreed on ("h2", "http/1.1"); empty: no TLS, or nothing agreed on.
  std::string_view alpn() const { return tls() == nullptr ? std::string_view() : tls()->alpn; }
};

}  // namespace penstock
