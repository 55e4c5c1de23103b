// A TlsStream of ours and an OpenSSL peer at the two ends of a connection in memory,
// with told time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/net/tls_stream.h"
#include "tests/support/memory_stream.h"
#include "tests/support/tls_certificates.h"
#include "tests/support/tls_peer.h"

namespace penstock {

// Made once: keys take a moment.
inline const TestAuthority& Authority() {
  static const TestAuthority authority;
  return authority;
}
inline const TlsKeyPair& ChatPair() {
  static const TlsKeyPair pair =
      Authority().Issue({.common_name = "chat.example", .names = {"DNS:chat.example"}});
  return pair;
}
inline const TlsTicketKeys& SharedKeys() {
  static const TlsTicketKeys keys;
  return keys;
}

inline TlsServerSettings ServerSettings() {
  return {.certificates = {ChatPair()}, .alpn = {"h2", "http/1.1"}};
}

inline std::shared_ptr<const TlsServerContext> ServerContext(
    const TlsServerSettings& settings = ServerSettings(), const TlsTicketKeys& keys = SharedKeys()) {
  auto context = TlsServerContext::Create(settings, keys);
  CHECK(context.ok());
  return *std::move(context);
}

inline std::shared_ptr<const TlsTarget> Target(
    std::string_view name = "chat.example",
    const TlsClientSettings& settings = {.authorities = Authority().pem()}) {
  auto context = TlsClientContext::Create(settings);
  CHECK(context.ok());
  return std::make_shared<TlsTarget>(*std::move(context), name);
}

// Our end and what became of it.
struct TlsEnd final : TlsStream::Waiter, StreamReceiver {
  void OnTlsReady(TlsStream&) override {
    ready = true;
    stream->SetReceiver(this);
    if (resume) stream->Resume();
    if (on_ready) on_ready();
  }
  void OnTlsFailed(TlsStream&, TlsFailure what, std::string_view said) override {
    failure = what;
    why = said;
    stream.reset();
  }
  void OnData(std::string_view bytes) override {
    data += bytes;
    ++reads;
    if (on_data) on_data();
  }
  void OnStreamEnd(const absl::Status& status) override {
    end = status;
    ++ends;
    if (on_end) on_end();
  }
  void OnWritable() override {
    ++writables;
    if (on_writable) on_writable();
  }
  bool cut() const { return end.has_value() && !end->ok(); }

  std::unique_ptr<TlsStream> stream;
  bool resume = true;                  // As soon as it is ready.
  bool ready = false;
  std::optional<TlsFailure> failure;
  std::string why;
  std::string data;
  int reads = 0, ends = 0, writables = 0;
  std::optional<absl::Status> end;
  std::function<void()> on_ready, on_data, on_end, on_writable;
};

struct TlsWorld {
  static constexpr MonoTime kHandshakeTime = 10 * kSecond;

  // Ours accepts.
  TlsWorld(std::shared_ptr<const TlsServerContext> context, const TlsPeerWish& wish = {},
           const MemoryLinkOptions& options = {})
      : pair(options) {
    end.stream = std::make_unique<TlsStream>(std::move(context), std::move(pair.a), wheel, end);
    Begin(wish);
  }
  // Ours connects.
  TlsWorld(std::shared_ptr<const TlsTarget> target, TlsPeerWish wish, std::string_view alpn = {},
           const MemoryLinkOptions& options = {})
      : pair(options) {
    wish.server = true;
    end.stream = std::make_unique<TlsStream>(std::move(target), alpn, std::move(pair.a), wheel, end);
    Begin(wish);
  }
  void Begin(const TlsPeerWish& wish) {
    peer = std::make_unique<TlsPeer>(std::move(pair.b), wish);
    end.stream->Start(wheel.now() + kHandshakeTime);
    if (!wish.server) peer->Start();
  }
  TlsWorld& Run() {
    while (pair.link->Step()) {
    }
    return *this;
  }
  void Advance(MonoTime time) {
    wheel.AdvanceTo(wheel.now() + time);
    Run();
  }
  bool open() const { return end.ready && peer->open(); }

  DeadlineWheel wheel{1000 * kSecond};
  MemoryPair pair;
  TlsEnd end;
  std::unique_ptr<TlsPeer> peer;
};

}  // namespace penstock
