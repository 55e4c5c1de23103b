// HTTP/1 over llhttp. llhttp splits bytes into spans and keeps the framing; this
// class stores heads, holds the limits, and applies the rules of h1_rules.h.
// Nothing of the lenient kind is ever switched on.
//
// Heads are copied once into a buffer that is reused from message to message,
// since their spans may be cut anywhere, and each field stands there as the line
// that another connection would write, so that a run of fields is passed on with
// one copy; bodies are handed on where they lie.
// The parser stops at the end of every message, so the bytes of a pipelined
// request stay with their owner until NextMessage().
//
// While a head is parsed llhttp is given no more bytes than the limit leaves, so
// the verdict is the same however the bytes were cut.
#pragma once

#include <llhttp.h>

#include <memory>
#include <string>
#include <vector>

#include "proxy/http/codec.h"

namespace penstock {

class H1Codec final : public Codec {
 public:
  H1Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits);

  size_t Feed(std::string_view bytes) override;
  void FeedEnd() override;
  void NextMessage() override;

  MessageId WriteRequest(Gather& out, const RequestHead& head,
                         std::span<const Header> extra) override;
  void WriteResponse(Gather& out, MessageId id, const ResponseHead& head,
                     std::span<const Header> extra) override;
  void WriteContinue(Gather& out, MessageId id) override;
  void WriteBody(Gather& out, MessageId id, std::string_view data) override;
  void WriteEnd(Gather& out, MessageId id, std::span<const Header> trailers) override;
  void WriteReset(Gather& out, MessageId id, uint32_t error_code) override;
  void StartClosing(Gather& out) override;

  bool reusable() const override;
  bool idle() const override;
  bool multiplexed() const override { return false; }

 private:
  enum class State : uint8_t {
    kReading,   // Bytes are parsed.
    kWaiting,   // A message is over; the next begins with NextMessage() or WriteRequest().
    kTunnel,    // After 101: bytes are handed on as they come.
    kDone,      // No message follows; bytes are ignored.
    kFailed,    // Beyond use; bytes are not taken.
  };
  // The bytes of a head and the fields in them: views that follow the bytes when
  // these move to a larger place.
  struct FieldStore {
    std::unique_ptr<char[]> data;
    size_t used = 0, room = 0;
    std::vector<Header> headers;

    void Append(std::string_view part) {
      if (room - used < part.size()) Grow(part.size());
      part.copy(data.get() + used, part.size());
      used += part.size();
    }
    std::string_view bytes() const { return {data.get(), used}; }
    void BeginField();
    void EndName();
    void EndLine();
    void Grow(size_t more);
    void Clear();
  };
  // What is left to write of the message under way.
  struct Outgoing {
    bool open = false;
    Framing framing = Framing::kNone;
    uint64_t left = 0;        // kLength: bytes still to come.
  };
  friend struct H1Callbacks;  // llhttp's C callbacks, in h1_codec.cc.

  // Reading. The callbacks return 0, or an llhttp error after Refuse().
  size_t Parse(std::string_view bytes);
  int OnTarget(std::string_view part);
  int OnVersion(const char* at);
  int OnVersionEnd();
  int OnReason(std::string_view part);
  int OnFieldName(std::string_view part);
  int OnFieldNameEnd();
  int OnFieldValue(std::string_view part);
  int CheckTrailers();
  int OnHeadEnd();
  int OnRequestHead();
  int OnResponseHead();
  int OnExtension(size_t bytes);

  int Refuse(uint16_t status, std::string_view code, std::string_view message);
  ProtocolError ErrorOf(llhttp_errno_t error) const;
  void Fail(ProtocolError error);
  void BeginMessage();
  void FinishMessage(bool bytes_follow);
  void FinishAnswer(bool bytes_follow);
  void Advance();

  // Writing.
  void WriteHeaders(Gather& out, std::span<const Header> headers);
  void Open(Framing framing, uint64_t length);

  bool server() const { return role_ == CodecRole::kServer; }
  FieldStore& store() { return head_done_ ? trailers_ : head_; }

  const CodecRole role_;
  CodecReceiver& receiver_;
  const CodecLimits limits_;
  llhttp_t parser_;
  State state_;

  MessageId id_ = 0;
  bool begun_ = false;           // The first byte of a message was seen; it is not over.
  bool exchange_open_ = false;   // Server: from OnRequest to NextMessage. Client: until the answer's end.
  bool next_wanted_ = false;     // NextMessage() came before the message was over.
  bool keep_alive_ = true;       // As the messages so far leave it.
  bool closing_ = false;
  bool peer_ended_ = false;
  bool to_head_ = false;         // The request of this exchange is a HEAD.
  uint8_t minor_version_ = 1;    // Of the request of this exchange (server role).
  bool answered_ = false;        // Server: WriteResponse was called for it.
  bool upgrade_asked_ = false;   // Client: the request asked for another protocol.
  bool tunnel_ = false;          // Server: the answer was 101.
  int interim_count_ = 0;

  bool head_done_ = false;
  bool message_over_ = false;
  bool version_seen_ = false;
  bool field_open_ = false;
  size_t head_bytes_ = 0;
  size_t target_bytes_ = 0;
  size_t extension_bytes_ = 0;
  const char* feed_begin_ = nullptr;
  std::string before_;           // The last bytes of earlier feeds, until the version was seen.
  FieldStore head_;
  FieldStore trailers_;
  std::string target_;           // A target that had to be rewritten.
  RequestHead request_;
  ResponseHead response_;
  bool refused_ = false;
  ProtocolError refusal_;
  Outgoing outgoing_;
};

}  // namespace penstock
