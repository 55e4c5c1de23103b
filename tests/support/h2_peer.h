// One end of an HTTP/2 connection in a test: a codec, what its receiver heard, and
// the bytes that it wants to send.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/codec.h"

namespace penstock {

class H2Peer : public CodecReceiver {
 public:
  // What was heard of one message. An end of each kind is counted, so that a test sees two.
  struct Heard {
    std::string head;      // As text, a line each: start line, then fields.
    std::string interim;
    std::string body;
    std::string trailers;
    int heads = 0, refusals = 0, ends = 0, resets = 0, writable = 0;
    int wrong = 0;         // Told after it was over, or out of order.
    uint32_t error_code = 0;
    ProtocolError refusal;
    RequestHead request;   // Views: while the codec keeps them.
    ResponseHead response;
  };

  explicit H2Peer(CodecRole role, const CodecLimits& limits = {});

  // Feeds and pumps; returns what goes to the other end.
  std::string Feed(std::string_view bytes);
  std::string Pump();
  std::string Take();       // What `out` holds, without pumping.
  Codec& codec() { return *codec_; }
  Gather& out() { return *out_; }
  Heard& of(MessageId id) { return heard_[id]; }
  const std::map<MessageId, Heard>& all() const { return heard_; }
  bool failed() const { return errors_ > 0; }
  int errors() const { return errors_; }
  const ProtocolError& error() const { return error_; }
  int goaways() const { return goaways_; }
  int near_floods() const { return near_floods_; }

  int wrong() const;        // Of all messages, and what came after the connection failed.

  // Called besides, from inside the codec's calls.
  std::function<void(MessageId)> on_request, on_end, on_writable;
  std::function<void(MessageId, std::string_view)> on_body;
  std::function<void(MessageId, uint32_t)> on_reset;

  void OnRequest(MessageId id, RequestHead& head) override;
  void OnResponse(MessageId id, ResponseHead& head) override;
  void OnInterim(MessageId id, ResponseHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnMessageReset(MessageId id, uint32_t error_code) override;
  void OnMessageRefused(MessageId id, const ProtocolError& error) override;
  void OnMessageWritable(MessageId id) override;
  void OnGoAway() override { ++goaways_; }
  void OnNearFlood() override { ++near_floods_; }
  void OnProtocolError(const ProtocolError& error) override;

 private:
  Heard& Hear(MessageId id);

  std::unique_ptr<Gather> out_ = std::make_unique<Gather>();
  std::map<MessageId, Heard> heard_;
  ProtocolError error_;
  int errors_ = 0;
  int goaways_ = 0;
  int near_floods_ = 0;
  int late_ = 0;            // Told although the connection had failed.
  const CodecRole role_;
  std::unique_ptr<Codec> codec_;
};

// Lets two ends talk until neither has anything to say. `step`: bytes a feed.
void Converse(H2Peer& client, H2Peer& server, size_t step = SIZE_MAX);

// Frames in bytes that a codec wrote, as a line each: "HEADERS 1 end", "DATA 1 5",
// "RST_STREAM 1 code 8", "GOAWAY last 3 code 11"...
std::vector<std::string> FramesOf(std::string_view bytes, bool preface = false);

}  // namespace penstock
