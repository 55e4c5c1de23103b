// What no honest peer sends, as bytes: the verdict on each, which is the same however
// the bytes were cut, and nothing of it reaches the owner.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

using h2::Fields;
using h2::Get;
using h2::Post;
using h2::With;

struct Case {
  std::string name;
  std::string bytes;   // After Hello().
  std::string want;    // See Summary().
};

// What the owner heard, then what the peer is told: "1 told end; GOAWAY last 1 code 11; error flood resets".
std::string Summary(H2Peer& peer, const std::vector<std::string>& frames) {
  std::string text;
  for (const auto& [id, heard] : peer.all()) {
    text += fmt::format("{}{}{}", id, heard.heads > 0 ? " told" : "",
                        heard.refusals > 0 ? fmt::format(" refused {}", heard.refusal.status) : "");
    if (heard.ends > 0) text += " end";
    if (heard.resets > 0) text += fmt::format(" reset {}", heard.error_code);
    text += "; ";
  }
  for (const std::string& frame : frames) {
    if (frame.starts_with("RST") || frame.starts_with("GOAWAY")) text += frame + "; ";
  }
  if (peer.wrong() > 0) text += "told out of order; ";
  if (peer.failed()) text += fmt::format("error {} {}", peer.error().code, peer.error().detail);
  return text;
}

std::string VerdictOf(CodecRole role, const CodecLimits& limits, std::string_view bytes, size_t cut,
                size_t step) {
  H2Peer peer(role, limits);
  std::string out = peer.Pump();
  if (role == CodecRole::kClient) {
    for (int i = 0; i < 2; ++i) {
      peer.codec().WriteRequest(peer.out(), {.method = "GET", .target = "/", .authority = "h"}, {});
    }
    out += peer.Pump();
  }
  out += peer.Feed(bytes.substr(0, cut));
  for (size_t at = cut; at < bytes.size(); at += std::min(step, bytes.size())) {
    out += peer.Feed(bytes.substr(at, step));
  }
  return Summary(peer, FramesOf(out, role == CodecRole::kClient));
}

