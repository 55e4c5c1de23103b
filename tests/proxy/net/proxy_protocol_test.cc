#include "proxy/net/proxy_protocol.h"

#include <gtest/gtest.h>

#include "tests/fuzz/proxy_protocol_target.h"
#include "tests/support/corpus.h"
#include "tests/support/mutate.h"
#include "tests/support/proxy_header.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

using Kind = ProxyVerdict::Kind;

// The client of a header, "local" where it names none, "bad", or "more"; the same
// with more bytes behind it.
std::string Read(std::string_view bytes) {
  FuzzProxyProtocol(bytes);
  FuzzProxyProtocol(std::string(bytes) + "GET / HTTP/1.1\r\n");
  ProxyHeader header;
  const ProxyVerdict verdict = ReadProxyHeader(bytes, header);
  if (verdict.kind == Kind::kMore) return "more";
  if (verdict.kind == Kind::kBad) return verdict.why.empty() ? "no reason" : "bad";
  EXPECT_EQ(verdict.length, bytes.size());
  return header.client.empty() ? "local" : header.client + (header.tls ? " tls" : "");
}

TEST(ProxyProtocol, ALineOfTextSaysWhoTheClientIs) {
  EXPECT_EQ(Read("PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\r\n"), "10.0.0.7:4711");
  EXPECT_EQ(Read("PROXY TCP6 fd00::7 ::1 65535 0\r\n"), "[fd00::7]:65535");
  EXPECT_EQ(Read("PROXY UNKNOWN\r\n"), "local");
  EXPECT_EQ(Read("PROXY UNKNOWN whatever it is\r\n"), "local");
  const std::string longest =
      "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
      "65535 65535\r\n";
  EXPECT_EQ(Read(longest), "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
  EXPECT_EQ(Read("PROXY UNKNOWN " + std::string(91, 'x') + "\r\n"), "local");   // 107 bytes.
  EXPECT_EQ(Read("PROXY UNKNOWN " + std::string(92, 'x') + "\r\n"), "bad");
  EXPECT_EQ(Read("PROXY UNKNOWN " + std::string(200, 'x')), "bad");
}

TEST(ProxyProtocol, ALineThatIsSpeltOtherwiseIsRefused) {
  using namespace std::string_view_literals;
  for (const std::string_view line :
       {"PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\n"sv, "PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\r \n"sv,
        "PROXY TCP4  10.0.0.7 10.0.0.1 4711 80\r\n"sv, "PROXY TCP4 10.0.0.7 10.0.0.1 4711 80 \r\n"sv,
        "PROXY TCP4 10.0.0.7 10.0.0.1 4711\r\n"sv, "PROXY TCP4 10.0.0.7 10.0.0.1 04711 80\r\n"sv,
        "PROXY TCP4 10.0.0.7 10.0.0.1 65536 80\r\n"sv, "PROXY TCP4 10.0.0.7 10.0.0.1 -1 80\r\n"sv,
        "PROXY TCP4 10.0.0.07 10.0.0.1 1 80\r\n"sv, "PROXY TCP4 ::1 ::1 1 80\r\n"sv,
        "PROXY TCP6 10.0.0.7 10.0.0.1 1 80\r\n"sv, "PROXY TCP4 10.0.0.7 evil 1 80\r\n"sv,
        "PROXY TCP4 10.0.0.7\0 10.0.0.1 1 80\r\n"sv, "PROXY UDP4 10.0.0.7 10.0.0.1 1 80\r\n"sv,
        "PROXY tcp4 10.0.0.7 10.0.0.1 1 80\r\n"sv, "proxy TCP4 10.0.0.7 10.0.0.1 1 80\r\n"sv,
        "PROXY \r\n"sv, "PROXY\r\n"sv, "GET / HTTP/1.1\r\n"sv, "\x16\x03\x01\x02"sv, "\r\n\r\nGET /"sv}) {
    EXPECT_EQ(Read(line), "bad") << line;
  }
}

TEST(ProxyProtocol, ABinaryHeaderSaysItInEveryFamily) {
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses())), "10.0.0.7:4711");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x21, V6Addresses())), "[fd00::7]:4711");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x31, std::string(216, 'u'))), "local");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x12, V4Addresses())), "local");    // Datagrams.
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x00, "")), "local");
  // LOCAL: whatever stands there, it is the balancer itself.
  EXPECT_EQ(Read(BinaryProxyHeader(0x20, 0x00, "")), "local");
  EXPECT_EQ(Read(BinaryProxyHeader(0x20, 0x11, "rubbish")), "local");
}

