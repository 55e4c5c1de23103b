#include "proxy/net/tls_client_context.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <utility>

#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/net/tls_openssl.h"

namespace penstock {
namespace {

// Returning 1 means that the session is ours now.
int OnNewSession(SSL* ssl, SSL_SESSION* session) {
  const TlsTarget* const target = StateOf(ssl).target;
  if (target == nullptr) return 0;
  target->Keep(session);
  return 1;
}

bool IsAddress(const std::string& text) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, text.c_str(), bytes) == 1 || inet_pton(AF_INET6, text.c_str(), bytes) == 1;
}

}  // namespace

TlsClientContext::TlsClientContext() : context_(NewContext(false).release()) {}

TlsClientContext::~TlsClientContext() { SSL_CTX_free(context_); }

absl::StatusOr<std::shared_ptr<const TlsClientContext>> TlsClientContext::Create(
    const TlsClientSettings& settings) {
  std::shared_ptr<TlsClientContext> self(new TlsClientContext());
  SSL_CTX* const raw = self->context_;
  SSL_CTX_set_verify(raw, settings.insecure_skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
  if (!settings.authorities.empty()) {
    RETURN_IF_ERROR(TrustAuthorities(raw, settings.authorities));
  } else if (!settings.insecure_skip_verify) {
    if (SSL_CTX_set_default_verify_paths(raw) != 1) {
      return absl::InvalidArgumentError(A(TakeOpenSslError()));
    }
  }
  if (!settings.own.certificates.empty()) {
    RETURN_IF_ERROR(UseKeyPair(raw, settings.own.certificates, settings.own.key));
  }
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(raw, OnNewSession);
  return self;
}

TlsTarget::TlsTarget(std::shared_ptr<const TlsClientContext> context, std::string_view name)
    : context_(std::move(context)), name_(name), is_address_(IsAddress(name_)) {}

TlsTarget::~TlsTarget() {
  for (SSL_SESSION* session : sessions_) SSL_SESSION_free(session);
}

void TlsTarget::Keep(ssl_session_st* session) const {
  SslSessionPtr dropped;
  const std::lock_guard lock(mutex_);
  if (sessions_.size() == kSessionsMax) {
    dropped.reset(sessions_.front());
    sessions_.erase(sessions_.begin());
  }
  sessions_.push_back(session);
}

ssl_st* TlsTarget::NewSsl(std::string_view alpn) const {
  SSL* const ssl = SSL_new(context_->context_);
  CHECK(ssl != nullptr);
  SSL_set_connect_state(ssl);
  X509_VERIFY_PARAM* const verify = SSL_get0_param(ssl);
  if (is_address_) {
    X509_VERIFY_PARAM_set1_ip_asc(verify, name_.c_str());
  } else {
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    X509_VERIFY_PARAM_set1_host(verify, name_.data(), name_.size());
    SSL_set_tlsext_host_name(ssl, name_.c_str());
  }
  if (!alpn.empty()) {
    SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(alpn.data()),
                        static_cast<unsigned>(alpn.size()));
  }
  const std::lock_guard lock(mutex_);
  if (sessions_.empty()) return ssl;
  SSL_SESSION* const session = sessions_.back();
  SSL_set_session(ssl, session);   // Holds it for itself.
  // A ticket of TLS 1.3 serves once, so that an onlooker cannot tie connections together.
  if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION) {
    sessions_.pop_back();
    SSL_SESSION_free(session);
  }
  return ssl;
}

}  // namespace penstock
