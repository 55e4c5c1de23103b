// What must hold for any bytes given to the HTTP/1 codec, for libFuzzer
// (h1_fuzz.cc) and for the seeded run of the normal suite alike:
//  - the verdict does not depend on how the bytes were cut;
//  - a request that was accepted, forwarded as the proxy forwards it and read
//    again is the same one request, and nothing follows it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/base/check.h"
#include "proxy/http/codec.h"
#include "tests/support/codec_log.h"

namespace penstock {

// Copies each request that it hears, written as it would go to a backend.
class Forwarder final : public CodecReceiver {
 public:
  void OnRequest(MessageId, RequestHead& head) override {
    client_ = MakeH1Codec(CodecRole::kClient, ignored_, {});
    DropHopByHop(head.headers);
    head.upgrade = false;
    if (head.authority.empty()) head.authority = "backend";  // HTTP/1.0 without Host.
    kept_.push_back({std::string(head.method), std::string(head.target), {}, {}});
    id_ = client_->WriteRequest(*out_, head, {});
    Take();
  }
  void OnBody(MessageId, std::string_view data) override {
    kept_.back().body += data;
    client_->WriteBody(*out_, id_, data);
    Take();
  }
  void OnMessageEnd(MessageId, std::span<Header> trailers) override {
    client_->WriteEnd(*out_, id_, trailers);
    Take();
    whole_ = kept_.size();
  }
  void OnProtocolError(const ProtocolError&) override {}

  struct Kept {
    std::string method, target, body, written;
  };
  // Only those that were whole.
  std::vector<Kept> Requests() {
    kept_.resize(whole_);
    return kept_;
  }

 private:
  void Take() {
    for (const std::string_view piece : out_->pieces()) kept_.back().written += piece;
    out_->Clear();
  }

  CodecLog ignored_;
  std::unique_ptr<Codec> client_;
  std::unique_ptr<Gather> out_ = std::make_unique<Gather>();
  MessageId id_ = 0;
  std::vector<Kept> kept_;
  size_t whole_ = 0;
};

// For what was forwarded: it was just within the limits, and has a Host more, say.
inline CodecLimits RoomierLimits() {
  CodecLimits limits;
  limits.header_bytes += 1024;
  limits.header_count += 8;
  limits.request_line_bytes += 1024;
  return limits;
}

// Feeds all of `bytes`, `step` at a time, each request answered at once.
inline void FeedAll(Codec& codec, std::string_view bytes, size_t step, bool server) {
  std::string pending;
  while (!bytes.empty()) {
    pending += bytes.substr(0, step);
    bytes.remove_prefix(std::min(step, bytes.size()));
    while (!pending.empty()) {
      const size_t taken = codec.Feed(pending);
      CHECK(taken <= pending.size());
      pending.erase(0, taken);
      if (server) codec.NextMessage();
      if (taken == 0) break;
    }
  }
  codec.FeedEnd();
}

inline std::string VerdictOf(std::string_view bytes, size_t step, CodecRole role,
                             std::string_view method, bool upgrade) {
  CodecLog log;
  CodecLimits limits;
  limits.header_bytes = 512;
  limits.header_count = 8;
  limits.request_line_bytes = 128;
  limits.chunk_extension_bytes = 32;
  const auto codec = MakeH1Codec(role, log, limits);
  if (role == CodecRole::kClient) {
    const auto out = std::make_unique<Gather>();
    codec->WriteRequest(*out, {.method = method, .target = "/", .authority = "h", .upgrade = upgrade}, {});
  }
  FeedAll(*codec, bytes, step, role == CodecRole::kServer);
  return log.TakeText();
}

// The first byte chooses the role, what was asked, and how the bytes are cut.
inline void FuzzH1(std::string_view input) {
  if (input.empty()) return;
  const auto choice = static_cast<uint8_t>(input.front());
  const std::string_view bytes = input.substr(1);
  const CodecRole role = choice & 1 ? CodecRole::kClient : CodecRole::kServer;
  const std::string_view method = choice & 2 ? "HEAD" : "GET";
  const bool upgrade = choice >= 0xc0;
  const size_t step = 1 + (choice >> 2) % 23;
  const std::string whole = VerdictOf(bytes, bytes.size() + 1, role, method, upgrade);
  const std::string cut = VerdictOf(bytes, step, role, method, upgrade);
  if (whole != cut) {
    std::fprintf(stderr, "--- whole:\n%s\n--- in pieces of %zu:\n%s\n", whole.c_str(), step, cut.c_str());
  }
  CHECK(whole == cut);
  if (role == CodecRole::kClient) return;

  Forwarder forwarder;
  FeedAll(*MakeH1Codec(CodecRole::kServer, forwarder, {}), bytes, step, true);
  for (const Forwarder::Kept& kept : forwarder.Requests()) {
    Forwarder again;
    CodecLog log;
    FeedAll(*MakeH1Codec(CodecRole::kServer, again, RoomierLimits()), kept.written, step, true);
    FeedAll(*MakeH1Codec(CodecRole::kServer, log, RoomierLimits()), kept.written, kept.written.size(), true);
    if (log.failed() || log.requests() != 1) {
      std::fprintf(stderr, "--- read:\n%s\n--- forwarded:\n%s\n--- read again:\n%s\n",
                   std::string(bytes).c_str(), kept.written.c_str(), log.text().c_str());
    }
    CHECK(!log.failed() && log.requests() == 1);
    const std::vector<Forwarder::Kept> read = again.Requests();
    CHECK(read.size() == 1 && read[0].method == kept.method && read[0].target == kept.target);
    CHECK(read[0].body == kept.body);
  }
}

}  // namespace penstock
