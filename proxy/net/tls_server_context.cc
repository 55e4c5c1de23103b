// The certificate is chosen when the ClientHello is whole and nothing of it has been
// acted on, so that a ticket is judged by the context that it will be used in.
#include "proxy/net/tls_server_context.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/net/tls_certificate.h"
#include "proxy/net/tls_openssl.h"

namespace penstock {
namespace {

constexpr size_t kNameMax = 255;

// The host name of a server_name extension (RFC 6066 3) in lower case; empty: none,
// or something that no certificate of ours could have.
std::string NameIn(const unsigned char* data, size_t size) {
  if (size < 5 || data[2] != 0) return "";
  const size_t length = static_cast<size_t>(data[3]) << 8 | data[4];
  if (length == 0 || length > kNameMax || length > size - 5) return "";
  std::string name(reinterpret_cast<const char*>(data) + 5, length);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    if (!plain) return "";
  }
  return name;
}

// Whether a certificate's name may stand for others: the whole first label, and at
// least two labels after it.
bool IsWildcard(std::string_view name) {
  return name.starts_with("*.") && name.find('*', 1) == std::string_view::npos &&
         name.find('.', 2) != std::string_view::npos;
}

int VerifyModeOf(ClientCertificates mode) {
  switch (mode) {
    case ClientCertificates::kOff: return SSL_VERIFY_NONE;
    case ClientCertificates::kOptional: return SSL_VERIFY_PEER;
    case ClientCertificates::kRequired: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  }
  return SSL_VERIFY_NONE;
}

}  // namespace

struct TlsServerCallbacks {
  static int OnClientHello(SSL* ssl, int* alert, void* argument) {
    const auto& self = *static_cast<const TlsServerContext*>(argument);
    TlsPeerState& state = StateOf(ssl);
    const unsigned char* data = nullptr;
    size_t size = 0;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &size) == 1) {
      state.server_name = NameIn(data, size);
    }
    const int choice = self.Choose(state.server_name);
    if (choice < 0) {
      state.refused = TlsPeerState::Refused::kName;
      *alert = SSL_AD_UNRECOGNIZED_NAME;
      return SSL_CLIENT_HELLO_ERROR;
    }
    if (SSL_set_SSL_CTX(ssl, self.contexts_[choice]) == nullptr) return SSL_CLIENT_HELLO_ERROR;
    const std::string scope = DigestOf({self.scopes_[choice], state.server_name});
    static_assert(SSL_MAX_SID_CTX_LENGTH >= 32);
    SSL_set_session_id_context(ssl, reinterpret_cast<const unsigned char*>(scope.data()),
                               static_cast<unsigned>(scope.size()));
    return SSL_CLIENT_HELLO_SUCCESS;
  }

  static int OnAlpn(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* offered, unsigned offered_size, void* argument) {
    const std::string& ours = static_cast<const TlsServerContext*>(argument)->alpn_;
    unsigned char* chosen = nullptr;
    const int result =
        SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(ours.data()),
                              static_cast<unsigned>(ours.size()), offered, offered_size);
    if (result == OPENSSL_NPN_NEGOTIATED) {
      *out = chosen;
      return SSL_TLSEXT_ERR_OK;
    }
    StateOf(ssl).refused = TlsPeerState::Refused::kAlpn;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }

  // Seals (seal = 1) or opens a ticket. 0: no key fits, a full handshake follows; 2: it
  // is good, and a new one is given out, since in TLS 1.3 each serves once.
  static int OnTicket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                      EVP_MAC_CTX* mac, int seal) {
    const auto& self = *static_cast<const TlsServerContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    std::optional<TlsTicketKeys::Found> found;
    if (seal == 1) {
      found = TlsTicketKeys::Found{self.keys_.Current(), true};
      std::memcpy(name, found->key.name.data(), found->key.name.size());
      if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1) return -1;
    } else {
      found = self.keys_.Find(name);
      if (!found) return 0;
    }
    TlsTicketKeys::Key& key = found->key;
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.digest.data(), key.digest.size()),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    const bool set = EVP_MAC_CTX_set_params(mac, parameters) == 1 &&
                     EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.cipher.data(), iv, seal) == 1;
    OPENSSL_cleanse(&key, sizeof(key));
    if (!set) return -1;
    return seal == 1 || (found->current && SSL_version(ssl) != TLS1_3_VERSION) ? 1 : 2;
  }

  // A ticket holds the client's certificate as it was checked once. One that has
  // expired since, or is missing where it is required, leads to a full handshake.
  static SSL_TICKET_RETURN OnOpened(SSL*, SSL_SESSION* session, const unsigned char*, size_t,
                                    SSL_TICKET_STATUS status, void* argument) {
    const auto& self = *static_cast<const TlsServerContext*>(argument);
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
      return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    const X509* const peer = SSL_SESSION_get0_peer(session);
    const bool missing = peer == nullptr && self.client_certificates_ == ClientCertificates::kRequired;
    const bool expired = peer != nullptr && X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0;
    if (missing || expired) return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
  }
};

