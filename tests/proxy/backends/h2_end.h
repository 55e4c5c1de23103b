// An HTTP/2 backend's end of a connection in memory, which does what a test says.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"
#include "tests/support/memory_stream.h"

namespace penstock {

struct H2End final : StreamReceiver {
  H2End(std::unique_ptr<Stream> stream_in, const CodecLimits& limits)
      : peer(CodecRole::kServer, limits), stream(std::move(stream_in)) {
    stream->SetReceiver(this);
    stream->Resume();
    Send();
  }
  void OnData(std::string_view data) override {
    heard += data;
    const std::string answer = peer.Feed(data);
    if (!answer.empty()) stream->Write(answer);
  }
  void OnStreamEnd(const absl::Status&) override { closed = true; }
  void OnWritable() override {}

  Codec& codec() { return peer.codec(); }
  void Send() { stream->Write(peer.Pump()); }
  void Head(MessageId id, uint16_t status = 200, std::string_view type = "text/plain") {
    Header fields[] = {{"content-type", type, KnownHeader::kContentType}};
    ResponseHead head;
    head.status = status;
    head.headers = fields;
    head.framing = Framing::kChunked;
    codec().WriteResponse(peer.out(), id, head, {});
    Send();
  }
  void Body(MessageId id, std::string_view bytes) {
    codec().WriteBody(peer.out(), id, bytes);
    Send();
  }
  void End(MessageId id, std::span<const Header> trailers = {}) {
    codec().WriteEnd(peer.out(), id, trailers);
    Send();
  }
  void Answer(MessageId id, std::string_view body = "fine") {
    Head(id);
    Body(id, body);
    End(id);
  }
  void Reset(MessageId id, uint32_t code) {
    codec().WriteReset(peer.out(), id, code);
    Send();
  }
  // Streams above `last` were not taken in.
  void GoAway(uint32_t last) { stream->Write(h2::GoAway(last, kNoError)); }

  H2Peer peer;
  std::unique_ptr<Stream> stream;
  std::string heard;
  bool closed = false;
};

}  // namespace penstock
