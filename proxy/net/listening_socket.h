// A TCP socket that listens: bound, with connections waiting in the kernel, and
// polled by nobody yet. Made before it is known whether it will be used (a reload is
// taken whole or not at all), and handed from one process to the next. Of what a client
// of it does not take the kernel keeps 256 KiB; the rest waits where we count it.
//
// Threads: any; each object belongs to one at a time.
#pragma once

#include <utility>

#include "absl/status/statusor.h"
#include "proxy/net/address.h"

namespace penstock {

class ListeningSocket {
 public:
  // Binds with SO_REUSEPORT, so that every worker may have its own. The error names
  // the address and, for a busy port, says so and what to do.
  static absl::StatusOr<ListeningSocket> Open(const Address& address);
  // Owns `descriptor`, whatever comes of it: an error says why it is none.
  static absl::StatusOr<ListeningSocket> Take(int descriptor);

  // An address without a socket, for loops that have none (tests/support/manual_loop.h).
  static ListeningSocket InMemory(Address address) { return ListeningSocket(-1, std::move(address)); }

  ListeningSocket(ListeningSocket&& other) noexcept
      : descriptor_(other.Release()), address_(std::move(other.address_)) {}
  ListeningSocket& operator=(ListeningSocket&& other) noexcept;
  ~ListeningSocket();

  // Another descriptor of the same socket: it shares the connections that wait.
  absl::StatusOr<ListeningSocket> Duplicate() const;

  const Address& address() const { return address_; }  // With its real port.
  int descriptor() const { return descriptor_; }
  int Release() { return std::exchange(descriptor_, -1); }

 private:
  ListeningSocket(int descriptor, Address address)
      : descriptor_(descriptor), address_(std::move(address)) {}

  int descriptor_ = -1;
  Address address_;
};

}  // namespace penstock
