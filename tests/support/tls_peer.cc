#include "tests/support/tls_peer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "proxy/base/check.h"

namespace penstock {
namespace {

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

std::unique_ptr<BIO, Free> Reading(const std::string& text) {
  return std::unique_ptr<BIO, Free>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<std::unique_ptr<X509, Free>> Certificates(const std::string& pem) {
  std::vector<std::unique_ptr<X509, Free>> found;
  const auto text = Reading(pem);
  while (X509* const one = PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr)) found.emplace_back(one);
  return found;
}

void UsePair(SSL_CTX* context, const TlsKeyPair& pair) {
  const auto chain = Certificates(pair.certificates);
  CHECK(SSL_CTX_use_certificate(context, chain.at(0).get()) == 1);
  for (size_t i = 1; i < chain.size(); ++i) SSL_CTX_add1_chain_cert(context, chain[i].get());
  const auto text = Reading(pair.key);
  const std::unique_ptr<EVP_PKEY, Free> key(PEM_read_bio_PrivateKey(text.get(), nullptr, nullptr, nullptr));
  CHECK(SSL_CTX_use_PrivateKey(context, key.get()) == 1);
}

int ChooseFirst(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char*, unsigned,
                void* ours) {
  const auto& wire = *static_cast<const std::string*>(ours);
  *out = reinterpret_cast<const unsigned char*>(wire.data()) + 1;
  *out_size = static_cast<unsigned char>(wire[0]);
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

struct TlsPeer::Parts {
  TlsPeerWish wish;
  std::unique_ptr<SSL_CTX, Free> context;
  std::unique_ptr<SSL, Free> ssl;
  BIO* in = nullptr;                 // Owned by ssl, as is the next.
  BIO* out = nullptr;
  std::string session;
};

TlsPeer::TlsPeer(std::unique_ptr<Stream> stream, const TlsPeerWish& wish)
    : parts_(std::make_unique<Parts>()), stream_(std::move(stream)) {
  parts_->wish = wish;
  MakeContext();
  SSL* const ssl = SSL_new(parts_->context.get());
  parts_->ssl.reset(ssl);
  SSL_set_app_data(ssl, this);
  parts_->in = BIO_new(BIO_s_mem());
  parts_->out = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(parts_->in, -1);
  SSL_set_bio(ssl, parts_->in, parts_->out);
  if (wish.server) {
    SSL_set_accept_state(ssl);
  } else {
    SSL_set_connect_state(ssl);
    AskFor();
  }
  stream_->SetReceiver(this);
  stream_->Resume();
}

void TlsPeer::MakeContext() {
  const TlsPeerWish& wish = parts_->wish;
  parts_->context.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* const context = parts_->context.get();
  SSL_CTX_set_security_level(context, 0);
  SSL_CTX_set_min_proto_version(context, wish.lowest);
  SSL_CTX_set_max_proto_version(context, wish.highest);
  if (!wish.pair.certificates.empty()) UsePair(context, wish.pair);
  if (!wish.authorities.empty()) {
    for (const auto& one : Certificates(wish.authorities)) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), one.get());
    }
    const int strict = SSL_VERIFY_PEER | (wish.server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
    SSL_CTX_set_verify(context, strict, nullptr);
  }
  ERR_clear_error();
  const unsigned char scope[] = "peer";
  SSL_CTX_set_session_id_context(context, scope, sizeof(scope));
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, [](SSL* ssl, SSL_SESSION* session) {
    const std::unique_ptr<BIO, Free> text(BIO_new(BIO_s_mem()));
    PEM_write_bio_SSL_SESSION(text.get(), session);
    char* data = nullptr;
    const long size = BIO_get_mem_data(text.get(), &data);
    static_cast<TlsPeer*>(SSL_get_app_data(ssl))->parts_->session.assign(data, static_cast<size_t>(size));
    return 0;
  });
  if (wish.server && !wish.alpn.empty()) {
    SSL_CTX_set_alpn_select_cb(context, ChooseFirst, &parts_->wish.alpn);
  }
  SSL_CTX_set_msg_callback(
      context, [](int written, int, int type, const void* bytes, size_t size, SSL* ssl, void*) {
        if (written != 0 || type != SSL3_RT_ALERT || size != 2) return;
        auto& self = *static_cast<TlsPeer*>(SSL_get_app_data(ssl));
        self.alert = SSL_alert_desc_string_long(static_cast<const unsigned char*>(bytes)[1]);
      });
}