// Short ones at each split; long ones at some.
void Check(CodecRole role, const Case& test, const CodecLimits& limits = {}) {
  SCOPED_TRACE(test.name);
  const std::string bytes =
      (role == CodecRole::kServer ? h2::Hello() : h2::Settings() + h2::SettingsAck()) + test.bytes;
  const std::string whole = VerdictOf(role, limits, bytes, bytes.size(), 1);
  EXPECT_EQ(whole, test.want);
  for (const size_t step : {1u, 2u, 7u, 100u}) {
    if (bytes.size() / step > 20'000) continue;
    ASSERT_EQ(VerdictOf(role, limits, bytes, 0, step), whole) << step;
  }
  for (size_t cut = 1; cut < bytes.size() && bytes.size() < 600; ++cut) {
    ASSERT_EQ(VerdictOf(role, limits, bytes, cut, SIZE_MAX), whole) << cut;
  }
}

std::string Repeat(const std::string& bytes, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += bytes;
  return out;
}

const std::string kProtocol = "error protocol_error ";

TEST(H2Hostile, AMalformedHeadEndsItsStreamAndIsNotTold) {
  const auto without = [](std::string_view name) {
    Fields fields = Get();
    std::erase_if(fields, [&](const auto& field) { return field.first == name; });
    return fields;
  };
  const auto path = [](std::string_view text) { return Get(text); };
  const std::string nul(1, '\0');
  const std::pair<std::string, Fields> heads[] = {
      {"no method", without(":method")},
      {"no scheme", without(":scheme")},
      {"no path", without(":path")},
      {"no authority and no host", without(":authority")},
      {"method twice", With(Get(), {{":method", "GET"}})},
      {"path twice", With(Get(), {{":path", "/"}})},
      {"unknown pseudo-header", With(Get(), {{":what", "x"}})},
      {"pseudo-header of an answer", With(Get(), {{":status", "200"}})},
      {"pseudo-header after a field", With({{"a", "1"}}, Get())},
      {"empty path", path("")},
      {"path without a slash", path("x")},
      {"path with NUL", path("/" + nul)},
      {"scheme with more", {{":method", "GET"}, {":scheme", "http://x/?"}, {":authority", "h"}, {":path", "/"}}},
      {"method with more", {{":method", "GET?"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}}},
      {"method with a space", {{":method", "GET /"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}}},
      {"authority with a space", {{":method", "GET"}, {":scheme", "http"}, {":authority", "h x"}, {":path", "/"}}},
      {"host twice", With(Get(), {{"host", "h"}, {"host", "h"}})},
      {"upper case", With(Get(), {{"Accept", "x"}})},
      {"empty name", With(Get(), {{"", "x"}})},
      {"name with a space", With(Get(), {{"a b", "x"}})},
      {"name with a colon", With(Get(), {{"a:b", "x"}})},
      {"name with CR", With(Get(), {{"a\r", "x"}})},
      {"value with LF", With(Get(), {{"a", "x\nEvil: 1"}})},
      {"value with CR", With(Get(), {{"a", "x\rEvil: 1"}})},
      {"value with NUL", With(Get(), {{"a", "x" + nul}})},
      {"value with leading space", With(Get(), {{"a", " x"}})},
      {"value with trailing space", With(Get(), {{"a", "x\t"}})},
      {"connection", With(Get(), {{"connection", "close"}})},
      {"keep-alive", With(Get(), {{"keep-alive", "1"}})},
      {"proxy-connection", With(Get(), {{"proxy-connection", "x"}})},
      {"transfer-encoding", With(Get(), {{"transfer-encoding", "chunked"}})},
      {"upgrade", With(Get(), {{"upgrade", "websocket"}})},
      {"te of another kind", With(Get(), {{"te", "gzip"}})},
      {"length twice", With(Get(), {{"content-length", "1"}, {"content-length", "1"}})},
      {"length that is no number", With(Get(), {{"content-length", "+1"}})},
      {"length and no body", With(Get(), {{"content-length", "1"}})},
      {"extended CONNECT",
       {{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "h"},
        {":path", "/"}}},
      {"CONNECT with a path", {{":method", "CONNECT"}, {":authority", "h:1"}, {":path", "/"}}},
  };
  for (const auto& [name, fields] : heads) {
    Check(CodecRole::kServer, {name, h2::Headers(1, fields) + h2::Headers(3, Get()),
                               "3 told end; RST_STREAM 1 code 1; "});
  }
}

TEST(H2Hostile, AMessageThatTurnsOutMalformedIsReset) {
  const Fields five = With(Post(), {{"content-length", "5"}});
  const Case cases[] = {
      {"too short", h2::Headers(1, five, 0) + h2::Data(1, "four", h2::kEndStream),
       "1 told reset 1; RST_STREAM 1 code 1; "},
      {"too long", h2::Headers(1, five, 0) + h2::Data(1, "123456"),
       "1 told reset 1; RST_STREAM 1 code 1; "},
      {"trailers with a pseudo-header",
       h2::Headers(1, Post(), 0) + h2::Headers(1, {{":path", "/"}}),
       "1 told reset 1; RST_STREAM 1 code 1; "},
      {"trailers that do not end it", h2::Headers(1, Post(), 0) + h2::Headers(1, {{"a", "1"}}, 0),
       "1 told reset 1; RST_STREAM 1 code 1; "},
      {"window update of nothing", h2::Headers(1, Post(), 0) + h2::WindowUpdate(1, 0),
       "1 told; GOAWAY last 1 code 1; error protocol_error "},
      {"window beyond 2^31-1", h2::Headers(1, Post(), 0) + h2::WindowUpdate(1, 0x7fff'ffff),
       "1 told reset 3; RST_STREAM 1 code 3; "},
      {"data after a reset", h2::Headers(1, Post(), 0) + h2::Data(1, "a") + h2::Reset(1, 8) +
                                 h2::Data(1, "b") + h2::Headers(3, Get()),
       "1 told reset 8; GOAWAY last 1 code 5; error stream_closed "},
  };
  for (const Case& test : cases) Check(CodecRole::kServer, test);
}

TEST(H2Hostile, AFrameThatBreaksTheRulesEndsTheConnection) {
  const std::string open = h2::Headers(1, Post(), 0);
  const auto goaway = [](int last, int code, std::string_view error) {
    return fmt::format("{}GOAWAY last {} code {}; error {} ", last > 0 ? "1 told; " : "", last, code,
                       error);
  };
  const Case cases[] = {
      {"window of the connection: nothing", h2::WindowUpdate(0, 0), goaway(0, 1, "protocol_error")},
      {"window of the connection: too much", h2::WindowUpdate(0, 0x7fff'ffff),
       goaway(0, 3, "flow_control_error")},
      {"even stream", h2::Headers(2, Get()), goaway(0, 1, "protocol_error")},
      {"stream 0", h2::Headers(0, Get()), goaway(0, 1, "protocol_error")},
      {"data of an idle stream", h2::Data(1, "x"), goaway(0, 1, "protocol_error")},
      {"data of stream 0", h2::Data(0, "x"), goaway(0, 1, "protocol_error")},
      {"reset of an idle stream", h2::Reset(1, 8), goaway(0, 1, "protocol_error")},
      {"window of an idle stream", h2::WindowUpdate(1, 1), goaway(0, 1, "protocol_error")},
      {"too large", open + h2::Data(1, std::string(16385, 'x')), goaway(1, 6, "frame_size_error")},
      {"settings of 5 bytes", h2::Frame(4, 0, 0, "12345"), goaway(0, 6, "frame_size_error")},
      {"settings of a stream", h2::Frame(4, 0, 1, ""), goaway(0, 1, "protocol_error")},
      {"acknowledgement with settings", h2::Frame(4, h2::kAck, 0, "123456"),
       goaway(0, 6, "frame_size_error")},
      {"acknowledgement of nothing", h2::SettingsAck(), goaway(0, 1, "protocol_error")},
      {"window setting beyond 2^31-1", h2::Settings({{4, 0x8000'0000}}),
       goaway(0, 3, "flow_control_error")},
      {"frame size setting too small", h2::Settings({{5, 16383}}), goaway(0, 1, "protocol_error")},
      {"push setting of 2", h2::Settings({{2, 2}}), goaway(0, 1, "protocol_error")},
      {"ping of 7 bytes", h2::Frame(6, 0, 0, "1234567"), goaway(0, 6, "frame_size_error")},
      {"reset of 3 bytes", open + h2::Frame(3, 0, 1, "123"), goaway(1, 6, "frame_size_error")},
      {"priority of 4 bytes", open + h2::Frame(2, 0, 1, "1234"), goaway(1, 6, "frame_size_error")},
      {"stream that depends on itself", h2::Frame(2, 0, 1, h2::Number(1, 4) + "x"),
       goaway(0, 1, "protocol_error")},
      {"padding as long as the frame", open + h2::Frame(0, h2::kPadded, 1, "\4xxx"),
       goaway(1, 1, "protocol_error")},
      {"push from a client", open + h2::Frame(5, h2::kEndHeaders, 1, h2::Number(2, 4)),
       goaway(1, 1, "protocol_error")},
      {"continuation of nothing", open + h2::Frame(9, h2::kEndHeaders, 1, "x"),
       goaway(1, 1, "protocol_error")},
      {"a block that something interrupts", h2::Frame(1, 0, 1, h2::Block(Get())) + h2::Ping(),
       "GOAWAY last 1 code 1; error protocol_error "},
      {"HPACK: index 0", h2::Frame(1, h2::kEndHeaders, 1, "\x80"),
       "GOAWAY last 1 code 9; error compression_error "},
      {"HPACK: index beyond the table", h2::Frame(1, h2::kEndHeaders, 1, "\xff\x20"),
       "GOAWAY last 1 code 9; error compression_error "},
      {"HPACK: table larger than allowed",
       h2::Frame(1, h2::kEndHeaders, 1, h2::Integer(0x20, 5, 4097) + h2::Block(Get())),
       "GOAWAY last 1 code 9; error compression_error "},
      {"HPACK: integer without end",
       h2::Frame(1, h2::kEndHeaders, 1, "\x7f" + std::string(10, '\xff') + "\x01"),
       "GOAWAY last 1 code 9; error compression_error "},
      {"HPACK: Huffman code padded with zeros",
       h2::Frame(1, h2::kEndHeaders, 1, std::string("\x44\x82\x63\x00", 4)),
       "GOAWAY last 1 code 9; error compression_error "},
      {"HPACK: text longer than the block", h2::Frame(1, h2::kEndHeaders, 1, std::string("\0\5ab", 4)),
       "GOAWAY last 1 code 9; error compression_error "},
  };
  for (const Case& test : cases) Check(CodecRole::kServer, test);
}

TEST(H2Hostile, StreamIdsOnlyGrow) {
  Check(CodecRole::kServer, {"used again while it is open",
                             h2::Headers(5, Get()) + h2::Headers(5, Get()),
                             "5 told end; GOAWAY last 5 code 5; error stream_closed "});
  Check(CodecRole::kServer, {"data after the end", h2::Headers(5, Get()) + h2::Data(5, "x"),
                             "5 told end; GOAWAY last 5 code 5; error stream_closed "});
  // One that was left out is closed with the next (RFC 9113 5.1.1).
  Check(CodecRole::kServer, {"smaller", h2::Headers(5, Get()) + h2::Headers(3, Get()),
                             "5 told end; GOAWAY last 5 code 5; error stream_closed "});
}

TEST(H2Hostile, ThePrefaceIsLookedAt) {
  for (const std::string bytes : {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"}) {
    for (const size_t step : {1u, 5u, 1000u}) {
      EXPECT_EQ(VerdictOf(CodecRole::kServer, {}, bytes, 0, step),
                "GOAWAY last 0 code 1; error invalid_preface ");
    }
  }
  EXPECT_EQ(VerdictOf(CodecRole::kServer, {}, std::string(h2::kPreface) + h2::Ping(), 0, 1),
            "GOAWAY last 0 code 1; error protocol_error ");
}

TEST(H2Hostile, FloodsEndTheConnectionWithTheirWord) {
  const auto flood = [](std::string_view word) {
    return fmt::format("GOAWAY last 0 code 11; error flood {}", word);
  };
  std::vector<std::pair<uint16_t, uint32_t>> many(33, {4, 65535});
  const Case cases[] = {
      {"continuations", h2::Frame(1, 0, 1, "") + Repeat(h2::Frame(9, 0, 1, h2::Literal("a", "b")), 9),
       "GOAWAY last 1 code 11; error flood continuations"},
      {"empty continuations", h2::Frame(1, 0, 1, "") + h2::Frame(9, 0, 1, ""),
       "GOAWAY last 1 code 11; error flood empty_frames"},
      {"empty data", h2::Headers(1, Post(), 0) + Repeat(h2::Data(1, ""), 2),
       "1 told; GOAWAY last 1 code 11; error flood empty_frames"},
      {"settings with many entries", h2::Settings(many), flood("settings")},
      {"priorities", Repeat(h2::Frame(2, 0, 3, h2::Number(0, 4) + "x"), 101), flood("priorities")},
      {"priority updates", Repeat(h2::Frame(16, 0, 0, h2::Number(1, 4) + "u=1"), 101),
       flood("priorities")},
      {"window updates", Repeat(h2::WindowUpdate(0, 1), 6), flood("window_updates")},
      {"unknown frames", Repeat(h2::Frame(0xfa, 0xff, 7, ""), 10'001), flood("glitches")},
      {"pings that are answered", Repeat(h2::Frame(6, h2::kAck, 0, "12345678"), 10'001),
       flood("glitches")},
  };
  for (const Case& test : cases) Check(CodecRole::kServer, test);
}

TEST(H2Hostile, TheOwnerHearsOnceThatAFloodIsNear) {
  for (const CodecRole role : {CodecRole::kServer, CodecRole::kClient}) {
    H2Peer peer(role);
    peer.Feed(role == CodecRole::kServer ? h2::Hello() : h2::Settings() + h2::SettingsAck());
    const std::string odd = Repeat(h2::Frame(0xfa, 0, 0, ""), 100);
    for (int i = 0; i < 74; ++i) peer.Feed(odd);
    EXPECT_EQ(peer.near_floods(), 0);
    for (int i = 0; i < 20; ++i) peer.Feed(odd);
    EXPECT_EQ(peer.near_floods(), 1);
    EXPECT_FALSE(peer.failed());
    for (int i = 0; i < 10; ++i) peer.Feed(odd);
    EXPECT_EQ(peer.near_floods(), 1);
    EXPECT_EQ(peer.error().detail, "glitches");
  }
  // All of it in one read: the connection just ends.
  H2Peer peer(CodecRole::kServer);
  peer.Feed(h2::Hello() + Repeat(h2::Frame(0xfa, 0, 0, ""), 10'001));
  EXPECT_EQ(peer.near_floods(), 0);
  EXPECT_EQ(peer.error().detail, "glitches");
}

TEST(H2Hostile, ResetsThatWeAreMadeToSendBringAFloodNearToo) {
  H2Peer server(CodecRole::kServer);
  server.Feed(h2::Hello());
  for (uint32_t i = 0; i < 150; ++i) {
    EXPECT_EQ(server.near_floods(), 0) << i;
    server.Feed(h2::Headers(2 * i + 1, With(Get(), {{"A", "1"}})));
  }
  EXPECT_EQ(server.near_floods(), 1);
}

TEST(H2Hostile, AcknowledgementsThatNobodyReadsHaveALimit) {
  for (const std::string& frame : {h2::Ping(), h2::Settings()}) {
    H2Peer server(CodecRole::kServer);
    server.Feed(h2::Hello());
    for (int i = 0; i < 1000; ++i) server.codec().Feed(frame);   // Never pumped.
    EXPECT_FALSE(server.failed());
    server.codec().Feed(frame);
    EXPECT_EQ(server.error().detail, "control_frames");
    EXPECT_EQ(FramesOf(server.Pump()).back(), "GOAWAY last 0 code 11");
  }
}

TEST(H2Hostile, FramesThatNobodyTakesHaveALimit) {
  CodecLimits limits;
  limits.h2.outbound_frames = 100;
  H2Peer server(CodecRole::kServer, limits);
  server.Feed(h2::Hello());
  for (int i = 0; i < 150 && !server.failed(); ++i) {
    server.codec().Feed(h2::Ping());
    server.codec().Pump(server.out());   // And not taken.
  }
  EXPECT_EQ(server.error().detail, "outbound_frames");
}

TEST(H2Hostile, ARapidResetStartsLittleWorkHoweverItComes) {
  for (const size_t step : {1u, 40u, 1000u, 100'000u}) {
    H2Peer server(CodecRole::kServer);
    std::string bytes = h2::Hello();
    for (uint32_t i = 0; i < 5000; ++i) {
      bytes += h2::Headers(2 * i + 1, Get()) + h2::Reset(2 * i + 1, kCancel);
    }
    std::string out;
    for (size_t at = 0; at < bytes.size() && !server.failed(); at += step) {
      out += server.Feed(std::string_view(bytes).substr(at, step));
    }
    EXPECT_EQ(server.error().detail, "resets");
    EXPECT_EQ(FramesOf(out).back(), "GOAWAY last 401 code 11");
    EXPECT_LE(server.all().size(), 201u);
    for (const auto& [id, heard] : server.all()) EXPECT_LE(heard.resets, 1);
  }
}

TEST(H2Hostile, WhatCameBeforeAFloodIsToldAlthoughItsOwnerWritesMeanwhile) {
  H2Peer server(CodecRole::kServer);
  server.on_request = [&](MessageId id) {
    ResponseHead head;
    head.status = 204;
    server.codec().WriteResponse(server.out(), id, head, {});
  };
  server.Feed(h2::Hello() + h2::Headers(1, Get()) + h2::Headers(3, Get()) +
              Repeat(h2::WindowUpdate(0, 1), 100));
  EXPECT_EQ(server.all().size(), 2u);
  EXPECT_EQ(server.error().detail, "window_updates");
}

TEST(H2Hostile, ResetsThatWeAreMadeToSendCountToo) {
  const auto twice = [](uint32_t id) {
    return h2::Headers(id, With(Post(), {{"content-length", "1"}}), 0) + h2::Data(id, "22");
  };
  const auto overflow = [](uint32_t id) {
    return h2::Headers(id, Post(), 0) + h2::WindowUpdate(id, 0x7fff'ffff);
  };
  const auto malformed = [](uint32_t id) { return h2::Headers(id, With(Get(), {{"A", "1"}})); };
  const auto trailers = [](uint32_t id) {
    return h2::Headers(id, Post(), 0) + h2::Headers(id, {{":path", "/"}});
  };
  const std::function<std::string(uint32_t)> primitives[] = {twice, overflow, malformed, trailers};
  for (const auto& primitive : primitives) {
    H2Peer server(CodecRole::kServer);
    std::string out = server.Feed(h2::Hello());
    uint32_t count = 0;
    for (; count < 1000 && !server.failed(); ++count) out = server.Feed(primitive(2 * count + 1));
    EXPECT_EQ(count, 201u);
    EXPECT_EQ(server.error().detail, "resets");
    EXPECT_TRUE(FramesOf(out).back().ends_with("code 11"));
  }
}

TEST(H2Hostile, ResetsAtAHumanPaceAreFine) {
  H2Peer server(CodecRole::kServer);
  server.Feed(h2::Hello());
  for (uint32_t i = 0; i < 2000; ++i) {
    server.codec().SetNow(i * (kSecond / 10));
    server.Feed(h2::Headers(2 * i + 1, Get()) + h2::Reset(2 * i + 1, kCancel));
  }
  EXPECT_FALSE(server.failed());
}

TEST(H2Hostile, ABombOfHeaderFieldsIsRefusedOrEndsTheConnection) {
  // One entry of the table, and then nothing but references to it.
  const auto bomb = [](std::string_view value, int references) {
    return h2::Block(Get()) + '\x40' + h2::Text("x") + h2::Text(value) +
           std::string(static_cast<size_t>(references), '\xbe');
  };
  Check(CodecRole::kServer, {"many", h2::Frame(1, h2::kEndHeaders | h2::kEndStream, 1, bomb("", 5000)),
                             "1 refused 431; "});
  Check(CodecRole::kServer,
        {"very many", h2::Frame(1, h2::kEndHeaders | h2::kEndStream, 1, bomb("", 12'000)),
         "GOAWAY last 1 code 11; error flood glitches"});
  Check(CodecRole::kServer,
        {"large", h2::Frame(1, h2::kEndHeaders | h2::kEndStream, 1, bomb(std::string(4000, 'v'), 20)),
         "1 refused 431; "});
}

TEST(H2Hostile, MoreStreamsThanAnnouncedAreRefused) {
  CodecLimits limits;
  limits.h2.concurrent_streams = 2;
  std::string bytes = std::string(h2::kPreface) + h2::Settings();
  for (const uint32_t id : {1u, 3u, 5u}) bytes += h2::Headers(id, Get());
  EXPECT_EQ(VerdictOf(CodecRole::kServer, limits, bytes, 0, SIZE_MAX),
            "1 told end; 3 told end; RST_STREAM 5 code 7; ");
  // Whoever has acknowledged the limit knows better.
  bytes.insert(h2::kPreface.size() + 9, h2::SettingsAck());
  EXPECT_EQ(VerdictOf(CodecRole::kServer, limits, bytes, 0, SIZE_MAX),
            "1 told end; 3 told end; GOAWAY last 3 code 1; error protocol_error ");
}

TEST(H2Hostile, ABackendIsHeldToTheSameLimits) {
  const Fields ok = {{":status", "200"}};
  const std::string refused = "1 reset 7; 3 reset 7; ";
  const Case cases[] = {
      {"an answer", h2::Headers(1, ok), "1 told end; "},
      {"no status", h2::Headers(1, {{"a", "1"}}), "1 reset 1; RST_STREAM 1 code 1; "},
      {"status 101", h2::Headers(1, {{":status", "101"}}), "1 reset 1; RST_STREAM 1 code 1; "},
      {"status of four digits", h2::Headers(1, {{":status", "2000"}}), "1 reset 1; RST_STREAM 1 code 1; "},
      {"status below 100", h2::Headers(1, {{":status", "099"}}), "1 reset 1; RST_STREAM 1 code 1; "},
      {"pseudo-header of a request", h2::Headers(1, With(ok, {{":path", "/"}})),
       "1 reset 1; RST_STREAM 1 code 1; "},
      {"value with LF", h2::Headers(1, With(ok, {{"a", "b\nc"}})), "1 reset 1; RST_STREAM 1 code 1; "},
      {"connection", h2::Headers(1, With(ok, {{"connection", "x"}})), "1 reset 1; RST_STREAM 1 code 1; "},
      {"body before a head", h2::Data(1, "x"), "GOAWAY last 0 code 1; error protocol_error "},
      {"too short", h2::Headers(1, With(ok, {{"content-length", "5"}}), 0) + h2::Data(1, "x", 1),
       "1 told reset 1; RST_STREAM 1 code 1; "},
      {"interim without end", Repeat(h2::Headers(1, {{":status", "103"}}, 0), 9),
       "1 reset 11; RST_STREAM 1 code 11; "},
      {"too many fields", h2::Headers(1, With(ok, Fields(101, {"a", "b"}))),
       "1 reset 11; RST_STREAM 1 code 11; "},
      {"an answer to nothing", h2::Headers(5, ok), "GOAWAY last 0 code 1; error protocol_error "},
      {"a push", h2::Frame(5, h2::kEndHeaders, 1, h2::Number(2, 4) + h2::Block(Get())),
       "GOAWAY last 0 code 1; error protocol_error "},
      {"goaway before all", h2::GoAway(0, 0), refused},
      {"goaway after the first", h2::GoAway(1, 0) + h2::Headers(1, ok), "1 told end; 3 reset 7; "},
      {"pings", Repeat(h2::Frame(6, h2::kAck, 0, "12345678"), 10'001),
       "GOAWAY last 0 code 11; error flood glitches"},
      {"continuations", h2::Frame(1, 0, 1, "\x88") + Repeat(h2::Frame(9, 0, 1, h2::Literal("a", "b")), 9),
       "GOAWAY last 0 code 11; error flood continuations"},
  };
  for (const Case& test : cases) Check(CodecRole::kClient, test);
}

}  // namespace
}  // namespace penstock
