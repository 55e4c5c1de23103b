// What must hold for any bytes given to the HTTP/2 codec, for libFuzzer (h2_fuzz.cc)
// and for the seeded run of the normal suite alike:
//  - the verdict does not depend on how the bytes were cut;
//  - a request that was accepted, forwarded as the proxy forwards it to an HTTP/1
//    backend, is read there as the same one request, and nothing follows it;
//  - an owner that answers, pauses and resets meanwhile breaks nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>

#include "proxy/base/check.h"
#include "proxy/base/random.h"
#include "tests/fuzz/h2_forwarder.h"
#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"

namespace penstock {

inline CodecLimits FuzzLimits() {
  CodecLimits limits;
  limits.header_bytes = 1024;
  limits.header_count = 8;
  limits.request_line_bytes = 128;
  limits.h2.concurrent_streams = 20;
  limits.h2.glitch_burst = 50;
  limits.h2.reset_burst = 5;
  return limits;
}

inline void AskTwice(H2Peer& peer) {
  peer.Pump();
  for (const std::string_view method : {"GET", "HEAD"}) {
    peer.codec().WriteRequest(peer.out(), {.method = method, .target = "/", .authority = "h"}, {});
  }
}

struct H2Verdict {
  std::string error;                          // How the connection fared.
  bool goaway = false, reset = false;         // Was heard; was heard or said.
  std::map<MessageId, std::string> messages;  // What was heard of those that were not reset.
};

inline H2Verdict H2VerdictOf(std::string_view bytes, size_t step, CodecRole role) {
  H2Peer peer(role, FuzzLimits());
  if (role == CodecRole::kClient) AskTwice(peer);
  H2Verdict verdict;
  peer.Pump();
  while (!bytes.empty()) {
    for (const std::string& frame : FramesOf(peer.Feed(bytes.substr(0, step)))) {
      verdict.reset |= frame.starts_with("RST");
    }
    bytes.remove_prefix(std::min(step, bytes.size()));
  }
  CHECK(peer.wrong() == 0);
  verdict.goaway = peer.goaways() > 0;
  if (peer.failed()) {
    verdict.error = std::string(peer.error().code) + " " + std::string(peer.error().detail);
  }
  for (const auto& [id, heard] : peer.all()) {
    verdict.reset |= heard.resets > 0;
    if (heard.resets > 0) continue;
    verdict.messages[id] = heard.interim + heard.head + heard.refusal.message + heard.body +
                           (heard.ends > 0 ? "\nend " : "") + heard.trailers;
  }
  return verdict;
}

// Some frames mean one thing before a reset of ours is written and another behind it,
// and behind a GOAWAY, when nothing is open, only what comes in the same bytes is
// looked at. There the connection may fare differently and a message be missing, but
// none says something else. A flood is seen when its bytes come, and so before whatever
// is wrong with those in front of them.
inline bool Agree(const H2Verdict& a, const H2Verdict& b) {
  const bool leaving = a.goaway && b.goaway;
  const bool both = !a.error.empty() && !b.error.empty();
  const bool flooded = both && (a.error.starts_with("flood") || b.error.starts_with("flood"));
  if (a.error != b.error && !leaving && !flooded && !a.reset && !b.reset) return false;
  if (a.error.empty() && b.error.empty() && !leaving) return a.messages == b.messages;
  return std::all_of(a.messages.begin(), a.messages.end(), [&](const auto& message) {
    const auto other = b.messages.find(message.first);
    return other == b.messages.end() || other->second == message.second;
  });
}

inline void Print(const char* name, const H2Verdict& verdict) {
  std::fprintf(stderr, "--- %s: %s\n", name, verdict.error.c_str());
  for (const auto& [id, text] : verdict.messages) std::fprintf(stderr, "%u %s\n", id, text.c_str());
}

// An owner that does something at each step.
inline void DisturbH2(std::string_view bytes, size_t step, CodecRole role, uint64_t seed) {
  Random random(seed);
  H2Peer peer(role, FuzzLimits());
  if (role == CodecRole::kClient) AskTwice(peer);
  const std::string body(5000, 'b');
  ResponseHead answer;
  answer.status = 200;
  answer.framing = Framing::kChunked;
  const auto act = [&](MessageId id) {
    Codec& codec = peer.codec();
    Gather& out = peer.out();
    switch (random.Below(7)) {
      case 0: return codec.WriteReset(out, id, kCancel);
      case 1: return codec.PauseBody(id);
      case 2: return codec.ResumeBody(out, id);
      case 3: return codec.WriteEnd(out, id);
      case 4: return codec.WriteBody(out, id, body);
      case 5: return role == CodecRole::kServer ? codec.WriteResponse(out, id, answer, {}) : void();
      default: return codec.Pump(out);
    }
  };
  peer.on_request = peer.on_end = peer.on_writable = act;
  peer.on_body = [&](MessageId id, std::string_view) { act(id); };
  peer.on_reset = [&](MessageId id, uint32_t) { act(id); };
  while (!bytes.empty()) {
    peer.Feed(bytes.substr(0, step));
    bytes.remove_prefix(std::min(step, bytes.size()));
    for (const MessageId id : {1u, 3u, 5u}) act(id);
  }
  peer.codec().FeedEnd();
  peer.Pump();
  CHECK(peer.wrong() == 0);
}

// The first byte chooses the role, how the bytes are cut and whether they come
// behind the peer's usual beginning.
inline void FuzzH2(std::string_view input) {
  if (input.empty()) return;
  const auto choice = static_cast<uint8_t>(input.front());
  const CodecRole role = choice & 1 ? CodecRole::kClient : CodecRole::kServer;
  std::string bytes;
  if (choice & 2) bytes = role == CodecRole::kServer ? h2::Hello() : h2::Settings() + h2::SettingsAck();
  bytes += input.substr(1);
  const size_t step = 1 + (choice >> 2) % 23;
  const H2Verdict whole = H2VerdictOf(bytes, bytes.size() + 1, role);
  const H2Verdict cut = H2VerdictOf(bytes, step, role);
  if (!Agree(whole, cut)) {
    Print("whole", whole);
    Print("cut", cut);
  }
  CHECK(Agree(whole, cut));
  DisturbH2(bytes, step, role, choice * 256u + static_cast<uint8_t>(input.back()));
  if (role == CodecRole::kServer) CheckForwarded(bytes, step);
}

}  // namespace penstock
