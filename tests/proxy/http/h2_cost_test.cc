// What HTTP/2 costs: allocations of our own for a message, and memory while a
// connection is idle. (nghttp2 allocates with malloc, which is not counted here.)
#include <gtest/gtest.h>

#include <malloc.h>

#include <algorithm>

#include "proxy/http/codec.h"
#include "tests/support/allocations.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

struct Silent final : CodecReceiver {
  std::vector<std::pair<MessageId, RequestHead*>> requests;
  size_t body = 0;
  size_t ends = 0;
  void OnRequest(MessageId id, RequestHead& head) override { requests.emplace_back(id, &head); }
  void OnBody(MessageId, std::string_view data) override { body += data.size(); }
  void OnMessageEnd(MessageId, std::span<Header>) override { ++ends; }
  void OnProtocolError(const ProtocolError& error) override { FAIL() << error.message; }
};

// Two ends of a connection, and the wires between them, all reused.
struct Line {
  Line() {
    for (std::string* const wire : {&to_server, &to_client}) wire->reserve(256 * 1024);
    asked.requests.reserve(200);
    for (int i = 0; i < 3; ++i) Carry();
  }

  static void Take(Gather& gather, std::string& wire) {
    for (const std::string_view piece : gather.pieces()) wire += piece;
    gather.Clear();
  }
  void Carry() {
    client->Pump(*gather);
    Take(*gather, to_server);
    server->Feed(to_server);
    to_server.clear();
    server->Pump(*gather);
    Take(*gather, to_client);
    client->Feed(to_client);
    to_client.clear();
  }
  // `count` requests at a time, each answered by a stream of three events.
  void Ask(int count) {
    static constexpr std::string_view kBody = "{\"model\":\"mine\",\"stream\":true}";
    Header fields[] = {{"content-type", "application/json", KnownHeader::kContentType},
                       {"user-agent", "test/1.0 (of no great length)", KnownHeader::kUserAgent},
                       {"cookie", "a=1; b=2"},
                       {"x-request-id", "0123456789abcdef", KnownHeader::kXRequestId}};
    RequestHead head;
    head.method = "POST";
    head.target = "/v1/chat/completions";
    head.authority = "api";
    head.headers = fields;
    head.framing = Framing::kLength;
    head.content_length = kBody.size();
    asked.requests.clear();
    for (int i = 0; i < count; ++i) {
      const MessageId id = client->WriteRequest(*gather, head, {});
      client->WriteBody(*gather, id, kBody);
    }
    Take(*gather, to_server);
    Carry();
    ResponseHead answer;
    answer.status = 200;
    answer.framing = Framing::kChunked;
    answer.headers = std::span(fields, 1);
    for (const auto& [id, request] : asked.requests) {
      server->WriteResponse(*gather, id, answer, {});
      for (int i = 0; i < 3; ++i) server->WriteBody(*gather, id, "data: {\"x\":1}\n\n");
      server->WriteEnd(*gather, id);
    }
    Take(*gather, to_client);
    Carry();
    Carry();
  }

  Silent asked, answered;
  std::unique_ptr<Codec> server = MakeH2Codec(CodecRole::kServer, asked, {});
  std::unique_ptr<Codec> client = MakeH2Codec(CodecRole::kClient, answered, {});
  std::unique_ptr<Gather> gather = std::make_unique<Gather>();
  std::string to_server, to_client;
};

TEST(H2Cost, AMessageAllocatesNothingOfOursAfterWarmUp) {
  Line line;
  uint64_t before = 0;
  for (int i = 0; i < 100; ++i) {
    if (i == 5) before = AllocationCount();
    line.Ask(1);
  }
  EXPECT_EQ(AllocationCount(), before);
  EXPECT_EQ(line.answered.ends, 100u);
}

TEST(H2Cost, MessagesSideBySideAllocateNothingOfOursWhileSomeStayOpen) {
  Line line;
  RequestHead head;
  head.method = "GET";
  head.target = "/";
  head.authority = "h";
  line.client->WriteRequest(*line.gather, head, {});   // Stays open.
  line.Take(*line.gather, line.to_server);
  line.Carry();
  uint64_t before = 0;
  for (int i = 0; i < 50; ++i) {
    if (i == 5) before = AllocationCount();
    line.Ask(16);
  }
  EXPECT_EQ(AllocationCount(), before);
  EXPECT_EQ(line.answered.ends, 50u * 16);
}

// An id that differs each time is never put into the peer's table, but its name is.
TEST(H2Cost, TheNameOfARequestIdIsWrittenOnceAConnection) {
  Line line;
  std::vector<size_t> sizes;
  for (const std::string_view value : {"", "0123456789abcdef", "1032547698badcfe", "fedcba9876543210"}) {
    Header id{"X-Request-Id", value, KnownHeader::kXRequestId};
    RequestHead head;
    head.method = "GET";
    head.target = "/";
    head.authority = "h";
    if (!value.empty()) head.headers = std::span(&id, 1);
    line.asked.requests.clear();
    line.client->WriteRequest(*line.gather, head, {});
    line.client->Pump(*line.gather);
    line.Take(*line.gather, line.to_server);
    sizes.push_back(line.to_server.size());
    line.Carry();
    ASSERT_EQ(line.asked.requests.size(), 1u);
    if (value.empty()) continue;
    const Header* const read = Find(line.asked.requests[0].second->headers, KnownHeader::kXRequestId);
    ASSERT_NE(read, nullptr);
    EXPECT_EQ(read->name, "x-request-id");
    EXPECT_EQ(read->value, value);
  }
  EXPECT_LE(sizes[2] + 8, sizes[1]);   // Nine bytes of Huffman and their length, for an index.
  EXPECT_EQ(sizes[3], sizes[2]);
}

// What malloc has given out; a sanitizer's does not say.
size_t InUse() { return mallinfo2().uordblks; }

TEST(H2Cost, AnIdleConnectionKeepsLittleOfABusyPast) {
  for (int i = 0; i < 2; ++i) {   // What a thread keeps for all its connections comes first.
    Line busy;
    for (int j = 0; j < 5; ++j) busy.Ask(100);
  }
  const auto fresh = [] {
    const size_t before = InUse();
    Silent silent;
    const auto codec = MakeH2Codec(CodecRole::kServer, silent, {});
    const auto gather = std::make_unique<Gather>();
    codec->Pump(*gather);
    return InUse() - before - sizeof(Gather);
  }();
  const size_t none = InUse();
  Line line;
  const size_t new_line = InUse() - none;
  for (int i = 0; i < 20; ++i) line.Ask(100);
  const size_t idle = InUse() - none;
  if (kSeedsDivisor > 1 || fresh == 0) GTEST_SKIP() << "this malloc does not tell";
  std::printf("a new codec: %zu bytes; two that were busy keep %zu more\n", fresh, idle - new_line);
  EXPECT_LT(fresh, 40'000u);                  // Of which nghttp2's frame buffer is 16 KiB.
  EXPECT_LT(idle, new_line + 2 * 16'000);     // Of which two HPACK tables are 8 KiB.
}

}  // namespace
}  // namespace penstock
