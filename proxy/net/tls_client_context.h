// What the connections to the backends of one pool have in common when they speak
// TLS, and what those to one backend do. Contexts never change: a new file makes a
// new one.
//
// Threads: any.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/net/tls_server_context.h"

struct ssl_ctx_st;
struct ssl_st;
struct ssl_session_st;

namespace penstock {

struct TlsClientSettings {
  std::string authorities;                // PEM; empty: the system's.
  bool insecure_skip_verify = false;      // Whoever answers is believed.
  TlsKeyPair own;                         // Shown to those who ask for it; may be empty.
};

class TlsClientContext {
 public:
  static absl::StatusOr<std::shared_ptr<const TlsClientContext>> Create(
      const TlsClientSettings& settings);
  ~TlsClientContext();
  TlsClientContext(const TlsClientContext&) = delete;
  TlsClientContext& operator=(const TlsClientContext&) = delete;

 private:
  friend class TlsTarget;
  TlsClientContext();

  ssl_ctx_st* const context_;            // Owned.
};

// Whom a connection is for: the name that its certificate must have, and the
// sessions that earlier connections to it have left.
class TlsTarget {
 public:
  static constexpr size_t kSessionsMax = 16;

  // `name`: a host name or an IP address, without a port.
  TlsTarget(std::shared_ptr<const TlsClientContext> context, std::string_view name);
  ~TlsTarget();
  TlsTarget(const TlsTarget&) = delete;
  TlsTarget& operator=(const TlsTarget&) = delete;

  const std::string& name() const { return name_; }
  bool is_address() const { return is_address_; }   // Then no SNI is sent.
  const std::shared_ptr<const TlsClientContext>& context() const { return context_; }

  // A connection's state, to be connected with, asking for `alpn` (as the wire has it)
  // and for a session of before; the caller frees it. As NewSsl() of a server.
  ssl_st* NewSsl(std::string_view alpn) const;
  // Keeps a session for a later connection; takes it over.
  void Keep(ssl_session_st* session) const;

 private:
  const std::shared_ptr<const TlsClientContext> context_;
  std::string name_;
  bool is_address_ = false;
  mutable std::mutex mutex_;                        // Guards the sessions.
  mutable std::vector<ssl_session_st*> sessions_;   // Newest last.
};

}  // namespace penstock
