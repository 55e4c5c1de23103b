// How long a client says that it will wait, read from the fields that say so, and what
// is left of it as those fields spell it. And the moments that limit a request.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "proxy/base/time.h"
#include "proxy/http/message.h"

namespace penstock {

struct ClientDeadline {
  MonoTime time = kNever;      // From the request's head on; kNever: none was given.
  bool grpc = false;           // grpc-timeout came, and what is left goes on under that name.
  // It bounds the wait for the answer to begin and not the whole of it: the SDKs say how
  // long they wait for the next byte.
  bool until_answer = false;
};

// When a request has to look at itself; kNever: not because of this.
struct Moments {
  MonoTime give_up = kNever;   // The client's deadline or timeouts.total,
  bool is_total = false;       // whichever is earlier.
  MonoTime body = kNever;      // The next bytes of the request's body.
  MonoTime queue = kNever;     // A backend with room.
  MonoTime idle = kNever;      // The next bytes of the answer, or a client that takes some.
  MonoTime hedge = kNever;     // A second try.
  MonoTime comment = kNever;   // A sign of life to the client.
};

// The first field of these that is valid decides: x-request-timeout-ms, grpc-timeout,
// x-envoy-upstream-rq-timeout-ms, x-stainless-read-timeout, x-stainless-timeout (both
// in seconds). Others, zero and nonsense are ignored. The fields that would be wrong by
// the time that a backend sees them are dropped.
ClientDeadline ReadDeadline(std::span<Header> headers);

// `left` as x-request-timeout-ms and as grpc-timeout, in `storage`.
using TimeText = std::array<char, 24>;
std::string_view AsMillis(MonoTime left, TimeText& storage);
std::string_view AsGrpcTimeout(MonoTime left, TimeText& storage);

}  // namespace penstock
