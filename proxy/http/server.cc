#include "proxy/http/server.h"

#include <utility>

#include "proxy/http/server_connection.h"

namespace penstock {
namespace {

class LoopHttpServer final : public HttpServer {
 public:
  LoopHttpServer(Loop& loop, HttpServerOptions options, Handler handler)
      : shared_{loop, std::move(options), std::move(handler), false, {}, {}} {}

  absl::Status Start(const Address& address) {
    auto listener = shared_.loop.Listen(
        address, [this](std::unique_ptr<Stream> stream) { Accept(std::move(stream)); });
    if (!listener.ok()) return listener.status();
    Take(*std::move(listener));
    return absl::OkStatus();
  }
  void Start(ListeningSocket socket) {
    Take(shared_.loop.Listen(std::move(socket), [this](std::unique_ptr<Stream> stream) {
      Accept(std::move(stream));
    }));
  }

  const Address& address() const override { return address_; }
  size_t connections() const override { return shared_.connections.size(); }
  size_t buffered() const override {
    size_t bytes = 0;
    for (const auto& connection : shared_.connections) bytes += connection->buffered();
    return bytes;
  }

  void StopAccepting() override {
    listener_.reset();
    shared_.closing = true;
    for (auto it = shared_.connections.begin(); it != shared_.connections.end();) {
      ServerConnection& connection = **it++;
      connection.StopTaking();
    }
  }

 private:
  void Take(std::unique_ptr<Listener> listener) {
    listener_ = std::move(listener);
    address_ = listener_->address();
  }
  void Accept(std::unique_ptr<Stream> stream) {
    if (shared_.connections.size() >= shared_.options.connections) return;
    shared_.connections.push_front(
        std::make_unique<ServerConnection>(shared_, std::move(stream)));
    shared_.connections.front()->self = shared_.connections.begin();
  }

  ServerShared shared_;
  Address address_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [known, value] : headers) {
    if (known == name) return value;
  }
  return {};
}

std::string_view HttpRequest::QueryValue(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) == name) {
      return equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1);
    }
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return {};
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(Loop& loop, const Address& address,
                                                               HttpServerOptions options,
                                                               Handler handler) {
  auto server = std::make_unique<LoopHttpServer>(loop, std::move(options), std::move(handler));
  const absl::Status status = server->Start(address);
  if (!status.ok()) return status;
  return server;
}

std::unique_ptr<HttpServer> HttpServer::Listen(Loop& loop, ListeningSocket socket,
                                               HttpServerOptions options, Handler handler) {
  auto server = std::make_unique<LoopHttpServer>(loop, std::move(options), std::move(handler));
  server->Start(std::move(socket));
  return server;
}

}  // namespace penstock
