// What a TLS handshake settled about a connection. A stream that carries one is
// secure; whoever is handed such a stream finds it complete, since streams are
// handed over after their handshake. And why there was none.
//
// Threads: immutable once the stream is handed over.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

// Who the peer proved to be; only there if its certificate was verified.
struct PeerCertificate {
  std::string subject;                  // RFC 2253: "CN=agent-7,O=Example".
  std::string sha256;                   // Of the certificate (DER), 64 hex digits.
  std::vector<std::string> dns_names;   // Subject alternative names.
  std::vector<std::string> uris;        // ... "spiffe://cluster.local/ns/..."
};

struct TlsInfo {
  std::string alpn;                     // "h2", "http/1.1"; empty: none was agreed on.
  std::string server_name;              // SNI, in lower case; empty: none was sent.
  std::string_view version;             // "TLSv1.3".
  std::string_view cipher;              // "TLS_AES_256_GCM_SHA384".
  bool resumed = false;
  bool peer_verified = false;           // `peer` is filled in.
  PeerCertificate peer;
};

// Why a handshake failed, for the counter of that name.
enum class TlsFailure : uint8_t {
  kTimeout,
  kClosed,              // The peer went away.
  kNotTls,              // Its first bytes are something else: HTTP, most of the time.
  kVersion,             // It speaks no version that we do.
  kCipher,              // ... or no cipher.
  kAlpn,                // ... or none of our protocols.
  kName,                // It asked for a name that no certificate has.
  kCertificate,         // Its certificate is missing, or not to be trusted.
  kAlert,               // It refused us: it does not trust our certificate, say.
  kProtocol,            // Anything else that is no TLS.
};
inline constexpr std::array<std::string_view, 10> kTlsFailureNames = {
    "timeout", "closed", "not_tls", "version", "cipher", "alpn", "server_name", "certificate",
    "alert", "protocol"};

}  // namespace penstock
