#include "proxy/net/tls_server_context.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "tests/support/tls_world.h"

namespace penstock {
namespace {

struct Ended {
  bool resumed = false;
  std::string session;
  std::optional<TlsFailure> failure;
  std::string why;
  std::string subject;               // What the client was shown.
  TlsInfo info;
};

// One connection from its hello to its end.
Ended Connect(const std::shared_ptr<const TlsServerContext>& context, const TlsPeerWish& wish) {
  TlsWorld w(context, wish);
  w.Run();
  Ended out;
  out.failure = w.end.failure;
  out.why = w.end.why;
  if (w.end.failure.has_value()) return out;
  w.end.stream->Write("hello");
  w.Run();
  EXPECT_EQ(w.peer->received, "hello");
  out.session = w.peer->session();
  out.subject = w.peer->subject();
  out.info = *w.end.stream->tls();
  out.resumed = w.peer->resumed();
  EXPECT_EQ(out.resumed, out.info.resumed);
  w.peer->Close();
  w.Run();
  return out;
}

TlsKeyPair Pair(const CertificateWish& wish) { return Authority().Issue(wish); }

TlsServerSettings Three() {
  return {.certificates = {Pair({.common_name = "first", .names = {"DNS:a.example", "DNS:*.pool.example"}}),
                           Pair({.common_name = "second", .names = {"DNS:B.example", "DNS:x.pool.example"}}),
                           Pair({.common_name = "c.example"})}};
}

TEST(TlsServerContext, ChoosesTheCertificateByTheNameAskedFor) {
  TlsServerSettings settings = Three();
  const auto lenient = ServerContext(settings);
  settings.require_sni = true;
  const auto strict = ServerContext(settings);
  struct Case {
    std::string_view name;
    int lenient, strict;
  };
  const Case cases[] = {
      {"a.example", 0, 0},          {"b.example", 1, 1},        {"c.example", 2, 2},
      {"y.pool.example", 0, 0},     {"x.pool.example", 1, 1},   // The exact name wins.
      {"y.x.pool.example", 0, -1},  {"pool.example", 0, -1},    // One label, no more and no less.
      {".pool.example", 0, -1},     {"*.pool.example", 0, 0},   {"d.example", 0, -1},
      {"example", 0, -1},           {"", 0, -1},                {"first", 0, -1},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(lenient->Choose(one.name), one.lenient) << one.name;
    EXPECT_EQ(strict->Choose(one.name), one.strict) << one.name;
  }
}

TEST(TlsServerContext, AWildcardNeedsItsWholeLabelAndTwoMore) {
  TlsServerSettings settings = {
      .certificates = {Pair({.common_name = "x", .names = {"DNS:*.example", "DNS:f*.a.example", "DNS:*.*.example"}})},
      .require_sni = true};
  const auto context = ServerContext(settings);
  for (const std::string_view name : {"a.example", "foo.a.example", "b.c.example"}) {
    EXPECT_EQ(context->Choose(name), -1) << name;
  }
}

TEST(TlsServerContext, ShowsTheCertificateThatItChose) {
  TlsServerSettings settings = Three();
  const auto context = ServerContext(settings);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_EQ(Connect(context, {.server_name = "B.EXAMPLE", .highest = version}).subject, "/CN=second");
    EXPECT_EQ(Connect(context, {.server_name = "c.example", .highest = version}).subject, "/CN=c.example");
    EXPECT_EQ(Connect(context, {.server_name = "nobody.example", .highest = version}).subject, "/CN=first");
    EXPECT_EQ(Connect(context, {.highest = version}).subject, "/CN=first");
  }
}

TEST(TlsServerContext, RefusesAnUnknownNameWhereOneIsRequired) {
  TlsServerSettings settings = Three();
  settings.require_sni = true;
  const auto context = ServerContext(settings);
  for (const char* name : {"d.example", "", "b\xc3\xbc.example", "a example", "a.example."}) {
    EXPECT_EQ(Connect(context, {.server_name = name}).failure, TlsFailure::kName) << name;
  }
  EXPECT_FALSE(Connect(context, {.server_name = "a.example"}).failure.has_value());
}

TEST(TlsServerContext, ResumesASession) {
  const auto context = ServerContext();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsPeerWish wish = {.server_name = "chat.example", .highest = version};
    const Ended first = Connect(context, wish);
    EXPECT_FALSE(first.resumed);
    ASSERT_NE(first.session, "");
    wish.session = first.session;
    const Ended second = Connect(context, wish);
    EXPECT_TRUE(second.resumed);
    EXPECT_EQ(second.info.server_name, "chat.example");
    // Another worker's, or one made anew from the same files: the same.
    EXPECT_TRUE(Connect(ServerContext(), wish).resumed);
  }
}

