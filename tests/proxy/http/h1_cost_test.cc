// The codec on the hot path: after the first messages nothing is allocated.
#include <gtest/gtest.h>

#include "proxy/http/codec.h"
#include "tests/support/allocations.h"

namespace penstock {
namespace {

struct Silent final : CodecReceiver {
  RequestHead* request = nullptr;
  ResponseHead* response = nullptr;
  size_t body = 0;
  void OnRequest(MessageId, RequestHead& head) override { request = &head; }
  void OnResponse(MessageId, ResponseHead& head) override { response = &head; }
  void OnBody(MessageId, std::string_view data) override { body += data.size(); }
  void OnMessageEnd(MessageId, std::span<Header>) override {}
  void OnProtocolError(const ProtocolError& error) override { FAIL() << error.message; }
};

std::string_view Joined(Gather& gather, std::string& into) {
  into.clear();
  for (const std::string_view piece : gather.pieces()) into += piece;
  gather.Clear();
  return into;
}

TEST(H1Cost, AProxiedRequestAllocatesNothingAfterWarmUp) {
  Silent client, backend;
  const auto server_side = MakeH1Codec(CodecRole::kServer, client, {});
  const auto client_side = MakeH1Codec(CodecRole::kClient, backend, {});
  auto gather = std::make_unique<Gather>();
  std::string bytes;
  bytes.reserve(4096);
  const std::string_view request =
      "POST /v1/chat/completions HTTP/1.1\r\nHost: api\r\nUser-Agent: test/1.0 (of no great length)\r\n"
      "Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"model\":\"mine\"}";
  const std::string_view answer =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
      "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
  const Header extra[] = {{"x-request-id", "0123456789abcdef", KnownHeader::kXRequestId}};
  uint64_t before = 0;
  for (int i = 0; i < 100; ++i) {
    if (i == 3) before = AllocationCount();
    server_side->Feed(request.substr(0, request.size() - 1));
    DropHopByHop(client.request->headers);
    const MessageId id = client_side->WriteRequest(*gather, *client.request, extra);
    client_side->WriteBody(*gather, id, "{\"model\":\"mine\"");
    ASSERT_TRUE(Joined(*gather, bytes).ends_with("mine\""));
    client_side->Feed(answer);
    DropHopByHop(backend.response->headers);
    server_side->WriteResponse(*gather, id, *backend.response, extra);
    server_side->WriteBody(*gather, id, "data: [DONE]\n\n");
    server_side->WriteEnd(*gather, id);
    ASSERT_TRUE(Joined(*gather, bytes).ends_with("0\r\n\r\n"));
    server_side->NextMessage();
  }
  EXPECT_EQ(AllocationCount(), before);
}

}  // namespace
}  // namespace penstock
