// The head of an event stream is held until its first token, so that a backend that
// hangs before it can still be replaced.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/message.h"

namespace penstock {

struct HeldHead {
  bool held = false;
  uint16_t status = 0;
  std::string storage;
  std::vector<Header> headers;

  // Copies it, but for dropped fields: its views die with the callback that brought it.
  void Keep(const ResponseHead& head) {
    held = true;
    status = head.status;
    storage.clear();
    headers.clear();
    size_t bytes = 0;
    for (const Header& header : head.headers) bytes += header.name.size() + header.value.size();
    storage.reserve(bytes);  // So that the views below stay put.
    for (const Header& header : head.headers) {
      if (header.dropped) continue;
      const std::string_view name = Append(header.name);
      headers.push_back({name, Append(header.value), header.id});
    }
  }
  // What is written in its place.
  ResponseHead Release() {
    held = false;
    ResponseHead head;
    head.status = status;
    head.headers = headers;
    head.framing = Framing::kChunked;
    return head;
  }

 private:
  std::string_view Append(std::string_view text) {
    const size_t at = storage.size();
    storage += text;
    return std::string_view(storage).substr(at, text.size());
  }
};

}  // namespace penstock
