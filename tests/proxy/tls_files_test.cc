#include "proxy/tls_files.h"

#include <gtest/gtest.h>

#include <ctime>

#include "config/parse.h"
#include "proxy/base/status.h"
#include "tests/support/tls_certificates.h"

namespace penstock {
namespace {

absl::Time Today(int days = 0) { return absl::FromTimeT(std::time(nullptr)) + absl::Hours(24 * days); }

constexpr std::string_view kPolicy = R"(version: v1
server:
  listeners:
    - name: public
      address: 127.0.0.1:8443
      tls:
        certificates: [{cert_file: a.crt, key_file: a.key}, {cert_file: /b.crt, key_file: /b.key}]
    - name: plain
      address: 127.0.0.1:8080
defaults:
  tls: {enabled: true, ca_file: ca.crt}
pools:
  - {name: one, backends: ["engine-1:443", "engine-2:443"]}
  - {name: two, backends: ["10.0.0.1:80"], tls: {enabled: false}}
  - {name: three, backends: ["10.0.0.1:443"], tls: {server_name: engines.example}}
)";

// Files that a test writes and reads, and a policy in /etc that names them.
struct FilesWorld {
  FilesWorld() {
    a = authority.Issue({.common_name = "a.example"});
    b = authority.Issue({.common_name = "b.example", .to_days = 90});
    Put("/etc/a", a);
    Put("/b", b);
    files["/etc/ca.crt"] = authority.pem();
    Read(kPolicy);
  }
  void Put(const std::string& path, const TlsKeyPair& pair) {
    files[path + ".crt"] = pair.certificates;
    files[path + ".key"] = pair.key;
  }
  void Read(std::string_view text) {
    parsed = config::Parse(text, "/etc/policy.yaml", {});
    ASSERT_TRUE(parsed.ok()) << parsed.Messages();
  }
  ReadFile Reader() {
    return [this](const std::string& path) -> absl::StatusOr<std::string> {
      const auto found = files.find(path);
      if (found == files.end()) return absl::NotFoundError(A("cannot read " + path + ": it is not there"));
      return found->second;
    };
  }
  std::string Check(int days = 0) {
    std::string text;
    for (const auto& one : CheckTlsFiles(*parsed.config, parsed.where, Reader(), Today(days))) {
      text += config::ToString(one) + "\n";
    }
    return text;
  }
  bool Look() { return tls.Look(Today()); }
  std::shared_ptr<const TlsServerContext> Public() { return tls.OfListener("127.0.0.1:8443"); }

  TestAuthority authority;
  TlsKeyPair a, b;
  std::map<std::string, std::string> files;
  config::ParseResult parsed;
  TlsTicketKeys keys;
  TlsFiles tls{Reader(), keys};
};

bool Contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(CheckTlsFiles, NamesThePlaceTheFileAndTheCure) {
  FilesWorld w;
  EXPECT_EQ(w.Check(), "");
  std::swap(w.files["/etc/a.key"], w.files["/b.key"]);
  EXPECT_TRUE(Contains(w.Check(), "/etc/policy.yaml:7:53: server.listeners[0].tls.certificates[0].key_file: "
                                  "a.key: is not the key of CN=a.example"))
      << w.Check();
  EXPECT_TRUE(Contains(w.Check(), "certificates[1].key_file: /b.key: is not the key of CN=b.example"));
  w.files.erase("/etc/a.crt");
  EXPECT_TRUE(Contains(w.Check(), "certificates[0].cert_file: cannot read /etc/a.crt: it is not there"));
}

TEST(CheckTlsFiles, SaysWhatDefaultsNameOnceAndWhereItStands) {
  FilesWorld w;
  w.files["/etc/ca.crt"] = "garbage";
  EXPECT_EQ(w.Check().find("defaults.tls.ca_file: ca.crt: holds no certificate"),
            w.Check().rfind("ca.crt: holds no certificate") - std::string("defaults.tls.ca_file: ").size())
      << w.Check();
  EXPECT_TRUE(Contains(FilesWorld().Check(89), "warning: server.listeners[0].tls.certificates[1].cert_file"));
}

TEST(TlsFiles, ListenersAndBackendsGetWhatThePolicySays) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  EXPECT_NE(w.Public(), nullptr);
  EXPECT_EQ(w.tls.OfListener("127.0.0.1:8080"), nullptr);
  const auto fleet = MakeFleet(std::make_shared<const config::Config>(*w.parsed.config), nullptr);
  w.tls.GiveTo(*fleet);
  EXPECT_EQ(fleet->pools[0]->backends[0]->tls()->name(), "engine-1");
  EXPECT_EQ(fleet->pools[0]->backends[1]->tls()->name(), "engine-2");
  EXPECT_EQ(fleet->pools[1]->backends[0]->tls(), nullptr);
  EXPECT_EQ(fleet->pools[2]->backends[0]->tls()->name(), "engines.example");
  ASSERT_EQ(w.tls.expiries().size(), 2u);
  EXPECT_EQ(w.tls.expiries()[1].listener, "public");
  EXPECT_EQ(w.tls.expiries()[1].name, "/b.crt");
  EXPECT_GT(w.tls.expiries()[1].not_after, Today(89));
  EXPECT_LT(w.tls.expiries()[1].not_after, Today(91));
}

