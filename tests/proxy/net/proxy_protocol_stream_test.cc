#include "proxy/net/proxy_protocol_stream.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/support/memory_stream.h"
#include "tests/support/proxy_header.h"

namespace penstock {
namespace {

constexpr std::string_view kLine = "PROXY TCP4 10.0.0.7 10.0.0.1 4711 80\r\n";

class ProxyProtocolStreamTest : public ::testing::Test, public StreamReceiver {
 protected:
  void OnData(std::string_view data) override {
    if (heard.empty()) peer_at_first_byte = stream->peer();
    heard += data;
  }
  void OnStreamEnd(const absl::Status& status) override { ended = status; }
  void OnWritable() override {}

  void Run() {
    while (pair.link->Step()) {}
  }
  void Say(std::string_view bytes) {
    pair.b->Write(bytes);
    Run();
  }

  DeadlineWheel wheel{0};
  MemoryPair pair;
  std::optional<ProxyProtocolStream::Fault> fault;
  std::unique_ptr<ProxyProtocolStream> stream = [this] {
    auto made = std::make_unique<ProxyProtocolStream>(std::move(pair.a), wheel,
                                                      [this](ProxyProtocolStream::Fault f) { fault = f; });
    made->SetReceiver(this);
    made->Resume();
    return made;
  }();
  std::string heard, peer_at_first_byte;
  std::optional<absl::Status> ended;
};

TEST_F(ProxyProtocolStreamTest, TakesTheHeaderOffAtEverySplit) {
  const std::string bytes = std::string(kLine) + "hello";
  for (const char byte : bytes) Say({&byte, 1});
  EXPECT_EQ(heard, "hello");
  EXPECT_EQ(peer_at_first_byte, "10.0.0.7:4711");
  EXPECT_FALSE(ended);
}

TEST_F(ProxyProtocolStreamTest, PassesOnWhatComesWithTheHeader) {
  Say(BinaryProxyHeader(0x21, 0x11, V4Addresses()) + "hello");
  EXPECT_EQ(heard, "hello");
  Say(" again");
  EXPECT_EQ(heard, "hello again");
}

TEST_F(ProxyProtocolStreamTest, IsAsSecureAsTheBalancerSays) {
  EXPECT_FALSE(stream->secure());
  Say(BinaryProxyHeader(0x21, 0x11, V4Addresses() + Extension(0x20, std::string("\x01\0\0\0\0", 5))));
  EXPECT_TRUE(stream->secure());
}

TEST_F(ProxyProtocolStreamTest, KeepsItsOwnPeerWhereNoneIsAnnounced) {
  const std::string own(stream->peer());
  Say("PROXY UNKNOWN\r\nhello");
  EXPECT_EQ(peer_at_first_byte, own);
}

TEST_F(ProxyProtocolStreamTest, EndsAConnectionWithoutAHeader) {
  Say("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(fault, ProxyProtocolStream::Fault::kInvalid);
  ASSERT_TRUE(ended);
  EXPECT_TRUE(absl::IsInvalidArgument(*ended));
  EXPECT_EQ(heard, "");
}

TEST_F(ProxyProtocolStreamTest, EndsAConnectionWhoseHeaderComesTooSlowly) {
  for (int second = 0; second < 10; ++second) {
    Say(kLine.substr(static_cast<size_t>(second), 1));
    wheel.AdvanceTo(second * kSecond);
    EXPECT_FALSE(ended) << second;
  }
  wheel.AdvanceTo(11 * kSecond);
  EXPECT_EQ(fault, ProxyProtocolStream::Fault::kTimeout);
  EXPECT_TRUE(ended);
  Say(kLine.substr(10));
  EXPECT_EQ(heard, "");
}

TEST_F(ProxyProtocolStreamTest, HasAllTheTimeInTheWorldAfterItsHeader) {
  Say(kLine);
  wheel.AdvanceTo(100 * kSecond);
  Say("hello");
  EXPECT_EQ(heard, "hello");
  EXPECT_FALSE(ended);
}

TEST_F(ProxyProtocolStreamTest, TellsTheEndOfAClientThatLeftInTheMiddle) {
  Say(kLine.substr(0, 20));
  pair.b.reset();
  Run();
  EXPECT_TRUE(ended);
  EXPECT_FALSE(fault);
}

}  // namespace
}  // namespace penstock
