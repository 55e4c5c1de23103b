#include "proxy/http/error_reply.h"

#include <fmt/format.h>

#include <iterator>

#include "proxy/base/check.h"

namespace penstock {
namespace {

constexpr std::string_view kClientFault = "invalid_request_error";
constexpr std::string_view kRateLimit = "rate_limit_error";
constexpr std::string_view kServerFault = "server_error";

// In the order of ReplyCode. The fourth column is the error word of RFC 9209; the last
// one is false for what would fail again and for what would add to an overload; a full
// queue's retry-after spreads those who come back over the time that it takes to clear.
constexpr ReplyInfo kReplies[] = {
    {400, kClientFault, "bad_request", "http_request_error", false},
    {401, kClientFault, "invalid_api_key", "http_request_denied", false},
    {404, kClientFault, "model_not_found", "destination_not_found", false},
    {404, kClientFault, "route_not_found", "destination_not_found", false},
    {405, kClientFault, "method_not_allowed", "http_request_denied", false},
    {408, kClientFault, "request_timeout", "http_request_error", true},
    {408, kClientFault, "client_stalled", "http_request_error", false},
    {413, kClientFault, "request_too_large", "http_request_error", false},
    {414, kClientFault, "uri_too_long", "http_request_error", false},
    {415, kClientFault, "unsupported_media_type", "http_request_error", false},
    {429, kRateLimit, "queue_full", "connection_limit_reached", true},
    {431, kClientFault, "headers_too_large", "http_request_error", false},
    {500, kServerFault, "internal_error", "proxy_internal_error", false},
    {501, kClientFault, "not_implemented", "http_request_error", false},
    {502, kServerFault, "backend_reset", "connection_terminated", true},
    {502, kServerFault, "backend_bad_answer", "http_protocol_error", true},
    {502, kServerFault, "backend_tls_error", "tls_protocol_error", true},
    {503, kServerFault, "no_healthy_backend", "destination_unavailable", true},
    {503, kServerFault, "overloaded", "connection_limit_reached", false},
    {503, kServerFault, "draining", "destination_unavailable", true},
    {504, kServerFault, "backend_connect_timeout", "connection_timeout", true},
    {504, kServerFault, "backend_first_token_timeout", "http_response_timeout", false},
    {504, kServerFault, "backend_timeout", "http_response_timeout", false},
    {504, kServerFault, "backend_idle_timeout", "http_response_timeout", false},
    {504, kServerFault, "total_timeout", "http_response_timeout", false},
    {504, kServerFault, "deadline_exceeded", "http_response_timeout", false},
    {508, kServerFault, "loop_detected", "proxy_loop_detected", false},
};
static_assert(std::size(kReplies) == static_cast<size_t>(ReplyCode::kLoopDetected) + 1);

// Length of the valid UTF-8 sequence at the front, 0 if there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  size_t length = 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) length = 2;
  if (first >= 0xe0 && first <= 0xef) length = 3;
  if (first >= 0xf0 && first <= 0xf4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool outside = (first == 0xed && byte(1) > 0x9f) || (first == 0xf4 && byte(1) > 0x8f);
  return overlong || outside ? 0 : length;
}

// A JSON string; what is not UTF-8 becomes U+FFFD.
void AppendJsonString(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
}

}  // namespace

const ReplyInfo& InfoOf(ReplyCode code) {
  const auto index = static_cast<size_t>(code);
  CHECK(index < std::size(kReplies));
  return kReplies[index];
}

std::string ErrorBody(ReplyCode code, std::string_view message, std::string_view param) {
  const ReplyInfo& info = InfoOf(code);
  std::string body = "{\"error\":{\"message\":";
  AppendJsonString(body, message);
  body += ",\"type\":";
  AppendJsonString(body, info.type);
  body += ",\"param\":";
  if (param.empty()) {
    body += "null";
  } else {
    AppendJsonString(body, param);
  }
  body += ",\"code\":";
  AppendJsonString(body, info.code);
  body += "}}";
  return body;
}

std::string ErrorEvent(ReplyCode code, std::string_view message) {
  return "data: " + ErrorBody(code, message) + "\n\n";
}

}  // namespace penstock