TEST(TlsFiles, AChangeMakesANewContextOfThatSiteAlone) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  const auto fleet = MakeFleet(std::make_shared<const config::Config>(*w.parsed.config), nullptr);
  w.tls.GiveTo(*fleet);
  const auto before = w.Public();
  const auto target = fleet->pools[0]->backends[0]->tls();
  EXPECT_FALSE(w.Look());
  w.Put("/b", w.authority.Issue({.common_name = "b.example"}));
  EXPECT_TRUE(w.Look());
  EXPECT_NE(w.Public(), before);
  EXPECT_EQ(w.tls.accepted(), 1u);
  w.tls.GiveTo(*fleet);
  EXPECT_EQ(fleet->pools[0]->backends[0]->tls(), target);   // Its sessions stay.
  w.files["/etc/ca.crt"] += TestAuthority("Second").pem();
  EXPECT_TRUE(w.Look());
  w.tls.GiveTo(*fleet);
  EXPECT_NE(fleet->pools[0]->backends[0]->tls(), target);
}

TEST(TlsFiles, WhatDoesNotFitIsRefusedOnceAndTheOldStays) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  const auto before = w.Public();
  const TlsKeyPair next = w.authority.Issue({.common_name = "a.example"});
  w.files["/etc/a.crt"] = next.certificates;     // Half a renewal.
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(w.Look());
  EXPECT_EQ(w.Public(), before);
  EXPECT_EQ(w.tls.rejected(), 1u);
  EXPECT_FALSE(w.tls.last_ok());
  w.files.erase("/etc/a.crt");
  EXPECT_FALSE(w.Look());
  EXPECT_EQ(w.tls.rejected(), 2u);
  w.Put("/etc/a", next);                         // The other half.
  EXPECT_TRUE(w.Look());
  EXPECT_NE(w.Public(), before);
  EXPECT_TRUE(w.tls.last_ok());
  EXPECT_EQ(w.tls.accepted(), 1u);
}

TEST(TlsFiles, OldContentsThatComeBackAreNoChange) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  const auto before = w.Public();
  w.files["/etc/a.key"] = "garbage";
  EXPECT_FALSE(w.Look());
  w.files["/etc/a.key"] = w.a.key;
  EXPECT_FALSE(w.Look());
  EXPECT_TRUE(w.tls.last_ok());
  EXPECT_EQ(w.Public(), before);
}

TEST(TlsFiles, OtherProtocolsOfAListenerAreAnotherContext) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  const auto before = w.Public();
  config::Config other = *w.parsed.config;
  other.server.listeners[0].protocols = {"http1"};
  EXPECT_TRUE(w.tls.Use(other, Today()).ok());
  const auto after = w.Public();
  EXPECT_NE(after, before);
  EXPECT_TRUE(w.tls.Use(other, Today()).ok());
  EXPECT_EQ(w.Public(), after);
}

TEST(TlsFiles, APolicyThatCannotBeUsedChangesNothing) {
  FilesWorld w;
  ASSERT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  const auto before = w.Public();
  EXPECT_TRUE(w.tls.Use(*w.parsed.config, Today()).ok());
  EXPECT_EQ(w.Public(), before);                 // The same files: the same context.
  config::Config other = *w.parsed.config;
  other.server.listeners[0].tls.certificates[0].key_file = "missing.key";
  EXPECT_FALSE(w.tls.Use(other, Today()).ok());
  EXPECT_EQ(w.Public(), before);
  other.server.listeners[0].tls = {};
  EXPECT_TRUE(w.tls.Use(other, Today()).ok());
  EXPECT_EQ(w.Public(), nullptr);
}

}  // namespace
}  // namespace penstock