void TlsPeer::AskFor() {
  SSL* const ssl = parts_->ssl.get();
  const TlsPeerWish& wish = parts_->wish;
  if (!wish.server_name.empty()) SSL_set_tlsext_host_name(ssl, wish.server_name.c_str());
  if (!wish.alpn.empty()) {
    SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(wish.alpn.data()),
                        static_cast<unsigned>(wish.alpn.size()));
  }
  if (wish.session.empty()) return;
  const auto text = Reading(wish.session);
  SSL_SESSION* const session = PEM_read_bio_SSL_SESSION(text.get(), nullptr, nullptr, nullptr);
  CHECK(session != nullptr && SSL_set_session(ssl, session) == 1);
  SSL_SESSION_free(session);
}

TlsPeer::~TlsPeer() = default;

void TlsPeer::Start() { Turn(); }

void TlsPeer::Write(std::string_view text) {
  while (!text.empty()) {
    size_t written = 0;
    const size_t size = std::min<size_t>(text.size(), 16384);
    CHECK(SSL_write_ex(parts_->ssl.get(), text.data(), size, &written) == 1);
    text.remove_prefix(written);
  }
  Flush();
}

void TlsPeer::Close() {
  SSL_shutdown(parts_->ssl.get());
  Flush();
  stream_->Shutdown();
}

void TlsPeer::Cut() { stream_->Shutdown(); }

void TlsPeer::UpdateKeys(bool both) {
  const int kind = both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
  CHECK(SSL_key_update(parts_->ssl.get(), kind) == 1);
  SSL_do_handshake(parts_->ssl.get());
  Flush();
}

bool TlsPeer::Renegotiate() {
  if (SSL_renegotiate(parts_->ssl.get()) != 1) return false;
  SSL_do_handshake(parts_->ssl.get());
  Flush();
  return true;
}

bool TlsPeer::open() const { return SSL_is_init_finished(parts_->ssl.get()) == 1; }
bool TlsPeer::resumed() const { return SSL_session_reused(parts_->ssl.get()) == 1; }
std::string TlsPeer::version() const { return SSL_get_version(parts_->ssl.get()); }
std::string TlsPeer::session() const { return parts_->session; }

std::string TlsPeer::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(parts_->ssl.get(), &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}

std::string TlsPeer::subject() const {
  const X509* const certificate = SSL_get0_peer_certificate(parts_->ssl.get());
  if (certificate == nullptr) return "";
  char text[256];
  X509_NAME_oneline(X509_get_subject_name(certificate), text, sizeof(text));
  return text;
}

void TlsPeer::OnData(std::string_view data) {
  BIO_write(parts_->in, data.data(), static_cast<int>(data.size()));
  Turn();
}

void TlsPeer::OnStreamEnd(const absl::Status& status) {
  ended = true;
  reset = !status.ok();
}

void TlsPeer::Turn() {
  SSL* const ssl = parts_->ssl.get();
  while (error.empty() && !closed) {
    char buffer[20000];
    size_t got = 0;
    ERR_clear_error();
    const int result = open() ? SSL_read_ex(ssl, buffer, sizeof(buffer), &got) : SSL_do_handshake(ssl);
    if (result == 1) {
      received.append(buffer, got);
      if (got > 0) ++data_records;   // One call returns one record at most.
      largest_record = std::max(largest_record, got);
      continue;
    }
    const int why = SSL_get_error(ssl, result);
    if (why == SSL_ERROR_ZERO_RETURN) closed = true;
    if (why == SSL_ERROR_SSL || why == SSL_ERROR_SYSCALL) {
      const char* const reason = ERR_reason_error_string(ERR_peek_error());
      error = reason == nullptr ? "error" : reason;
    }
    break;
  }
  Flush();
}

void TlsPeer::Flush() {
  char buffer[16384];
  while (true) {
    const int size = BIO_read(parts_->out, buffer, sizeof(buffer));
    if (size <= 0) return;
    stream_->Write(std::string_view(buffer, static_cast<size_t>(size)));
  }
}

}  // namespace penstock
