#include "proxy/http/forwarded.h"

#include <gtest/gtest.h>

#include "tests/fuzz/forwarded_target.h"
#include "tests/support/corpus.h"
#include "tests/support/mutate.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

// The hops of a field, nearest first: "for host proto by|...", or "no".
std::string Read(std::string_view value) {
  FuzzForwarded(value);
  ForwardedList list;
  if (!ReadForwarded(value, list)) return "no";
  std::string out;
  for (size_t i = 0; i < list.count; ++i) {
    const ForwardedHop& hop = list.hops[i];
    if (i > 0) out += '|';
    for (const std::string_view part : {hop.client, hop.host, hop.proto, hop.by}) {
      out += part.empty() ? "-" : std::string(part);
      out += ' ';
    }
    out.pop_back();
  }
  return out;
}

TEST(Forwarded, IsReadFromTheNearestHopOn) {
  EXPECT_EQ(Read("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60 - http 203.0.113.43");
  EXPECT_EQ(Read("For=\"[2001:db8:cafe::17]:4711\""), "[2001:db8:cafe::17]:4711 - - -");
  EXPECT_EQ(Read("for=192.0.2.43, for=198.51.100.17;HOST=\"a.b:8080\""),
            "198.51.100.17 a.b:8080 - -|192.0.2.43 - - -");
  EXPECT_EQ(Read("for=_hidden, for=_SEVKISEK ,for=unknown"), "unknown - - -|_SEVKISEK - - -|_hidden - - -");
  EXPECT_EQ(Read("for=\"_gazonk:_port\";secret=egh2;x=\"a b\""), "_gazonk:_port - - -");
  EXPECT_EQ(Read("proto=https"), "- - https -");
}

TEST(Forwarded, ThatIsNotStrictlySoIsNotBelieved) {
  for (const std::string_view value :
       {"", "for", "for=", "=a", "for=1.2.3.4;", ";for=1.2.3.4", "for=1.2.3.4,", ",for=1.2.3.4",
        "for=1.2.3.4,,for=5.6.7.8",
        "for=1.2.3.4;for=5.6.7.8", "for =1.2.3.4", "for= 1.2.3.4", "for=1.2.3.4 ;proto=http", "for=2001:db8::1",
        "for=\"[2001:db8::1\"", "for=\"[1.2.3.4]\"", "for=\"1.2.3.4", "for=1.2.3.256", "for=example.com", "for=_",
        "for=\"1.2.3.4:port\"", "for=\"1.2.3.4:123456\"", "for=\"1.2.3\\.4\"", "host=\"a@b\"", "host=\"\"", "proto=9a",
        "proto=\"http s\"", "for=\"1.2.3.4\"x", "for=1.2.3.4\x80", "for=1.2.3.4 for=5.6.7.8"}) {
    EXPECT_EQ(Read(value), "no") << value;
  }
}

TEST(Forwarded, KeepsTheNearestHopsOfALongList) {
  std::string value;
  for (int i = 0; i < 10'000; ++i) value += "for=_n" + std::to_string(i) + (i < 9999 ? "," : "");
  const std::string read = Read(value);
  EXPECT_TRUE(read.starts_with("_n9999 - - -|_n9998 "));
  EXPECT_TRUE(read.ends_with("|_n9968 - - -"));
}

TEST(Forwarded, IsWrittenSoThatItCanBeRead) {
  std::string out;
  AppendForwarded("10.0.0.7", "api:8080", "https", out);
  EXPECT_EQ(out, "for=10.0.0.7;host=\"api:8080\";proto=https");
  out.clear();
  AppendForwarded("fd00::7", "", "http", out);
  EXPECT_EQ(out, "for=\"[fd00::7]\";proto=http");
  out.clear();
  AppendForwarded("?", "", "", out);
  EXPECT_EQ(out, "for=unknown");
}

TEST(ForwardedFor, IsReadFromItsEnd) {
  std::string seen;
  ForEachFromTheEnd(" a, b ,,c,", [&](std::string_view element) {
    seen += element;
    seen += ';';
    return true;
  });
  EXPECT_EQ(seen, "c;b;a;");
}

TEST(ForwardedFor, IsCutToItsEnd) {
  EXPECT_EQ(LastElements("a, b, c", 2), "b, c");
  EXPECT_EQ(LastElements("a, b, c", 3), "a, b, c");
  EXPECT_EQ(LastElements("a, b, c", 9), "a, b, c");
  EXPECT_EQ(LastElements("a, b, c", 0), "");
  EXPECT_EQ(LastElements("", 3), "");
  std::string many;
  for (int i = 0; i < 10'000; ++i) many += "1::,";
  EXPECT_EQ(LastElements(many + "9::", 2), "1::,9::");
}

TEST(ForwardedFor, ItsAddressesMayHavePorts) {
  for (const auto& [node, ip] : {std::pair{"10.0.0.7", "10.0.0.7"}, {"10.0.0.7:80", "10.0.0.7"}, {"::1", "::1"},
                                 {"[::1]", "::1"}, {"[::1]:80", "::1"}, {"unknown", ""}, {"_x", ""}, {"[::1", ""},
                                 {"[1.2.3.4]", ""}, {"1.2.3.4:", ""}, {"1.2.3.4:x", ""}, {"a:80", ""}, {"", ""}}) {
    EXPECT_EQ(AddressOfNode(node), ip) << node;
  }
}

TEST(Forwarded, AnyBytesAreReadAsWhatTheyAreOrNotAtAll) {
  const std::vector<std::string> corpus = {"for=192.0.2.60;proto=http;by=203.0.113.43",
                                           "for=\"[2001:db8:cafe::17]:4711\";host=\"a.b:8080\", for=_hidden",
                                           "10.0.0.7, 1.2.3.4:80, [::1]:80, unknown"};
  const std::vector<std::string> words = {",", ";", "=", "\"", "\\", "for=", "[", "]", ":", " ", "_x", "unknown"};
  ForEachInput("forwarded", FuzzForwarded);
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 100; ++i) FuzzForwarded(Mutate(random, corpus, words));
  });
}

}  // namespace
}  // namespace penstock