TEST(TlsServerContext, ASessionIsOnlyGoodForWhatItWasMadeFor) {
  const TestAuthority others("Other Authority");
  TlsServerSettings base = ServerSettings();
  base.certificates.push_back(Pair({.common_name = "other.example"}));
  TlsServerSettings asks = base;
  asks.client_certificates = ClientCertificates::kOptional;
  asks.client_authorities = Authority().pem();
  TlsServerSettings asks_others = asks;
  asks_others.client_authorities = others.pem();
  TlsServerSettings demands = asks;
  demands.client_certificates = ClientCertificates::kRequired;
  TlsServerSettings elsewhere = base;
  elsewhere.scope = "another listener";
  TlsServerSettings renewed = base;
  renewed.certificates[0] = Pair({.common_name = "chat.example", .names = {"DNS:chat.example"}});
  const TlsKeyPair own = Pair({.common_name = "agent"});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsPeerWish wish = {.pair = own, .server_name = "chat.example", .highest = version};
    const auto session_of = [&](const TlsServerSettings& settings) {
      TlsPeerWish fresh = wish;
      fresh.session.clear();
      return Connect(ServerContext(settings), fresh).session;
    };
    wish.session = session_of(base);
    for (const TlsServerSettings* settings : {&asks, &demands, &elsewhere, &renewed}) {
      const Ended end = Connect(ServerContext(*settings), wish);
      EXPECT_FALSE(end.failure.has_value()) << end.why;
      EXPECT_FALSE(end.resumed);
    }
    // Neither under another name of the same certificate list, nor without one.
    TlsPeerWish renamed = wish;
    renamed.server_name = "other.example";
    EXPECT_FALSE(Connect(ServerContext(base), renamed).resumed);
    renamed.server_name = "";
    EXPECT_FALSE(Connect(ServerContext(base), renamed).resumed);
    // A certificate of one authority is nothing to a listener that trusts another.
    wish.session = session_of(asks);
    EXPECT_TRUE(Connect(ServerContext(asks), wish).resumed);
    EXPECT_EQ(Connect(ServerContext(asks_others), wish).failure, TlsFailure::kCertificate);
  }
}

TEST(TlsServerContext, AResumedClientIsWhoItWas) {
  TlsServerSettings settings = ServerSettings();
  settings.client_certificates = ClientCertificates::kRequired;
  settings.client_authorities = Authority().pem();
  const auto context = ServerContext(settings);
  const TlsKeyPair own = Pair({.common_name = "agent-7", .names = {"DNS:agent.example", "URI:spiffe://a/b"}});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsPeerWish wish = {.pair = own, .server_name = "chat.example", .highest = version};
    wish.session = Connect(context, wish).session;
    wish.pair = {};                  // The session stands for the certificate.
    const Ended end = Connect(context, wish);
    EXPECT_TRUE(end.resumed);
    EXPECT_TRUE(end.info.peer_verified);
    EXPECT_EQ(end.info.peer.subject, "CN=agent-7");
    EXPECT_EQ(end.info.peer.dns_names, std::vector<std::string>{"agent.example"});
    EXPECT_EQ(end.info.peer.uris, std::vector<std::string>{"spiffe://a/b"});
    EXPECT_EQ(end.info.peer.sha256.size(), 64u);
  }
}

TEST(TlsServerContext, AsksClientsForCertificatesAsFarAsItIsTold) {
  const TestAuthority others("Other Authority");
  const TlsKeyPair good = Pair({.common_name = "agent"});
  const TlsKeyPair foreign = others.Issue({.common_name = "agent"});
  const TlsKeyPair expired = Pair({.common_name = "agent", .from_days = -10, .to_days = -1});
  const TlsKeyPair self = SelfSigned({.common_name = "agent"});
  const TlsKeyPair none;
  using Mode = ClientCertificates;
  struct Case {
    Mode mode;
    const TlsKeyPair* pair;
    bool passes, verified;
  };
  const Case cases[] = {
      {Mode::kOff, &good, true, false},           {Mode::kOff, &none, true, false},
      {Mode::kOptional, &none, true, false},      {Mode::kOptional, &good, true, true},
      {Mode::kOptional, &foreign, false, false},  {Mode::kOptional, &expired, false, false},
      {Mode::kRequired, &none, false, false},     {Mode::kRequired, &good, true, true},
      {Mode::kRequired, &foreign, false, false},  {Mode::kRequired, &expired, false, false},
      {Mode::kRequired, &self, false, false},
  };
  for (const Case& one : cases) {
    TlsServerSettings settings = ServerSettings();
    settings.client_certificates = one.mode;
    settings.client_authorities = one.mode == Mode::kOff ? "" : Authority().pem();
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
      const Ended end = Connect(ServerContext(settings), {.pair = *one.pair, .highest = version});
      EXPECT_EQ(end.failure.has_value(), !one.passes) << end.why;
      EXPECT_EQ(end.failure.value_or(TlsFailure::kCertificate), TlsFailure::kCertificate) << end.why;
      EXPECT_EQ(end.info.peer_verified, one.verified);
    }
  }
}

TEST(TlsServerContext, SaysWhatIsWrongWithItsTexts) {
  const auto wrong = [](const TlsServerSettings& settings) {
    return std::string(TlsServerContext::Create(settings, SharedKeys()).status().message());
  };
  TlsServerSettings settings = ServerSettings();
  settings.certificates[0].key = Pair({.common_name = "another"}).key;
  EXPECT_NE(wrong(settings).find("mismatch"), std::string::npos) << wrong(settings);
  settings.certificates[0] = {"no PEM", "nor this"};
  EXPECT_NE(wrong(settings).find("holds no certificate"), std::string::npos);
}

}  // namespace
}  // namespace penstock
