// What the policy file says of TLS, towards clients and towards backends. A part of
// config.h, with the same rules. Files are named here and read elsewhere, again and
// again: a certificate is renewed without a word in the policy file.
#pragma once

#include <string>
#include <vector>

namespace penstock::config {

// A file that a policy file names: relative paths are those of the policy's own folder.
inline std::string PathOf(const std::string& policy, const std::string& path) {
  return path.starts_with('/') ? path : policy.substr(0, policy.rfind('/') + 1) + path;
}

struct TlsCertificate {
  std::string cert_file;                     // PEM: the server's own, then each one's issuer.
  std::string key_file;                      // PEM, without a passphrase.

  bool operator==(const TlsCertificate&) const = default;
};

enum class TlsVersion { k12, k13 };
enum class ClientCertificateMode { kOff, kOptional, kRequired };

struct ListenerTls {
  std::vector<TlsCertificate> certificates;  // None: the listener speaks no TLS.
  bool require_sni = false;                  // Refuses names that no certificate has.
  TlsVersion minimum_version = TlsVersion::k12;
  std::string client_ca_file;                // Authorities of client certificates.
  ClientCertificateMode client_certificates = ClientCertificateMode::kOff;

  bool enabled() const { return !certificates.empty(); }
  bool operator==(const ListenerTls&) const = default;
};

struct BackendTls {
  bool enabled = false;
  std::string ca_file;                       // Empty: the system's authorities.
  std::string server_name;                   // Empty: the host of each backend's address.
  bool insecure_skip_verify = false;
  std::string cert_file, key_file;           // Our own, for backends that ask for one.

  bool operator==(const BackendTls&) const = default;
};

}  // namespace penstock::config
