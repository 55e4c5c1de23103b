// Certificates for tests, made when they run: nothing of the kind lies in the tree.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/net/tls_server_context.h"

namespace penstock {

struct CertificateWish {
  std::string common_name;
  std::vector<std::string> names = {};   // "DNS:chat.example", "IP:127.0.0.1", "URI:spiffe://a/b"
  int from_days = -1;                    // Valid from today + ...
  int to_days = 365;
  bool authority = false;
};

// An authority that signs, or with `parent` is itself signed.
class TestAuthority {
 public:
  explicit TestAuthority(std::string_view common_name = "Test Authority",
                         const TestAuthority* parent = nullptr);
  ~TestAuthority();
  // The certificate alone; the chain is for the test to put together.
  TlsKeyPair Issue(const CertificateWish& wish) const;
  const std::string& pem() const { return pem_; }

 private:
  struct Keys;
  std::unique_ptr<Keys> keys_;
  std::string pem_;
};

// A key in PEM, put behind a passphrase.
std::string Locked(std::string_view key);

// Signed by its own key.
TlsKeyPair SelfSigned(const CertificateWish& wish);

}  // namespace penstock
