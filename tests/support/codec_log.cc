#include "tests/support/codec_log.h"

#include <fmt/format.h>

namespace penstock {
namespace {

std::string FramingText(Framing framing, uint64_t length) {
  switch (framing) {
    case Framing::kNone: return "none";
    case Framing::kLength: return fmt::format("length {}", length);
    case Framing::kChunked: return "chunked";
    case Framing::kUntilClose: return "until close";
  }
  return "?";
}

std::string HeadersText(std::span<const Header> headers) {
  std::string text;
  for (const Header& header : headers) {
    if (header.dropped) continue;
    text += fmt::format("  {}: {}\n", header.name, header.value);
  }
  return text;
}

}  // namespace

void CodecLog::OnRequest(MessageId id, RequestHead& head) {
  ++requests_;
  text_ += fmt::format("request {} {} {} path={} authority={} body={}{}{}{}\n", id, head.method,
                       head.target, head.path, head.authority,
                       FramingText(head.framing, head.content_length),
                       head.keep_alive ? "" : " close", head.expect_continue ? " expect" : "",
                       head.upgrade ? " upgrade" : "");
  text_ += HeadersText(head.headers);
}

void CodecLog::OnResponse(MessageId id, ResponseHead& head) {
  text_ += fmt::format("response {} {} {} body={}{}\n", id, head.status, head.reason,
                       FramingText(head.framing, head.content_length),
                       head.keep_alive ? "" : " close");
  text_ += HeadersText(head.headers);
}

void CodecLog::OnInterim(MessageId id, ResponseHead& head) {
  text_ += fmt::format("interim {} {}\n", id, head.status);
  text_ += HeadersText(head.headers);
}

void CodecLog::OnBody(MessageId, std::string_view data) { body_ += data; }

void CodecLog::FlushBody() {
  if (!body_.empty()) text_ += fmt::format("body {}\n", body_);
  body_.clear();
}

void CodecLog::OnMessageEnd(MessageId id, std::span<Header> trailers) {
  FlushBody();
  text_ += fmt::format("end {}\n", id);
  text_ += HeadersText(trailers);
}

void CodecLog::OnProtocolError(const ProtocolError& error) {
  FlushBody();
  failed_ = true;
  error_ = error;
  text_ += fmt::format("error {} {}\n", error.status, error.code);
}

}  // namespace penstock
