// What a TLS handshake settled about a connection. A stream that carries one is
// secure; whoever is handed such a stream finds it complete, since streams are
// handed over after their handshake.
//
// Threads: immutable once the stream is handed over.
#pragma once

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

}  // namespace penstock
