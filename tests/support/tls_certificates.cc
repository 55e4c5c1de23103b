#include "tests/support/tls_certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>

#include "proxy/base/check.h"

namespace penstock {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;

std::string TextOf(BIO* bio) {
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

std::string PemOf(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_X509(bio.get(), certificate) == 1);
  return TextOf(bio.get());
}

std::string PemOf(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  return TextOf(bio.get());
}

void Extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  CHECK(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// `issuer` null: signs itself.
Certificate Make(const CertificateWish& wish, EVP_PKEY* key, X509* issuer, EVP_PKEY* issuer_key) {
  static std::atomic<long> serial{1};
  Certificate made(X509_new());
  X509* const raw = made.get();
  X509_set_version(raw, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(raw), serial.fetch_add(1));
  X509_gmtime_adj(X509_getm_notBefore(raw), wish.from_days * 86400L);
  X509_gmtime_adj(X509_getm_notAfter(raw), wish.to_days * 86400L);
  X509_set_pubkey(raw, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(raw), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(wish.common_name.c_str()), -1, -1, 0);
  if (issuer == nullptr) issuer = raw;
  X509_set_issuer_name(raw, X509_get_subject_name(issuer));
  if (wish.authority) {
    Extend(raw, issuer, NID_basic_constraints, "critical,CA:TRUE");
    Extend(raw, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
  }
  Extend(raw, issuer, NID_subject_key_identifier, "hash");
  std::string names;
  for (const std::string& name : wish.names) names += (names.empty() ? "" : ",") + name;
  if (!names.empty()) Extend(raw, issuer, NID_subject_alt_name, names);
  CHECK(X509_sign(raw, issuer_key, EVP_sha256()) > 0);
  return made;
}

Key MakeKey() { return Key(EVP_EC_gen("P-256")); }

}  // namespace

struct TestAuthority::Keys {
  Key key;
  Certificate certificate;
};

TestAuthority::TestAuthority(std::string_view common_name, const TestAuthority* parent)
    : keys_(std::make_unique<Keys>()) {
  keys_->key = MakeKey();
  const CertificateWish wish = {.common_name = std::string(common_name), .to_days = 3650, .authority = true};
  keys_->certificate =
      Make(wish, keys_->key.get(), parent == nullptr ? nullptr : parent->keys_->certificate.get(),
           parent == nullptr ? keys_->key.get() : parent->keys_->key.get());
  pem_ = PemOf(keys_->certificate.get());
}

TestAuthority::~TestAuthority() = default;

TlsKeyPair TestAuthority::Issue(const CertificateWish& wish) const {
  const Key key = MakeKey();
  const Certificate made = Make(wish, key.get(), keys_->certificate.get(), keys_->key.get());
  return {PemOf(made.get()), PemOf(key.get())};
}

std::string Locked(std::string_view pem) {
  const Bio in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Key key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  const Bio out(BIO_new(BIO_s_mem()));
  const unsigned char phrase[] = "a passphrase";
  CHECK(PEM_write_bio_PrivateKey(out.get(), key.get(), EVP_aes_128_cbc(), phrase, 12, nullptr, nullptr) == 1);
  return TextOf(out.get());
}

TlsKeyPair SelfSigned(const CertificateWish& wish) {
  const Key key = MakeKey();
  const Certificate made = Make(wish, key.get(), nullptr, key.get());
  return {PemOf(made.get()), PemOf(key.get())};
}

}  // namespace penstock
