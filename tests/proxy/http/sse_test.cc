#include "proxy/http/sse.h"

#include <gtest/gtest.h>

#include "proxy/base/random.h"

namespace penstock {
namespace {

// Everything a scan can say, with positions counted from the start of the stream.
struct Seen {
  size_t complete = 0;
  int events = 0;
  long first_token_end = -1;  // Where the event that carried it ended.
  bool done = false;
  bool error = false;
  size_t partial = 0;

  bool operator==(const Seen&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Seen& s) {
  return out << "complete=" << s.complete << " events=" << s.events
             << " token=" << s.first_token_end << " done=" << s.done << " error=" << s.error
             << " partial=" << s.partial;
}

Seen ScanInSteps(std::string_view stream, size_t step) {
  SseScanner scanner;
  Seen seen;
  for (size_t at = 0; at < stream.size(); at += step) {
    const std::string_view part = stream.substr(at, step);
    const SseScanner::Result result = scanner.Scan(part);
    if (result.complete > 0) seen.complete = at + result.complete;
    seen.events += result.events;
    if (result.first_token) seen.first_token_end = seen.events;
    seen.done |= result.done;
    seen.error |= result.error;
  }
  seen.partial = scanner.partial_bytes();
  EXPECT_EQ(scanner.saw_first_token(), seen.first_token_end >= 0);
  EXPECT_EQ(scanner.saw_done(), seen.done);
  EXPECT_EQ(seen.complete + seen.partial, stream.size());
  return seen;
}

// The number of the event with the first token is known only to within a scan,
// so it is compared among the small steps.
Seen Scan(std::string_view stream) {
  Seen whole = ScanInSteps(stream, stream.size() + 1);
  const Seen bytewise = ScanInSteps(stream, 1);
  EXPECT_EQ(whole.first_token_end >= 0, bytewise.first_token_end >= 0) << stream;
  whole.first_token_end = bytewise.first_token_end;
  EXPECT_EQ(whole, bytewise) << stream;
  for (size_t step = 2; step < stream.size(); ++step) {
    Seen seen = ScanInSteps(stream, step);
    seen.first_token_end = bytewise.first_token_end;
    EXPECT_EQ(seen, whole) << "in steps of " << step << ": " << stream;
  }
  return whole;
}

std::string Delta(std::string_view delta) {
  return "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":" + std::string(delta) +
         ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
}

TEST(SseScanner, AnEventIsWholeAtItsBlankLine) {
  EXPECT_EQ(Scan("data: a\n\ndata: b\n"), (Seen{.complete = 9, .events = 1, .partial = 8}));
  EXPECT_EQ(Scan("data: a\r\n\r\ndata: b\r\n\r\n"), (Seen{.complete = 22, .events = 2}));
  EXPECT_EQ(Scan("data: a\r\rdata: b\r\r"), (Seen{.complete = 18, .events = 2}));
  EXPECT_EQ(Scan(": ping\n\n"), (Seen{.complete = 8}));
  EXPECT_EQ(Scan("data: a\ndata: b\nid: 1\n\n"), (Seen{.complete = 23, .events = 1}));
}

TEST(SseScanner, TheFirstTokenIsTheFirstDeltaWithSomethingInIt) {
  const std::string role = Delta(R"({"role":"assistant","content":""})");
  for (const std::string_view delta :
       {R"({"content":"x"})", R"({"role":"assistant","content":"x"})", R"({ "content" : "\n" })",
        R"({"reasoning_content":"hm"})", R"({"content":null,"reasoning":"hm"})",
        R"({"refusal":"no"})", R"({"tool_calls":[{"index":0,"function":{"name":"f"}}]})",
        R"({"function_call":{"name":"f"}})"}) {
    const Seen seen = Scan(role + Delta(delta) + Delta(delta));
    EXPECT_EQ(seen.first_token_end, 2) << delta;
  }
  EXPECT_EQ(Scan("data: {\"choices\":[{\"text\":\"\"}]}\n\ndata: "
                 "{\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n")
                .first_token_end,
            2);
}

TEST(SseScanner, WhatOnlyLooksLikeATokenIsNone) {
  for (const std::string_view delta :
       {R"({})", R"({"content":""})", R"({"content":null})", R"({"role":"content"})",
        R"({"tool_calls":[]})", R"({"role":"\"content\":\"x"})", R"({"x":{"content":"x"}})",
        R"({"content":[]})"}) {
    EXPECT_EQ(Scan(Delta(delta)).first_token_end, -1) << delta;
  }
  for (const std::string_view line :
       {R"({"content":"x"})",
        R"({"choices":[{"logprobs":{"content":[{"token":"x"}]},"delta":{}}]})",
        R"({"usage":{"text":"x"},"choices":[]})", R"({"prompt":{"delta":{"x":1}}})",
        "delta content x", "[[[[[[[[[[[[[[[[[[[[[[[["}) {
    EXPECT_EQ(Scan("data: " + std::string(line) + "\n\n").first_token_end, -1) << line;
  }
  EXPECT_EQ(Scan(": {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n").first_token_end, -1);
}

TEST(SseScanner, DoneAndErrorsAreSeenBeforeAndAfterTheFirstToken) {
  const std::string token = Delta(R"({"content":"x"})");
  for (const std::string& before : {std::string(), token}) {
    EXPECT_TRUE(Scan(before + "data: [DONE]\n\n").done);
    EXPECT_TRUE(Scan(before + "data:[DONE]\r\n\r\n").done);
    EXPECT_TRUE(Scan(before + "data: {\"error\":{\"message\":\"m\"}}\n\n").error);
    EXPECT_TRUE(Scan(before + "data: { \"error\" : \"m\"}\n\n").error);
    EXPECT_TRUE(Scan(before + "event: error\ndata: x\n\n").error);
    EXPECT_FALSE(Scan(before + "data: {\"error\":null,\"choices\":[]}\n\n").error);
    EXPECT_FALSE(Scan(before + Delta(R"({"content":"\"error\": [DONE]"})")).error);
    EXPECT_FALSE(Scan(before + Delta(R"({"content":"data: [DONE]"})")).done);
  }
}

TEST(SseScanner, ALineWithoutEndIsCountedNotKept) {
  SseScanner scanner;
  const std::string block(64 * 1024, 'x');
  for (int i = 0; i < 100; ++i) EXPECT_EQ(scanner.Scan(block).complete, 0u);
  EXPECT_EQ(scanner.partial_bytes(), 100 * block.size());
  EXPECT_EQ(scanner.Scan("\n\n").complete, 2u);
  EXPECT_EQ(scanner.partial_bytes(), 0u);
}

TEST(SseScanner, ClearMakesItNew) {
  SseScanner scanner;
  scanner.Scan(Delta(R"({"content":"x"})") + "data: [DONE]\n\nhalf");
  scanner.Clear();
  EXPECT_FALSE(scanner.saw_first_token());
  EXPECT_FALSE(scanner.saw_done());
  EXPECT_EQ(scanner.partial_bytes(), 0u);
  EXPECT_TRUE(scanner.Scan(Delta(R"({"content":"x"})")).first_token);
}

}  // namespace
}  // namespace penstock
