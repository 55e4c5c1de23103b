// What the connections of one listener have in common when they speak TLS:
// certificates, authorities, protocols. Made from the texts of files, never changed
// afterwards; a new file makes a new context, and connections keep the one that
// they began with.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "proxy/net/tls_ticket_keys.h"

struct ssl_ctx_st;
struct ssl_st;

namespace penstock {

struct TlsKeyPair {
  std::string certificates;          // PEM: the server's own, then each one's issuer.
  std::string key;                   // PEM.
};

enum class ClientCertificates : uint8_t { kOff, kOptional, kRequired };

struct TlsServerSettings {
  std::vector<TlsKeyPair> certificates;   // At least one; the first is the default.
  bool require_sni = false;               // A name that no certificate has is refused, as is none.
  bool only_13 = false;
  std::string client_authorities;         // PEM; for client certificates.
  ClientCertificates client_certificates = ClientCertificates::kOff;
  std::vector<std::string> alpn;          // Best first.
  // What sessions belong to: one that began elsewhere is not resumed here.
  std::string scope;
};

// One listener's side. A client chooses the certificate by the name that it asks for
// (SNI): an exact name of a certificate, else a wildcard (RFC 6125: the whole first
// label, at least two after it), else the first certificate.
//
// Sessions are resumed by tickets, each bound to the scope, the name asked for, the
// certificate and what is demanded of clients, so that none gets around a check.
class TlsServerContext {
 public:
  // `keys` outlives the context. InvalidArgument: what is wrong with a text.
  static absl::StatusOr<std::shared_ptr<const TlsServerContext>> Create(
      const TlsServerSettings& settings, const TlsTicketKeys& keys);
  ~TlsServerContext();
  TlsServerContext(const TlsServerContext&) = delete;
  TlsServerContext& operator=(const TlsServerContext&) = delete;

  // The certificate's place for a name in lower case; -1: refused.
  int Choose(std::string_view server_name) const;
  ClientCertificates client_certificates() const { return client_certificates_; }
  // A connection's state, to be accepted with; the caller frees it. Its app data has
  // to be a TlsPeerState (tls_openssl.h).
  ssl_st* NewSsl() const;

 private:
  friend struct TlsServerCallbacks;
  TlsServerContext(const TlsServerSettings& settings, const TlsTicketKeys& keys);
  absl::Status AddCertificate(const TlsServerSettings& settings, const TlsKeyPair& pair);

  const TlsTicketKeys& keys_;
  const bool require_sni_;
  const ClientCertificates client_certificates_;
  const std::string alpn_;                       // As the wire has it.
  std::vector<ssl_ctx_st*> contexts_;            // One a certificate; owned.
  std::vector<std::string> scopes_;              // What each one's sessions belong to.
  absl::flat_hash_map<std::string, int> names_;  // Wildcards as "*.example.com".
};

}  // namespace penstock
