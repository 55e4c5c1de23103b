#include "proxy/net/tls_openssl.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

using BioPtr = std::unique_ptr<BIO, OpenSslFree<BIO_free_all>>;

// Forward secrecy and authenticated encryption only (Mozilla's "intermediate"
// without finite-field Diffie-Hellman).
constexpr char kCiphers12[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr char kCiphers13[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr char kGroups[] = "X25519:P-256:P-384";
constexpr size_t kCertificatesMax = 1000;   // Of one file: the system's authorities are 150.

BioPtr Reading(std::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string_view View(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

// Counts the peer's key updates, each of which costs us a derivation and more.
void OnMessage(int written, int, int type, const void* bytes, size_t length, SSL* ssl, void*) {
  if (written != 0 || type != SSL3_RT_HANDSHAKE || length == 0) return;
  if (*static_cast<const unsigned char*>(bytes) == SSL3_MT_KEY_UPDATE) ++StateOf(ssl).key_updates;
}

// There is nobody to ask for a passphrase.
int NoPassphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

}  // namespace

std::string TakeOpenSslError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown error";
  const char* const reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : fmt::format("error {:x}", code);
}

absl::StatusOr<std::vector<X509Ptr>> ParseCertificates(std::string_view pem) {
  ERR_clear_error();
  const BioPtr bio = Reading(pem);
  std::vector<X509Ptr> found;
  while (X509Ptr next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    found.push_back(std::move(next));
    if (found.size() > kCertificatesMax) {
      return absl::InvalidArgumentError(
          A(fmt::format("holds more than {} certificates", kCertificatesMax)));
    }
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string error = TakeOpenSslError();
  if (at_end && !found.empty()) return found;
  if (at_end) {
    return absl::InvalidArgumentError(
        "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); from DER: "
        "openssl x509 -inform der -in FILE -out FILE.pem");
  }
  return absl::InvalidArgumentError(
      A(fmt::format("certificate {} is damaged: {}", found.size() + 1, error)));
}

absl::StatusOr<KeyPtr> ParseKey(std::string_view pem) {
  ERR_clear_error();
  const BioPtr bio = Reading(pem);
  bool asked = false;
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, &asked));
  const bool none = pem.find("PRIVATE KEY-----") == std::string_view::npos;
  const std::string error = TakeOpenSslError();
  if (key != nullptr) return key;
  if (asked) {
    return absl::InvalidArgumentError(
        "the key is behind a passphrase, which nobody is there to type; take it off: "
        "openssl pkey -in FILE -out FILE");
  }
  if (none) {
    return absl::InvalidArgumentError("holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)");
  }
  return absl::InvalidArgumentError(A(fmt::format("the private key is damaged: {}", error)));
}

std::string NameText(const X509_NAME* name) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  const char* text = nullptr;
  const long length = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<size_t>(length)};
}

std::string FingerprintOf(const X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  CHECK(X509_digest(certificate, EVP_sha256(), digest, &length) == 1);
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

PeerCertificate Describe(X509* certificate) {
  PeerCertificate out;
  out.subject = NameText(X509_get_subject_name(certificate));
  out.sha256 = FingerprintOf(certificate);
  auto* const names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    int type = 0;
    const void* const value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
    if (type == GEN_DNS) out.dns_names.emplace_back(View(static_cast<const ASN1_STRING*>(value)));
    if (type == GEN_URI) out.uris.emplace_back(View(static_cast<const ASN1_STRING*>(value)));
  }
  GENERAL_NAMES_free(names);
  return out;
}

SslContextPtr NewContext(bool only_13) {
  SslContextPtr context(SSL_CTX_new(TLS_method()));
  CHECK(context != nullptr);
  SSL_CTX* const raw = context.get();
  CHECK(SSL_CTX_set_min_proto_version(raw, only_13 ? TLS1_3_VERSION : TLS1_2_VERSION) == 1);
  CHECK(SSL_CTX_set_cipher_list(raw, kCiphers12) == 1);
  CHECK(SSL_CTX_set_ciphersuites(raw, kCiphers13) == 1);
  CHECK(SSL_CTX_set1_groups_list(raw, kGroups) == 1);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_clear_options(raw, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_LEGACY_SERVER_CONNECT);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_msg_callback(raw, OnMessage);
  return context;
}

absl::Status UseKeyPair(SSL_CTX* context, std::string_view certificates, std::string_view key) {
  const auto chain = ParseCertificates(certificates);
  if (!chain.ok()) return chain.status();
  const auto parsed_key = ParseKey(key);
  if (!parsed_key.ok()) return parsed_key.status();
  ERR_clear_error();
  bool fine = SSL_CTX_use_certificate(context, chain->front().get()) == 1;
  for (size_t i = 1; i < chain->size() && fine; ++i) {
    fine = SSL_CTX_add1_chain_cert(context, (*chain)[i].get()) == 1;
  }
  fine = fine && SSL_CTX_use_PrivateKey(context, parsed_key->get()) == 1;
  if (!fine) return absl::InvalidArgumentError(A(TakeOpenSslError()));
  return absl::OkStatus();
}

absl::Status TrustAuthorities(SSL_CTX* context, std::string_view pem) {
  const auto authorities = ParseCertificates(pem);
  if (!authorities.ok()) return authorities.status();
  X509_STORE* const store = SSL_CTX_get_cert_store(context);
  for (const X509Ptr& authority : *authorities) {
    // What OpenSSL reads of a certificate when it first looks, it reads here, once, and not
    // under a lock that the first handshakes of all threads wait for.
    X509_check_purpose(authority.get(), -1, 0);
    X509_STORE_add_cert(store, authority.get());
  }
  ERR_clear_error();
  return absl::OkStatus();
}

std::string DigestOf(std::initializer_list<std::string_view> texts) {
  std::string all;
  for (const std::string_view text : texts) all += fmt::format("{}:{};", text.size(), text);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  CHECK(EVP_Digest(all.data(), all.size(), digest, &length, EVP_sha256(), nullptr) == 1);
  return {reinterpret_cast<const char*>(digest), length};
}

std::string AlpnWire(const std::vector<std::string>& names) {
  std::string wire;
  for (const std::string& name : names) {
    CHECK(!name.empty() && name.size() < 256);
    wire += static_cast<char>(name.size());
    wire += name;
  }
  return wire;
}

}  // namespace penstock