TEST(ProxyProtocol, AnUnknownBinaryHeaderIsRefused) {
  EXPECT_EQ(Read(BinaryProxyHeader(0x11, 0x11, V4Addresses())), "bad");  // Version.
  EXPECT_EQ(Read(BinaryProxyHeader(0x22, 0x11, V4Addresses())), "bad");  // Command.
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x13, V4Addresses())), "bad");  // Protocol.
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x41, V4Addresses())), "bad");  // Family.
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses().substr(1))), "bad");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x21, V4Addresses())), "bad");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x31, std::string(215, 'u'))), "bad");
}

TEST(ProxyProtocol, ExtensionsAreSkippedWithinTheHeader) {
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x01, "h2") + Extension(0x04, "") +
                                                   Extension(0xee, "own"))),
            "10.0.0.7:4711");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + std::string("\x01\x00", 2))), "bad");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + std::string("\x01\x00\x05hell", 7))), "bad");
  const std::string most(kProxyHeaderMax - 16 - 12 - 3, 'x');
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x05, most))), "10.0.0.7:4711");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x05, most + "x"))), "bad");
}

TEST(ProxyProtocol, ATlsExtensionSaysHowTheClientSpoke) {
  const std::string plain(5, '\0');
  const std::string tls = "\x01" + std::string(4, '\0');
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x20, plain))), "10.0.0.7:4711");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x20, tls))), "10.0.0.7:4711 tls");
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x20, "\x01"))), "bad");
}

TEST(ProxyProtocol, AChecksumIsCheckedWhereItIsGiven) {
  // Made with another implementation of CRC-32C.
  const std::string right = BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x03, kRightChecksum));
  EXPECT_EQ(Read(right), "10.0.0.7:4711");
  for (size_t at = 16; at < right.size(); ++at) {
    if (at == 28) continue;  // Its type: then there is no checksum.
    std::string wrong = right;
    wrong[at] = static_cast<char>(wrong[at] ^ 1);
    EXPECT_NE(Read(wrong), "10.0.0.7:4711") << at;
  }
  EXPECT_EQ(Read(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x03, "abc"))), "bad");
}

TEST(ProxyProtocol, UntilAHeaderIsWholeMoreIsAwaited) {
  for (const std::string& header :
       {std::string("PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\r\n"), BinaryProxyHeader(0x21, 0x11, V4Addresses())}) {
    for (size_t size = 0; size < header.size(); ++size) {
      EXPECT_EQ(Read(std::string_view(header).substr(0, size)), "more") << size;
    }
  }
}

TEST(ProxyProtocol, AnyBytesGetOneVerdictHoweverTheyAreCut) {
  const std::vector<std::string> corpus = {
      "PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\r\nGET /", "PROXY TCP6 fd00::7 ::1 1 2\r\n", "PROXY UNKNOWN\r\n",
      BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x03, kRightChecksum)),
      BinaryProxyHeader(0x21, 0x21, V6Addresses() + Extension(0x20, std::string(5, '\1'))),
      BinaryProxyHeader(0x20, 0x00, "")};
  const std::vector<std::string> words = {"PROXY ", "\r\n", "TCP4 ", " ", "\x21\x11", std::string(3, '\0'),
                                          "\x03\x00\x04", std::string(60, '1'), "::", "65536"};
  ForEachInput("proxy_protocol", FuzzProxyProtocol);
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 100; ++i) FuzzProxyProtocol(Mutate(random, corpus, words));
  });
}

}  // namespace
}  // namespace penstock
