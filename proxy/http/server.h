// A plain HTTP server over a Loop, for what is not the data path: the proxy's
// admin listener and the engine's API. Whole requests in (bounded), whole or
// streamed answers out. The proxy's own data path is request/session.
//
// Threads: the loop's thread. An answer may be kept and used later on that
// thread (post to it from others).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/http/codec.h"
#include "proxy/net/loop.h"

namespace penstock {

struct HttpServerOptions {
  CodecLimits codec;
  size_t body_bytes = 10 * 1024 * 1024;     // Above: 413.
  size_t connections = 1024;                // Above: closed at accept.
  MonoTime header_timeout = 10 * kSecond;
  MonoTime keep_alive_timeout = 75 * kSecond;
  // A reader whose streamed answer has more unsent is cut, with a line in the log: the last
  // resort. Whoever writes much looks at buffered() and waits, or ends it in words by CutAfter().
  size_t stream_buffer_bytes = 1 << 20;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;
  std::string path;          // Without the query, not decoded.
  std::string query;         // Without '?'.
  HeaderList headers;        // Names in lower case.
  std::string body;
  std::string peer;          // Address of the client.
  bool from_loopback = false;

  std::string_view Header(std::string_view name) const;      // Empty: not there.
  std::string_view QueryValue(std::string_view name) const;
};

// The answer to one request; given to the handler, which may keep it. Dropping
// it unanswered sends 500 (or cuts a begun stream). All calls after the client
// left do nothing.
class HttpAnswer {
 public:
  virtual ~HttpAnswer() = default;
  // A whole answer. With "connection: close" among `headers`, here and in Begin(),
  // the connection ends after it.
  virtual void Send(int status, std::string_view content_type, std::string_view body,
                    const HeaderList& headers = {}) = 0;
  // A streamed one: Begin, Write any number of times, End; or Cut: reset, so
  // that the client sees that it is not whole.
  virtual void Begin(int status, std::string_view content_type, const HeaderList& headers = {}) = 0;
  virtual void Write(std::string_view data) = 0;
  virtual void End(const HeaderList& trailers = {}) = 0;
  virtual void Cut() = 0;
  // Last words of a begun answer that is not whole, then a cut: once the client's
  // side has them, or has taken nothing for a second.
  virtual void CutAfter(std::string_view last) {
    Write(last);
    Cut();
  }
  virtual size_t buffered() const = 0;      // Written bytes that the client has not taken.
  virtual bool client_gone() const = 0;
  // Called once if the client leaves before the answer is complete.
  virtual void OnClientGone(absl::AnyInvocable<void()> callback) = 0;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest request, std::unique_ptr<HttpAnswer> answer)>;

  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(Loop& loop, const Address& address,
                                                            HttpServerOptions options,
                                                            Handler handler);
  static std::unique_ptr<HttpServer> Listen(Loop& loop, ListeningSocket socket,
                                            HttpServerOptions options, Handler handler);
  virtual ~HttpServer() = default;          // Closes the listener and every connection.
  virtual const Address& address() const = 0;
  virtual void StopAccepting() = 0;         // Closes the listener; connection: close from now on.
  virtual size_t connections() const = 0;
  virtual size_t buffered() const = 0;      // Written bytes that clients have not taken, in all.
};

}  // namespace penstock
