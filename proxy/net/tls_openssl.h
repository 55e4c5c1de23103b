// OpenSSL's objects with owners, and what all our contexts have in common.
// Private to the tls_* files of proxy/net, which are the only home of OpenSSL.
//
// Threads: any; the queue of errors is the thread's own.
#pragma once

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proxy/net/tls_info.h"

namespace penstock {

class TlsServerContext;
class TlsTarget;

// What the callbacks of OpenSSL know of one connection: the app data of its SSL.
struct TlsPeerState {
  enum class Refused : uint8_t { kNot, kName, kAlpn };

  const TlsTarget* target = nullptr;       // Whom we connect to; null: we accept.
  std::string server_name;                 // What the client asked for, if it is a name.
  Refused refused = Refused::kNot;
  uint32_t key_updates = 0;                // That the peer has sent.
};
inline TlsPeerState& StateOf(const SSL* ssl) {
  return *static_cast<TlsPeerState*>(SSL_get_app_data(ssl));
}

template <auto kFree>
struct OpenSslFree {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using SslPtr = std::unique_ptr<SSL, OpenSslFree<SSL_free>>;
using SslContextPtr = std::unique_ptr<SSL_CTX, OpenSslFree<SSL_CTX_free>>;
using SslSessionPtr = std::unique_ptr<SSL_SESSION, OpenSslFree<SSL_SESSION_free>>;
using X509Ptr = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;

// The first complaint in the thread's queue, in OpenSSL's words; empties the queue.
std::string TakeOpenSslError();

// Every certificate of a PEM text, in its order; what is no certificate is passed over.
// InvalidArgument: there is none, or one is damaged.
absl::StatusOr<std::vector<X509Ptr>> ParseCertificates(std::string_view pem);
// InvalidArgument: there is none, it is damaged, or it wants a passphrase.
absl::StatusOr<KeyPtr> ParseKey(std::string_view pem);

std::string NameText(const X509_NAME* name);     // RFC 2253: "CN=chat.example,O=Example".
std::string FingerprintOf(const X509* certificate);   // SHA-256, 64 hex digits.
PeerCertificate Describe(X509* certificate);

// A context with what is fixed for both sides: versions, ciphers, no renegotiation,
// buffers that go when a connection is idle. TLS 1.3 alone if `only_13`.
SslContextPtr NewContext(bool only_13);
// Certificate, chain and key from PEM; the message says what is wrong with them.
absl::Status UseKeyPair(SSL_CTX* context, std::string_view certificates, std::string_view key);
// Trusts the authorities of a PEM text.
absl::Status TrustAuthorities(SSL_CTX* context, std::string_view pem);

// A digest of texts that another list of texts does not have.
std::string DigestOf(std::initializer_list<std::string_view> texts);

// ALPN names as the wire has them: each behind its length.
std::string AlpnWire(const std::vector<std::string>& names);

}  // namespace penstock
