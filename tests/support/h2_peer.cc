#include "tests/support/h2_peer.h"

#include <fmt/format.h>

#include "proxy/http/h2_frames.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

std::string Lines(std::span<const Header> headers) {
  std::string text;
  for (const Header& header : headers) {
    if (!header.dropped) text += fmt::format("{}: {}\n", header.name, header.value);
  }
  return text;
}

std::string FramingText(Framing framing, uint64_t length) {
  switch (framing) {
    case Framing::kNone: return "none";
    case Framing::kLength: return fmt::format("length {}", length);
    case Framing::kChunked: return "chunked";
    case Framing::kUntilClose: return "until close";
  }
  return "?";
}

uint32_t NumberAt(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = at; i < at + 4 && i < bytes.size(); ++i) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

std::string FrameText(const H2FrameHead& head, std::string_view payload) {
  const bool ends = (head.flags & H2FrameHead::kEndStream) != 0;
  switch (head.type) {
    case H2FrameType::kData:
      return fmt::format("DATA {} {}{}", head.stream, payload.size(), ends ? " end" : "");
    case H2FrameType::kHeaders: return fmt::format("HEADERS {}{}", head.stream, ends ? " end" : "");
    case H2FrameType::kRstStream:
      return fmt::format("RST_STREAM {} code {}", head.stream, NumberAt(payload, 0));
    case H2FrameType::kSettings: return ends ? "SETTINGS ack" : "SETTINGS";
    case H2FrameType::kPing: return ends ? "PING ack" : "PING";
    case H2FrameType::kGoAway:
      return fmt::format("GOAWAY last {} code {}", NumberAt(payload, 0), NumberAt(payload, 4));
    case H2FrameType::kWindowUpdate:
      return fmt::format("WINDOW_UPDATE {} {}", head.stream, NumberAt(payload, 0));
    default: return fmt::format("frame {} {}", static_cast<int>(head.type), head.stream);
  }
}

}  // namespace

H2Peer::H2Peer(CodecRole role, const CodecLimits& limits)
    : role_(role), codec_(MakeH2Codec(role, *this, limits)) {}

std::string H2Peer::Feed(std::string_view bytes) {
  codec_->Feed(bytes);
  return Pump();
}

std::string H2Peer::Pump() {
  codec_->Pump(*out_);
  return Take();
}

std::string H2Peer::Take() {
  std::string bytes;
  for (const std::string_view piece : out_->pieces()) bytes += piece;
  out_->Clear();
  return bytes;
}

int H2Peer::wrong() const {
  int sum = late_ + (errors_ > 1) + (goaways_ > 1);
  for (const auto& [id, heard] : heard_) sum += heard.wrong;
  return sum;
}

H2Peer::Heard& H2Peer::Hear(MessageId id) {
  Heard& heard = heard_[id];
  const bool over = heard.resets > 0 || (role_ == CodecRole::kClient && heard.ends > 0);
  if (over) ++heard.wrong;
  late_ += failed();
  return heard;
}

void H2Peer::OnRequest(MessageId id, RequestHead& head) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads + heard.refusals > 0;
  ++heard.heads;
  heard.request = head;
  heard.head = fmt::format("{} {} {} path={} authority={} body={}{}\n", head.method, head.scheme,
                           head.target, head.path, head.authority,
                           FramingText(head.framing, head.content_length),
                           head.expect_continue ? " expect" : "") +
               Lines(head.headers);
  if (on_request) on_request(id);
}

void H2Peer::OnResponse(MessageId id, ResponseHead& head) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads > 0;
  ++heard.heads;
  heard.response = head;
  heard.head =
      fmt::format("{} body={}\n", head.status, FramingText(head.framing, head.content_length)) +
      Lines(head.headers);
}

void H2Peer::OnInterim(MessageId id, ResponseHead& head) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads > 0;
  heard.interim += fmt::format("{}\n", head.status) + Lines(head.headers);
}

void H2Peer::OnBody(MessageId id, std::string_view data) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads != 1 || heard.ends > 0;
  heard.body += data;
  if (on_body) on_body(id, data);
}

void H2Peer::OnMessageEnd(MessageId id, std::span<Header> trailers) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads != 1 || heard.ends > 0;
  ++heard.ends;
  heard.trailers = Lines(trailers);
  if (on_end) on_end(id);
}

void H2Peer::OnMessageReset(MessageId id, uint32_t error_code) {
  Heard& heard = Hear(id);
  ++heard.resets;
  heard.error_code = error_code;
  if (on_reset) on_reset(id, error_code);
}

void H2Peer::OnMessageRefused(MessageId id, const ProtocolError& error) {
  Heard& heard = Hear(id);
  heard.wrong += heard.heads + heard.refusals > 0;
  ++heard.refusals;
  heard.refusal = error;
}

void H2Peer::OnMessageWritable(MessageId id) {
  ++Hear(id).writable;
  if (on_writable) on_writable(id);
}

void H2Peer::OnProtocolError(const ProtocolError& error) {
  ++errors_;
  error_ = error;
}

void Converse(H2Peer& client, H2Peer& server, size_t step) {
  std::string to_server = client.Pump(), to_client = server.Pump();
  while (!to_server.empty() || !to_client.empty()) {
    const std::string a = std::exchange(to_server, {}), b = std::exchange(to_client, {});
    for (size_t at = 0; at < a.size(); at += std::min(step, a.size())) {
      to_client += server.Feed(std::string_view(a).substr(at, step));
    }
    for (size_t at = 0; at < b.size(); at += std::min(step, b.size())) {
      to_server += client.Feed(std::string_view(b).substr(at, step));
    }
  }
}

std::vector<std::string> FramesOf(std::string_view bytes, bool preface) {
  std::vector<std::string> frames;
  H2FrameScan scan(preface ? h2::kPreface.size() : 0);
  while (!bytes.empty()) {
    bytes.remove_prefix(scan.Take(bytes));
    if (!scan.whole()) continue;
    frames.push_back(FrameText(scan.head(), bytes.substr(0, scan.head().length)));
  }
  return frames;
}

}  // namespace penstock
