// The handshakes of accepted connections: a stream goes in as it was accepted and
// comes out as a TLS one, or is closed.
//
// Threads: the loop's thread only.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/net/stream.h"
#include "proxy/net/tls_server_context.h"
#include "proxy/net/tls_stream.h"

namespace penstock {

class TlsAcceptor {
 public:
  // Null: it failed, as `failure` and `why` say (the latter without the peer's address,
  // which comes last).
  struct Outcome {
    std::unique_ptr<Stream> stream;
    TlsFailure failure = TlsFailure::kProtocol;
    std::string_view why;
    std::string_view peer;
  };
  using Done = absl::AnyInvocable<void(Outcome)>;

  explicit TlsAcceptor(DeadlineWheel& wheel) : wheel_(wheel) {}
  ~TlsAcceptor() { CloseAll(); }

  // `done` is called once, never from inside this call, unless CloseAll() comes before.
  void Accept(std::shared_ptr<const TlsServerContext> context, std::unique_ptr<Stream> stream,
              MonoTime timeout, Done done);
  // Closes what is not done; nobody is told.
  void CloseAll() { open_.clear(); }
  size_t size() const { return open_.size(); }

 private:
  struct Handshake final : TlsStream::Waiter {
    void OnTlsReady(TlsStream& ready) override;
    void OnTlsFailed(TlsStream& failed, TlsFailure failure, std::string_view why) override;

    TlsAcceptor* owner;
    std::unique_ptr<TlsStream> stream;
    Done done;
    size_t index;                     // In `open_`.
  };
  std::unique_ptr<Handshake> Take(size_t index);

  DeadlineWheel& wheel_;
  std::vector<std::unique_ptr<Handshake>> open_;
};

}  // namespace penstock
