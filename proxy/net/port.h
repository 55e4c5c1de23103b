// SO_REUSEPORT lets our workers share a port, and would as silently share it with
// another program of the same user that asks for it. So a port is tried without
// it once, before the first worker listens.
#pragma once

#include "absl/status/status.h"
#include "proxy/net/address.h"

namespace penstock {

// AlreadyExists: somebody listens there; the message says so and what to do.
// Port 0 is always free. Any thread.
absl::Status CheckPortFree(const Address& address);

}  // namespace penstock
