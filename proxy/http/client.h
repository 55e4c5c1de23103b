// A plain client over a Dialer, for what is not the data path: health checks, load
// streams, tests. One connection a fetch, closed after it.
//
// Threads: the loop's thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/http/server.h"
#include "proxy/net/dialer.h"

namespace penstock {

struct FetchOptions {
  std::string method = "GET";
  std::string target = "/";
  std::string authority;                 // Host field.
  HeaderList headers;
  std::string body;
  bool http2 = false;                    // By prior knowledge; else what TLS agreed on, or HTTP/1.1.
  MonoTime connect_timeout = kSecond;
  MonoTime timeout = kSecond;            // Until the head and, without on_data, the whole body.
  MonoTime idle_timeout = kNever;        // With on_data: between two reads.
  size_t body_bytes = 1 << 20;           // Without on_data: a longer body is an error.
  // If set, the body is handed over as it comes and FetchResult::body stays empty.
  absl::AnyInvocable<void(std::string_view)> on_data;
};

struct FetchResult {
  int status = 0;
  HeaderList headers;                    // Names in lower case.
  std::string body;
  HeaderList trailers;
};

// Destroying it cancels and closes the connection; the callback will not come.
class Fetch {
 public:
  using Callback = absl::AnyInvocable<void(absl::StatusOr<FetchResult>)>;
  virtual ~Fetch() = default;

  // The callback comes once, never from inside this call; with on_data when the
  // body has ended or failed. It may destroy the Fetch.
  static std::unique_ptr<Fetch> Start(Dialer& dialer, DeadlineWheel& deadlines,
                                      const Address& address, FetchOptions options,
                                      Callback callback);
};

}  // namespace penstock
