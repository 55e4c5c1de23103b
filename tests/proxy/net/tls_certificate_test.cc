#include "proxy/net/tls_certificate.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "proxy/base/status.h"
#include "tests/support/tls_certificates.h"

namespace penstock {
namespace {

// Certificates are made for the day of the test; each look is so many days later.
absl::Time In(int days) { return absl::UnixEpoch() + absl::Seconds(time(nullptr)) + absl::Hours(24 * days); }

std::string All(const std::vector<CertificateProblem>& problems) {
  std::string text;
  for (const CertificateProblem& problem : problems) {
    text += problem.warning ? "warning: " : problem.of == CertificateProblem::Of::kKey ? "key: " : "certificate: ";
    text += problem.message + "\n";
  }
  return text;
}

bool Contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(TlsCertificate, ReadsNamesAndDates) {
  const TestAuthority authority;
  const TlsKeyPair pair =
      authority.Issue({.common_name = "Chat.example", .names = {"DNS:A.example", "DNS:*.b.example"}});
  const auto facts = ReadCertificate(pair.certificates);
  ASSERT_TRUE(facts.ok());
  EXPECT_EQ(facts->subject, "CN=Chat.example");
  EXPECT_EQ(facts->names, (std::vector<std::string>{"a.example", "*.b.example"}));
  EXPECT_GT(facts->not_after, In(360));
  EXPECT_LT(facts->not_after, In(370));
  EXPECT_EQ(ReadCertificate(authority.Issue({.common_name = "Chat.example"}).certificates)->names,
            std::vector<std::string>{"chat.example"});
}

TEST(TlsCertificate, AGoodPairHasNoProblems) {
  const TestAuthority root("Root");
  const TestAuthority middle("Middle", &root);
  TlsKeyPair pair = middle.Issue({.common_name = "chat.example"});
  EXPECT_EQ(All(CheckKeyPair(pair.certificates, pair.key, In(0))), "");
  pair.certificates += middle.pem();
  EXPECT_EQ(All(CheckKeyPair(pair.certificates, pair.key, In(0))), "");
  EXPECT_EQ(All(CheckAuthorities(root.pem() + middle.pem(), In(0))), "");
}

TEST(TlsCertificate, SaysWhatCannotBeUsedAndHowToMendIt) {
  const TestAuthority authority("Root");
  const TlsKeyPair pair = authority.Issue({.common_name = "chat.example"});
  const TlsKeyPair other = authority.Issue({.common_name = "other.example"});
  EXPECT_TRUE(Contains(All(CheckKeyPair(pair.certificates, other.key, In(0))),
                       "key: is not the key of CN=chat.example; these two print the same"));
  EXPECT_TRUE(Contains(All(CheckKeyPair("garbage", pair.key, In(0))), "certificate: holds no certificate in PEM form"));
  EXPECT_TRUE(Contains(All(CheckKeyPair(pair.certificates, "garbage", In(0))),
                       "key: holds no private key in PEM form"));
  EXPECT_TRUE(Contains(All(CheckKeyPair(pair.key, pair.certificates, In(0))), "holds no certificate"));
  EXPECT_TRUE(Contains(All(CheckKeyPair(authority.pem() + pair.certificates, pair.key, In(0))),
                       "certificate: the chain is out of order: the key belongs to certificate 2 (CN=chat.example)"));
  std::string cut = pair.certificates;
  cut.erase(100, 30);
  EXPECT_TRUE(Contains(All(CheckKeyPair(cut, pair.key, In(0))), "certificate: certificate 1 is damaged"));
  EXPECT_TRUE(Contains(All(CheckAuthorities("", In(0))), "certificate: holds no certificate"));
  EXPECT_TRUE(Contains(All(CheckKeyPair(pair.certificates, Locked(pair.key), In(0))),
                       "key: the key is behind a passphrase"));
}

TEST(TlsCertificate, WarnsOfWhatWillBeRefused) {
  const TestAuthority root("Root");
  const TestAuthority stranger("Stranger");
  TlsKeyPair pair = root.Issue({.common_name = "chat.example", .to_days = 30});
  const auto warnings = [&](int days) { return All(CheckKeyPair(pair.certificates, pair.key, In(days))); };
  EXPECT_EQ(warnings(0), "");
  EXPECT_TRUE(Contains(warnings(20), "warning: CN=chat.example expires on "));
  EXPECT_TRUE(Contains(warnings(20), "in 9 days: renew it") || Contains(warnings(20), "in 10 days: renew it"));
  EXPECT_TRUE(Contains(warnings(31), "warning: CN=chat.example expired on "));
  EXPECT_TRUE(Contains(warnings(-5), "warning: CN=chat.example is not valid before "));
  pair.certificates += stranger.pem();
  EXPECT_TRUE(Contains(warnings(0), "warning: the chain is out of order: certificate 2 (CN=Stranger) did not issue "
                                    "certificate 1 (CN=chat.example)"));
  EXPECT_TRUE(Contains(All(CheckAuthorities(root.pem(), In(4000))), "warning: CN=Root expired on "));
}

}  // namespace
}  // namespace penstock
