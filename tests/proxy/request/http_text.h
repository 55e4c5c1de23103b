// HTTP/1 as the text that it is: what a test's clients and backends say, and what they
// look for in what they hear.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

namespace penstock {

// Length of the whole HTTP message at the front of `text`, or 0 if more must come.
inline size_t WholeMessage(std::string_view text) {
  const size_t head = text.find("\r\n\r\n");
  if (head == std::string_view::npos) return 0;
  const std::string_view fields = text.substr(0, head + 2);
  if (fields.find("transfer-encoding: chunked\r\n") != std::string_view::npos) {
    const size_t end = text.find("0\r\n\r\n", head + 4);
    return end == std::string_view::npos ? 0 : end + 5;
  }
  size_t length = 0;
  if (const size_t at = fields.find("content-length: "); at != std::string_view::npos) {
    std::from_chars(fields.data() + at + 16, fields.data() + fields.size(), length);
  }
  return text.size() >= head + 4 + length ? head + 4 + length : 0;
}

inline std::string Ok(std::string_view body) {
  return "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " +
         std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}
inline std::string Post(std::string_view body, std::string_view path = "/v1/completions") {
  return "POST " + std::string(path) + " HTTP/1.1\r\nhost: api\r\ncontent-length: " +
         std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}
inline constexpr std::string_view kEventsHead =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
inline std::string Chunk(std::string_view bytes) {
  char size[16];
  const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16).ptr;
  return std::string(size, end) + "\r\n" + std::string(bytes) + "\r\n";
}

// The status of an answer, 0 if there is none.
inline int StatusOf(std::string_view answer) {
  int status = 0;
  if (answer.starts_with("HTTP/1.1 ")) std::from_chars(answer.data() + 9, answer.data() + 12, status);
  return status;
}

// How often `part` stands in `text`.
inline size_t Count(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++count;
  return count;
}

}  // namespace penstock
