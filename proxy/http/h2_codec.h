// HTTP/2 over nghttp2. nghttp2 keeps frames, HPACK, streams and windows, and turns
// malformed heads away; this class keeps what nghttp2 does not: heads in storage of
// their message, bodies that wait for a window, and the limits that its version
// here lacks (h2_flood.h).
//
// Nothing of ours is called from inside nghttp2 but the callbacks of h2_codec.cc,
// and they only take notes (events_). The receiver hears of them between two calls
// of nghttp2, so it may write, reset and close as it likes. Body bytes are handed
// on where they lie, both ways: parsing pauses at each piece, and what is written is
// framed around the owner's bytes. Only what a window has no room for is copied.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/codec.h"
#include "proxy/http/h2_flood.h"
#include "proxy/http/h2_frames.h"
#include "proxy/http/h2_head.h"
#include "proxy/http/h2_message.h"

struct nghttp2_session;

namespace penstock {

class H2Codec final : public Codec {
 public:
  H2Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits);
  ~H2Codec() override;

  void SetNow(MonoTime now) override { flood_.SetNow(now); }
  size_t Feed(std::string_view bytes) override;
  void FeedEnd() override;
  void NextMessage() override {}
  void PauseBody(MessageId id) override;
  void ResumeBody(Gather& out, MessageId id) override;

  void Pump(Gather& out) override;
  MessageId WriteRequest(Gather& out, const RequestHead& head,
                         std::span<const Header> extra) override;
  void WriteResponse(Gather& out, MessageId id, const ResponseHead& head,
                     std::span<const Header> extra) override;
  void WriteContinue(Gather& out, MessageId id) override;
  void WriteBody(Gather& out, MessageId id, std::string_view data) override;
  void WriteEnd(Gather& out, MessageId id, std::span<const Header> trailers) override;
  void WriteReset(Gather& out, MessageId id, uint32_t error_code) override;
  void StartClosing(Gather& out) override;
  void WritePing(Gather& out) override;
  void FinishClosing(Gather& out, uint32_t error_code) override;

  size_t unsent(MessageId id) const override;
  size_t room() const override;
  bool inside_head() const override { return scan_.inside_head(); }
  bool settled() const override { return settled_; }
  bool reusable() const override;
  bool idle() const override { return open_ == 0; }
  bool multiplexed() const override { return true; }

 private:
  friend struct H2Callbacks;   // nghttp2's, in h2_codec.cc.
  friend struct H2Source;      // And the one that it asks for bytes, in h2_codec_write.cc.

  struct Event {
    enum class Kind : uint8_t { kRequest, kRefused, kResponse, kInterim, kEnd, kReset, kWritable,
                                kGoAway, kNearFlood, kError };
    Kind kind;
    H2Message* message = nullptr;
    ResponseHead* response = nullptr;
  };

  // Notes taken inside nghttp2.
  void Announce();
  H2Message& Open(MessageId id);
  int OnGlitch();
  void OnHead(H2Message& message, bool end_stream);
  void OnRequestHead(H2Message& message, bool end_stream);
  void OnResponseHead(H2Message& message, bool end_stream);
  void OnTrailers(H2Message& message);
  void OnEndStream(H2Message& message);
  void OnStreamClosed(H2Message& message, uint32_t error_code);
  void OnFrameSent(uint8_t type, MessageId id, bool end_stream);
  void GiveUpOn(H2Message& message, uint32_t error_code);

  // Outside of it: the receiver is told.
  size_t Accept(std::string_view bytes, std::string_view& word);
  bool Tell();
  void TellOne(const Event& event);
  void TellBody();
  void Note(Event::Kind kind, H2Message* message) { events_.push_back({kind, message}); }
  void Fail(std::string_view code, std::string_view text, uint32_t error_code);
  void Flood(std::string_view word);
  void NoteNearFlood();
  void FailWith(int lib_error);
  void FailAsSent(uint32_t error_code);
  void SayBefore();
  void Reap();

  // Writing.
  void Flush(Gather& out);
  void Drain(Gather& out);
  void SubmitReset(H2Message& message, uint32_t error_code);
  void BeginBody(H2Message& message, Framing framing, uint64_t length);
  size_t Offer(H2Message& message, size_t size, bool& last);
  void WriteFrame(H2Message& message, std::string_view head, size_t size);
  void KeepUnsent(H2Message& message, std::string_view rest);
  H2Message* Find(MessageId id) const;
  H2Message* FindOpen(MessageId id) const;   // And not over for its owner.

  bool server() const { return role_ == CodecRole::kServer; }

  const CodecRole role_;
  CodecReceiver& receiver_;
  const CodecLimits limits_;
  nghttp2_session* session_ = nullptr;
  H2FrameScan scan_;
  H2OpenToPeer open_to_peer_;
  H2Flood flood_;
  std::string_view flood_word_;         // A limit was passed; the connection fails for it.

  std::vector<std::unique_ptr<H2Message>> messages_;   // By id, those that are over until Reap().
  mutable H2Message* found_ = nullptr;  // Of messages_: the one that was last asked for.
  size_t open_ = 0;                     // Of messages_: streams that live,
  size_t closed_ = 0;                   // and those that have ended.
  H2Head head_;                         // Of the block that is being read,
  H2Message* block_of_ = nullptr;       // and whose it is.
  std::vector<Event> events_;
  H2Message* chunk_of_ = nullptr;       // Where parsing paused: whose bytes these are.
  std::string_view chunk_;
  H2Message* direct_of_ = nullptr;      // Whose bytes WriteBody() was just given.
  std::string_view direct_;
  Gather* out_ = nullptr;               // While nghttp2 writes.
  uint8_t named_ = 0;                   // Names of values that come once: in the peer's table.
  std::string said_;                    // Written before a flood ended the connection.

  ProtocolError error_;
  bool late_frame_ = false;             // One came after the end of its stream.
  bool failed_ = false;
  bool feeding_ = false;
  bool telling_ = false;
  bool goaway_ = false;                 // The peer's.
  bool settled_ = false;
  bool near_flood_ = false;             // And told.
  bool closing_ = false;
  bool finished_ = false;
  bool peer_ended_ = false;
};

}  // namespace penstock
