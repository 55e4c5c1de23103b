// What is in certificate and key files, and what is wrong with them: everything
// that can be said before anybody connects.
//
// Threads: any. Time is told.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock {

struct CertificateFacts {
  std::string subject;               // "CN=chat.example"
  std::vector<std::string> names;    // DNS names in lower case, wildcards too; else the common name.
  absl::Time not_before;
  absl::Time not_after;
  std::string sha256;
};

// Of the first certificate of a PEM text.
absl::StatusOr<CertificateFacts> ReadCertificate(std::string_view pem);

struct CertificateProblem {
  enum class Of : uint8_t { kCertificate, kKey };
  Of of = Of::kCertificate;
  std::string message;               // What, and the cure; without the file's name.
  bool warning = false;              // It can be used all the same.
};

inline constexpr absl::Duration kExpiresSoon = absl::Hours(14 * 24);

// A certificate with its chain, and the key to it. Errors: unreadable, or the key is
// another one's. Warnings: expired, soon to, not valid yet, the chain out of order.
std::vector<CertificateProblem> CheckKeyPair(std::string_view certificates, std::string_view key,
                                             absl::Time now);
// Authorities to be trusted. A warning for each that has expired.
std::vector<CertificateProblem> CheckAuthorities(std::string_view pem, absl::Time now);

}  // namespace penstock
