#include "proxy/request/forwarding.h"

#include <gtest/gtest.h>

#include "tests/support/allocations.h"

namespace penstock {
namespace {

using config::ForwardAction;

struct Field {
  std::string name, value;
};

// What a backend is told: the fields that came and stayed, a '|', the ones added.
struct Result {
  std::string text, client;
  bool taken = true, trusted = false;
};
Result Tell(const config::Forwarding& settings, const std::vector<Field>& fields,
            std::string_view peer = "10.0.0.7:4711", bool secure = false) {
  const ForwardingRules rules(settings);
  std::vector<Header> headers;
  for (const Field& field : fields) headers.push_back({field.name, field.value, LookUpHeader(field.name)});
  RequestHead head;
  head.authority = "api:8080";
  head.headers = headers;
  Forwarding forwarding;
  Result result;
  result.taken = forwarding.Read(rules, peer, secure, head);
  for (const Header& header : headers) {
    if (!header.dropped) result.text += std::string(header.name) + "=" + std::string(header.value) + " ";
  }
  result.text += '|';
  for (const Header& header : forwarding.fields()) {
    result.text += " " + std::string(header.name) + "=" + std::string(header.value);
  }
  result.client = forwarding.client();
  result.trusted = forwarding.trusted();
  return result;
}

TEST(Forwarding, TellsBackendsWhoConnectedAndHow) {
  EXPECT_EQ(Tell({}, {{"accept", "a"}}).text, "accept=a | x-forwarded-for=10.0.0.7 x-forwarded-proto=http");
  EXPECT_EQ(Tell({}, {}, "[fd00::7]:1", true).text, "| x-forwarded-for=fd00::7 x-forwarded-proto=https");
  EXPECT_EQ(Tell({}, {}).client, "10.0.0.7:4711");
}

TEST(Forwarding, WhatAClientSaysOfItsOriginIsDropped) {
  const Result result = Tell({}, {{"X-Forwarded-For", "1.1.1.1"}, {"x-forwarded-for", "2.2.2.2"},
                                  {"X-Forwarded-Proto", "https"}, {"X-Forwarded-Host", "evil"},
                                  {"Forwarded", "for=1.1.1.1"}, {"X-Forwarded-Client-Cert", "By=me"},
                                  {"X-Penstock-Anything", "1"}, {"x-penstock-backend", "b"}});
  EXPECT_EQ(result.text, "| x-forwarded-for=10.0.0.7 x-forwarded-proto=http");
  EXPECT_EQ(result.client, "10.0.0.7:4711");
  EXPECT_FALSE(result.trusted);
}

TEST(Forwarding, ATrustedPeersWordCounts) {
  config::Forwarding settings;
  settings.xff_trusted_cidrs = {"10.0.0.0/8", "fd00::/8"};
  const std::vector<Field> fields = {{"X-Forwarded-For", "6.6.6.6, 1.1.1.1"}, {"x-forwarded-for", "10.1.1.1"},
                                     {"x-forwarded-proto", "https"}, {"x-penstock-x", "1"}};
  const Result result = Tell(settings, fields);
  EXPECT_TRUE(result.trusted);
  EXPECT_EQ(result.client, "1.1.1.1");   // The nearest that is not one of ours.
  EXPECT_EQ(result.text, "x-penstock-x=1 | x-forwarded-for=6.6.6.6, 1.1.1.1, 10.1.1.1, 10.0.0.7 "
                         "x-forwarded-proto=https");
  EXPECT_EQ(Tell(settings, fields, "9.9.9.9:1").text, "| x-forwarded-for=9.9.9.9 x-forwarded-proto=http");
  EXPECT_EQ(Tell(settings, {{"x-forwarded-proto", "gopher"}}).text,
            "| x-forwarded-for=10.0.0.7 x-forwarded-proto=http");
}

TEST(Forwarding, HopsAreCountedFromTheRight) {
  const std::vector<Field> fields = {{"x-forwarded-for", "3.3.3.3, 2.2.2.2:80, [::1]:4"}};
  struct Case {
    bool remote;
    uint32_t hops;
    std::string_view client;
  };
  for (const Case& c : {Case{true, 0, "10.0.0.7:4711"}, {true, 1, "::1"}, {true, 2, "2.2.2.2"}, {true, 3, "3.3.3.3"},
                        {true, 4, "10.0.0.7:4711"}, {false, 0, "::1"}, {false, 1, "2.2.2.2"}, {false, 2, "3.3.3.3"},
                        {false, 3, "10.0.0.7:4711"}}) {
    config::Forwarding settings;
    settings.use_remote_address = c.remote;
    settings.xff_num_trusted_hops = c.hops;
    EXPECT_EQ(Tell(settings, fields).client, c.client) << c.remote << c.hops;
  }
  config::Forwarding one;
  one.xff_num_trusted_hops = 1;
  EXPECT_EQ(Tell(one, {{"x-forwarded-for", "1.1.1.1, nonsense"}}).client, "10.0.0.7:4711");
  EXPECT_EQ(Tell(one, {{"x-forwarded-for", ""}}).client, "10.0.0.7:4711");
}

TEST(Forwarding, ALongListIsCutAndNeverGrows) {
  config::Forwarding settings;
  settings.xff_num_trusted_hops = 1;
  std::string many;
  for (int i = 0; i < 10'000; ++i) many += "1::,";
  const std::string text = Tell(settings, {{"x-forwarded-for", many + "2::"}}).text;
  EXPECT_TRUE(text.ends_with("1::,2::, 10.0.0.7 x-forwarded-proto=http")) << text.size();
  EXPECT_LT(text.size(), 300u);
}

TEST(Forwarding, EachFieldIsAppendedReplacedLeftOrRemoved) {
  config::Forwarding settings;
  settings.xff_num_trusted_hops = 1;
  const std::vector<Field> fields = {{"x-forwarded-for", "1.1.1.1"}, {"x-forwarded-proto", "https"},
                                     {"x-forwarded-host", "their"}, {"forwarded", "for=1.1.1.1"}};
  const auto all = [&](ForwardAction action) {
    settings.x_forwarded_for = settings.x_forwarded_proto = action;
    settings.x_forwarded_host = settings.forwarded = action;
    return Tell(settings, fields).text;
  };
  EXPECT_EQ(all(ForwardAction::kAppend),
            "| x-forwarded-for=1.1.1.1, 10.0.0.7 x-forwarded-proto=https x-forwarded-host=their "
            "forwarded=for=1.1.1.1, for=10.0.0.7;host=\"api:8080\";proto=http");
  EXPECT_EQ(all(ForwardAction::kReplace),
            "| x-forwarded-for=1.1.1.1 x-forwarded-proto=http x-forwarded-host=api:8080 "
            "forwarded=for=1.1.1.1;host=\"api:8080\";proto=http");
  EXPECT_EQ(all(ForwardAction::kIgnore),
            "x-forwarded-for=1.1.1.1 x-forwarded-proto=https x-forwarded-host=their forwarded=for=1.1.1.1 |");
  EXPECT_EQ(all(ForwardAction::kRemove), "|");
}

TEST(Forwarding, ForwardedIsBelievedIfItIsWellFormed) {
  config::Forwarding settings;
  settings.xff_num_trusted_hops = 1;
  settings.forwarded = ForwardAction::kAppend;
  settings.x_forwarded_for = settings.x_forwarded_proto = ForwardAction::kRemove;
  const Result good = Tell(settings, {{"forwarded", "for=\"[::1]:80\""}, {"forwarded", "for=2.2.2.2"}});
  EXPECT_EQ(good.client, "2.2.2.2");
  EXPECT_EQ(good.text, "| forwarded=for=\"[::1]:80\", for=2.2.2.2, for=10.0.0.7;host=\"api:8080\";proto=http");
  const Result bad = Tell(settings, {{"forwarded", "for=2.2.2.2;;"}});
  EXPECT_EQ(bad.client, "10.0.0.7:4711");
  EXPECT_EQ(bad.text, "| forwarded=for=10.0.0.7;host=\"api:8080\";proto=http");
}

TEST(Forwarding, InternalFieldsComeOnlyFromTrustedPeers) {
  config::Forwarding settings;
  settings.internal_only_headers = {"x-tenant", "X-Envoy-*"};
  const std::vector<Field> fields = {
      {"X-Tenant", "a"}, {"x-tenants", "b"}, {"x-envoy-retry-on", "5xx"}, {"X-Env", "c"}};
  EXPECT_TRUE(Tell(settings, fields).text.starts_with("x-tenants=b X-Env=c |"));
  settings.xff_num_trusted_hops = 1;
  EXPECT_TRUE(Tell(settings, fields).text.starts_with("X-Tenant=a x-tenants=b x-envoy-retry-on=5xx X-Env=c |"));
}

TEST(Forwarding, ARequestThatComesBackIsNotTaken) {
  config::Forwarding settings;
  settings.via = "penstock-1";
  EXPECT_TRUE(Tell(settings, {{"via", "1.1 other, 1.0 penstock-10"}}).taken);
  EXPECT_TRUE(Tell(settings, {{"via", "1.1 other"}}).text.ends_with(" via=1.1 penstock-1"));
  EXPECT_TRUE(Tell(settings, {{"via", "1.1 other"}}).text.starts_with("via=1.1 other |"));
  for (const char* const via : {"1.1 penstock-1", "2 other, 1.1 Penstock-1 (comment)", "HTTP/1.1  penstock-1"}) {
    EXPECT_FALSE(Tell(settings, {{"via", via}}).taken) << via;
  }
  EXPECT_TRUE(Tell({}, {{"via", "1.1 penstock-1"}}).taken);
}

TEST(Forwarding, CostsNoAllocationForAnUsualRequest) {
  const config::Forwarding settings;
  const ForwardingRules rules(settings);
  std::array<Header, 2> headers = {{{"accept", "a", KnownHeader::kAccept}, {"x-other", "b"}}};
  RequestHead head;
  head.headers = headers;
  Forwarding forwarding;
  forwarding.Read(rules, "10.0.0.7:4711", false, head);
  const uint64_t before = AllocationCount();
  forwarding.Read(rules, "10.0.0.7:4711", false, head);
  EXPECT_EQ(AllocationCount() - before, 0u);
}

}  // namespace
}  // namespace penstock
