// A client of a World that speaks HTTP/2 by prior knowledge.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/proxy/request/world.h"
#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"

namespace penstock {

struct H2Client final : StreamReceiver {
  explicit H2Client(World& world_in, const CodecLimits& limits = {})
      : world(world_in), peer(CodecRole::kClient, limits) {
    const auto dial = world.outside.dialer().Dial(
        *Address::Parse("127.0.0.1:8080"), kSecond,
        [&](absl::StatusOr<std::unique_ptr<Stream>> made) { stream = *std::move(made); });
    world.Run();
    stream->SetReceiver(this);
    stream->Resume();
    Pump();
  }

  void OnData(std::string_view data) override {
    heard += data;
    const std::string answer = peer.Feed(data);
    if (!answer.empty()) stream->Write(answer);
  }
  void OnStreamEnd(const absl::Status&) override { closed = true; }
  void OnWritable() override {}

  void Pump() {
    stream->Write(peer.Pump());
    world.Run();
  }
  // `length`: of a body that follows with Say().
  MessageId Begin(std::string_view method, std::string_view path, Framing framing = Framing::kNone,
                  uint64_t length = 0, std::vector<Header> headers = {}) {
    RequestHead head;
    head.method = method;
    head.target = head.path = path;
    head.authority = "api";
    head.scheme = "http";
    head.framing = framing;
    head.content_length = length;
    head.headers = headers;
    const MessageId id = peer.codec().WriteRequest(peer.out(), head, {});
    Pump();
    return id;
  }
  MessageId Get(std::string_view path = "/x") { return Begin("GET", path); }
  MessageId Post(std::string_view body, std::string_view path = "/v1/completions") {
    const MessageId id = Begin("POST", path, Framing::kLength, body.size());
    Say(id, body);
    return id;
  }
  void Say(MessageId id, std::string_view body) {
    peer.codec().WriteBody(peer.out(), id, body);
    Pump();
  }
  void Reset(MessageId id) {
    peer.codec().WriteReset(peer.out(), id, kCancel);
    Pump();
  }
  H2Peer::Heard& of(MessageId id) { return peer.of(id); }
  int status(MessageId id) { return of(id).response.status; }
  std::vector<std::string> TakeFrames() { return FramesOf(std::exchange(heard, {})); }

  World& world;
  H2Peer peer;
  std::unique_ptr<Stream> stream;
  std::string heard;
  bool closed = false;
};

inline bool Has(const std::vector<std::string>& frames, std::string_view frame) {
  return std::find(frames.begin(), frames.end(), frame) != frames.end();
}

}  // namespace penstock
