// Turns an address into a connected Stream, or a Status, before a deadline.
//
// Threads: the loop's thread only.
#pragma once

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/base/time.h"
#include "proxy/net/address.h"
#include "proxy/net/stream.h"

namespace penstock {

class Dialer {
 public:
  // Destroying it cancels: the callback will not come.
  class Pending {
   public:
    virtual ~Pending() = default;
  };
  using Callback = absl::AnyInvocable<void(absl::StatusOr<std::unique_ptr<Stream>>)>;

  virtual ~Dialer() = default;

  // The callback comes once, never from inside this call, and may destroy the
  // Pending. DeadlineExceeded: not connected within `timeout`; Unavailable:
  // refused or unreachable; the message names the address and the reason.
  virtual std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout,
                                        Callback callback) = 0;
};

}  // namespace penstock
