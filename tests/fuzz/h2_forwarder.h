// What an HTTP/2 request becomes on its way to an HTTP/1 backend, and what such a
// backend reads: the same one request.
#pragma once

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/check.h"
#include "tests/fuzz/h1_target.h"
#include "tests/support/h2_peer.h"

namespace penstock {

// Writes each request that it hears as it would go to an HTTP/1 backend.
class H2Forwarder final : public H2Peer {
 public:
  H2Forwarder() : H2Peer(CodecRole::kServer) {}

  struct Kept {
    std::unique_ptr<Codec> client;
    std::string method, target, body, written;
    MessageId id = 0;
    bool whole = false;
  };
  std::map<MessageId, Kept>& requests() { return kept_; }

  void OnRequest(MessageId id, RequestHead& head) override {
    Kept& kept = kept_[id];
    kept.client = MakeH1Codec(CodecRole::kClient, ignored_, {});
    kept.method = head.method;
    kept.target = head.target;
    DropHopByHop(head.headers);
    kept.id = kept.client->WriteRequest(*backend_, head, {});
    Keep(kept);
  }
  void OnBody(MessageId id, std::string_view data) override {
    Kept& kept = kept_.at(id);
    kept.body += data;
    kept.client->WriteBody(*backend_, kept.id, data);
    Keep(kept);
  }
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override {
    Kept& kept = kept_.at(id);
    kept.client->WriteEnd(*backend_, kept.id, trailers);
    Keep(kept);
    kept.whole = true;
  }
  void OnMessageReset(MessageId, uint32_t) override {}
  void OnMessageRefused(MessageId, const ProtocolError&) override {}
  void OnProtocolError(const ProtocolError&) override {}

 private:
  void Keep(Kept& kept) {
    for (const std::string_view piece : backend_->pieces()) kept.written += piece;
    backend_->Clear();
  }

  CodecLog ignored_;
  std::unique_ptr<Gather> backend_ = std::make_unique<Gather>();
  std::map<MessageId, Kept> kept_;
};

inline void CheckForwarded(std::string_view bytes, size_t step) {
  H2Forwarder forwarder;
  for (std::string_view rest = bytes; !rest.empty();) {
    forwarder.Feed(rest.substr(0, step));
    rest.remove_prefix(std::min(step, rest.size()));
  }
  for (const auto& [id, kept] : forwarder.requests()) {
    if (!kept.whole) continue;
    Forwarder again;
    CodecLog log;
    FeedAll(*MakeH1Codec(CodecRole::kServer, again, RoomierLimits()), kept.written, step, true);
    FeedAll(*MakeH1Codec(CodecRole::kServer, log, RoomierLimits()), kept.written, kept.written.size(), true);
    if (log.failed() || log.requests() != 1) {
      std::fprintf(stderr, "--- forwarded:\n%s\n--- read again:\n%s\n", kept.written.c_str(),
                   log.text().c_str());
    }
    CHECK(!log.failed() && log.requests() == 1);
    const std::vector<Forwarder::Kept> read = again.Requests();
    CHECK(read.size() == 1 && read[0].method == kept.method && read[0].target == kept.target);
    CHECK(read[0].body == kept.body);
  }
}

}  // namespace penstock
