// A codec's receiver that writes down what it hears, as one line an event, so
// that a whole conversation can be compared as text.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/http/codec.h"

namespace penstock {

class CodecLog final : public CodecReceiver {
 public:
  void OnRequest(MessageId id, RequestHead& head) override;
  void OnResponse(MessageId id, ResponseHead& head) override;
  void OnInterim(MessageId id, ResponseHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

  std::string TakeText() { return std::exchange(text_, {}); }
  const std::string& text() const { return text_; }
  bool failed() const { return failed_; }
  const ProtocolError& error() const { return error_; }
  int requests() const { return requests_; }

 private:
  void FlushBody();

  std::string text_;
  std::string body_;  // Joined, so that its cuts do not show.
  bool failed_ = false;
  int requests_ = 0;
  ProtocolError error_;
};

}  // namespace penstock