TlsServerContext::TlsServerContext(const TlsServerSettings& settings, const TlsTicketKeys& keys)
    : keys_(keys),
      require_sni_(settings.require_sni),
      client_certificates_(settings.client_certificates),
      alpn_(AlpnWire(settings.alpn)) {}

TlsServerContext::~TlsServerContext() {
  for (SSL_CTX* context : contexts_) SSL_CTX_free(context);
}

absl::StatusOr<std::shared_ptr<const TlsServerContext>> TlsServerContext::Create(
    const TlsServerSettings& settings, const TlsTicketKeys& keys) {
  CHECK(!settings.certificates.empty());
  std::shared_ptr<TlsServerContext> self(new TlsServerContext(settings, keys));
  for (const TlsKeyPair& pair : settings.certificates) {
    RETURN_IF_ERROR(self->AddCertificate(settings, pair));
  }
  return self;
}

absl::Status TlsServerContext::AddCertificate(const TlsServerSettings& settings,
                                              const TlsKeyPair& pair) {
  SslContextPtr context = NewContext(settings.only_13);
  SSL_CTX* const raw = context.get();
  RETURN_IF_ERROR(UseKeyPair(raw, pair.certificates, pair.key));
  const auto facts = ReadCertificate(pair.certificates);
  if (!facts.ok()) return facts.status();
  SSL_CTX_set_app_data(raw, this);
  // Sessions live in tickets alone: no table that a flood of handshakes fills.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(raw, TlsServerCallbacks::OnTicket);
  SSL_CTX_set_session_ticket_cb(raw, nullptr, TlsServerCallbacks::OnOpened, this);
  SSL_CTX_set_client_hello_cb(raw, TlsServerCallbacks::OnClientHello, this);
  if (!alpn_.empty()) SSL_CTX_set_alpn_select_cb(raw, TlsServerCallbacks::OnAlpn, this);
  SSL_CTX_set_verify(raw, VerifyModeOf(client_certificates_), nullptr);
  if (client_certificates_ != ClientCertificates::kOff) {
    RETURN_IF_ERROR(TrustAuthorities(raw, settings.client_authorities));
    const auto authorities = ParseCertificates(settings.client_authorities);
    if (!authorities.ok()) return authorities.status();
    for (const X509Ptr& authority : *authorities) SSL_CTX_add_client_CA(raw, authority.get());
  }
  const int place = static_cast<int>(contexts_.size());
  for (const std::string& name : facts->names) {
    if (name.find('*') == std::string::npos || IsWildcard(name)) names_.emplace(name, place);
  }
  scopes_.push_back(DigestOf({settings.scope, facts->sha256,
                              fmt::format("{}", static_cast<int>(client_certificates_)),
                              settings.client_authorities, alpn_}));
  contexts_.push_back(context.release());
  return absl::OkStatus();
}

int TlsServerContext::Choose(std::string_view server_name) const {
  const int otherwise = require_sni_ ? -1 : 0;
  if (server_name.empty()) return otherwise;
  if (const auto exact = names_.find(A(server_name)); exact != names_.end()) return exact->second;
  const size_t dot = server_name.find('.');
  if (dot == 0 || dot == std::string_view::npos) return otherwise;
  const auto wildcard = names_.find(fmt::format("*{}", server_name.substr(dot)));
  return wildcard != names_.end() ? wildcard->second : otherwise;
}

ssl_st* TlsServerContext::NewSsl() const {
  SSL* const ssl = SSL_new(contexts_.front());
  CHECK(ssl != nullptr);
  SSL_set_accept_state(ssl);
  return ssl;
}

}  // namespace penstock
