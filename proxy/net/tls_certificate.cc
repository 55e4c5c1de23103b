#include "proxy/net/tls_certificate.h"

#include <openssl/x509v3.h>

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "proxy/base/status.h"
#include "proxy/net/tls_openssl.h"

namespace penstock {
namespace {

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

std::string DayOf(absl::Time time) { return absl::FormatTime("%Y-%m-%d", time, absl::UTCTimeZone()); }

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string CommonNameOf(X509* certificate) {
  const X509_NAME* const subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return "";
  const ASN1_STRING* const text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

CertificateFacts FactsOf(X509* certificate) {
  CertificateFacts facts;
  PeerCertificate described = Describe(certificate);
  facts.subject = std::move(described.subject);
  facts.sha256 = std::move(described.sha256);
  for (std::string& name : described.dns_names) facts.names.push_back(Lower(std::move(name)));
  // RFC 6125 6.4.4: the common name counts only where there are no others.
  if (facts.names.empty()) {
    if (std::string name = CommonNameOf(certificate); !name.empty()) {
      facts.names.push_back(Lower(std::move(name)));
    }
  }
  facts.not_before = TimeOf(X509_get0_notBefore(certificate));
  facts.not_after = TimeOf(X509_get0_notAfter(certificate));
  return facts;
}

// "" where it is neither expired nor close to it.
std::string AgeProblem(const CertificateFacts& facts, absl::Time now) {
  if (facts.not_after <= now) {
    return fmt::format("{} expired on {}; clients refuse it: renew it", facts.subject,
                       DayOf(facts.not_after));
  }
  if (facts.not_before > now) {
    return fmt::format("{} is not valid before {}; is this machine's clock right?", facts.subject,
                       DayOf(facts.not_before));
  }
  if (facts.not_after - now < kExpiresSoon) {
    return fmt::format("{} expires on {}, in {} days: renew it", facts.subject,
                       DayOf(facts.not_after), absl::ToInt64Hours(facts.not_after - now) / 24);
  }
  return "";
}

void CheckChain(const std::vector<X509Ptr>& chain, absl::Time now,
                std::vector<CertificateProblem>& problems) {
  for (size_t i = 0; i < chain.size(); ++i) {
    if (std::string age = AgeProblem(FactsOf(chain[i].get()), now); !age.empty()) {
      problems.push_back({.message = std::move(age), .warning = true});
    }
    if (i == 0 || X509_check_issued(chain[i].get(), chain[i - 1].get()) == X509_V_OK) continue;
    problems.push_back(
        {.message = fmt::format(
             "the chain is out of order: certificate {} ({}) did not issue certificate {} ({}); "
             "begin with the server's own, then each one's issuer",
             i + 1, NameText(X509_get_subject_name(chain[i].get())), i,
             NameText(X509_get_subject_name(chain[i - 1].get()))),
         .warning = true});
  }
}

}  // namespace

absl::StatusOr<CertificateFacts> ReadCertificate(std::string_view pem) {
  const auto chain = ParseCertificates(pem);
  if (!chain.ok()) return chain.status();
  return FactsOf(chain->front().get());
}

std::vector<CertificateProblem> CheckKeyPair(std::string_view certificates, std::string_view key,
                                             absl::Time now) {
  using Of = CertificateProblem::Of;
  std::vector<CertificateProblem> problems;
  const auto chain = ParseCertificates(certificates);
  if (!chain.ok()) problems.push_back({.message = std::string(S(chain.status().message()))});
  const auto parsed_key = ParseKey(key);
  if (!parsed_key.ok()) {
    problems.push_back({.of = Of::kKey, .message = std::string(S(parsed_key.status().message()))});
  }
  if (!problems.empty()) return problems;
  X509* const leaf = chain->front().get();
  if (X509_check_private_key(leaf, parsed_key->get()) != 1) {
    TakeOpenSslError();
    // Somebody who puts the chain first has the right key for a later certificate.
    const auto owner = std::find_if(chain->begin(), chain->end(), [&](const X509Ptr& one) {
      return X509_check_private_key(one.get(), parsed_key->get()) == 1;
    });
    TakeOpenSslError();
    const std::string subject = NameText(X509_get_subject_name(leaf));
    if (owner != chain->end()) {
      problems.push_back({.message = fmt::format(
                              "the chain is out of order: the key belongs to certificate {} ({}), "
                              "which has to come first; {} comes first",
                              owner - chain->begin() + 1,
                              NameText(X509_get_subject_name(owner->get())), subject)});
    } else {
      problems.push_back({.of = Of::kKey,
                          .message = fmt::format(
                              "is not the key of {}; these two print the same for a pair: "
                              "openssl x509 -noout -pubkey -in CERT, openssl pkey -pubout -in KEY",
                              subject)});
    }
    return problems;
  }
  CheckChain(*chain, now, problems);
  // What OpenSSL itself holds against it: a key that is too short, say.
  const SslContextPtr trial = NewContext(false);
  if (const absl::Status used = UseKeyPair(trial.get(), certificates, key); !used.ok()) {
    problems.push_back({.message = fmt::format("{} cannot be used: {}",
                                               NameText(X509_get_subject_name(leaf)),
                                               S(used.message()))});
  }
  return problems;
}

std::vector<CertificateProblem> CheckAuthorities(std::string_view pem, absl::Time now) {
  std::vector<CertificateProblem> problems;
  const auto authorities = ParseCertificates(pem);
  if (!authorities.ok()) {
    problems.push_back({.message = std::string(S(authorities.status().message()))});
    return problems;
  }
  for (const X509Ptr& authority : *authorities) {
    const CertificateFacts facts = FactsOf(authority.get());
    if (facts.not_after > now) continue;
    problems.push_back({.message = fmt::format("{} expired on {}: nothing that it signed is accepted",
                                               facts.subject, DayOf(facts.not_after)),
                        .warning = true});
  }
  return problems;
}

}  // namespace penstock
