// One HTTP connection's translation between bytes and messages, both ways, both
// roles. HTTP/1 (llhttp) and HTTP/2 (nghttp2) are the two implementations; the
// session and the backend connection know only this.
//
// A codec does no I/O: bytes are fed in, bytes to send are appended to a Gather.
// It holds no more than its limits allow, and after an error it only closes.
//
// The receiver is called from inside Feed(), FeedEnd() and Pump(), never from inside
// a writing function.
//
// Threads: one connection's loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "proxy/base/gather.h"
#include "proxy/base/time.h"
#include "proxy/http/codec_limits.h"
#include "proxy/http/message.h"

namespace penstock {

// Names one message exchange on a connection. HTTP/1 counts 1, 2, 3...
using MessageId = uint32_t;

// What a codec tells its owner. Inside any of these the owner may call the
// codec's writing functions and NextMessage(); it must not destroy the codec.
class CodecReceiver {
 public:
  // Server role. Views stay valid until the exchange is over: on HTTP/1 until
  // the owner calls NextMessage(), on HTTP/2 until the Pump() that ends the turn in
  // which both sides of the message ended or it was reset.
  virtual void OnRequest(MessageId id, RequestHead& head) { (void)id, (void)head; }
  // Client role; views are valid until the message ends (HTTP/2: as above). Never
  // 1xx but, on HTTP/1, the 101 that the request asked for: from then on the bytes of
  // both directions are OnBody and WriteBody as they are, until OnMessageEnd and WriteEnd.
  virtual void OnResponse(MessageId id, ResponseHead& head) { (void)id, (void)head; }
  virtual void OnInterim(MessageId id, ResponseHead& head) { (void)id, (void)head; }
  virtual void OnBody(MessageId id, std::string_view data) = 0;
  // The message is complete; `trailers` are empty most of the time.
  virtual void OnMessageEnd(MessageId id, std::span<Header> trailers) = 0;
  // HTTP/2: this message alone is over, in both directions and without an end: the
  // peer reset it, or the codec did because of what the peer sent in it. Nothing
  // more is told of `id` and what is written to it goes nowhere. error_code is that
  // of RFC 9113 7; kRefusedStream promises that the peer did nothing with it (a
  // backend's GOAWAY ends the messages that it did not take in this way).
  virtual void OnMessageReset(MessageId id, uint32_t error_code) { (void)id, (void)error_code; }
  // HTTP/2, server role: a request that is beyond a limit, told instead of
  // OnRequest. The owner answers `id` with error.status; the rest of the request is
  // not told.
  virtual void OnMessageRefused(MessageId id, const ProtocolError& error) { (void)id, (void)error; }
  // HTTP/2: unsent(id) fell to half of kUnsentMark after having been above it.
  virtual void OnMessageWritable(MessageId id) { (void)id; }
  // HTTP/2: the peer said GOAWAY: reusable() is false from now on.
  virtual void OnGoAway() {}
  // HTTP/2, once: the peer has used three quarters of what it may waste of our work
  // (H2Limits: resets, glitches). Past all of it the connection ends with "flood";
  // now is the time to leave it in peace.
  virtual void OnNearFlood() {}
  // The connection is beyond use: nothing more is parsed. HTTP/1: a server answers
  // once with error.status (if no answer has begun) and closes. HTTP/2: all messages
  // are over, none is told apart, and what is written goes nowhere; Pump() writes the
  // GOAWAY, then the owner closes.
  virtual void OnProtocolError(const ProtocolError& error) = 0;

 protected:
  ~CodecReceiver() = default;
};

// RFC 9113 7, those that owners of a codec use.
inline constexpr uint32_t kNoError = 0x0, kInternalError = 0x2, kRefusedStream = 0x7, kCancel = 0x8,
                          kEnhanceYourCalm = 0xb, kSettingsTimeout = 0x4;

class Codec {
 public:
  // unsent() above this: whoever produces the body stops until OnMessageWritable.
  static constexpr size_t kUnsentMark = 64 * 1024;

  virtual ~Codec() = default;

  // HTTP/2: what time it is, told at the beginning of each turn; rates are judged by
  // it. Where it is never told, what a burst allows is all there is.
  virtual void SetNow(MonoTime now) { (void)now; }

  // --- reading ---
  // Parses `bytes` and calls the receiver. Returns how many were taken: fewer
  // than given only at a message boundary that waits for NextMessage() (the
  // owner keeps the rest and feeds it later) or after an error. What the codec
  // itself has to say to these bytes is written by Pump().
  virtual size_t Feed(std::string_view bytes) = 0;
  // The peer ended its direction: ends an until-close body; an error if a
  // message is half there.
  virtual void FeedEnd() = 0;
  // HTTP/1 server: no next message is begun before this, so that pipelined
  // requests are served one after the other. HTTP/2: nothing to do.
  virtual void NextMessage() = 0;
  // The body of `id` is not wanted for now, or wanted again. HTTP/2: its window is
  // not opened, so at most one window of it is still told; other messages go on.
  // HTTP/1: nothing to do, the owner pauses the stream.
  virtual void PauseBody(MessageId id) { (void)id; }
  virtual void ResumeBody(Gather& out, MessageId id) { (void)out, (void)id; }

  // --- writing ---
  // HTTP/2: what is due without anybody's asking: settings, acknowledgements,
  // windows, bodies that waited for the peer's window. The owner calls it once after
  // construction and at the end of every turn in which it called anything else. A
  // peer that does not read its acknowledgements is not let go on: an owner whose
  // stream is above its mark stops feeding.
  virtual void Pump(Gather& out) { (void)out; }
  // Client role: begins a request and returns its id. `extra` follows
  // head.headers; dropped fields are left out; the codec writes the framing
  // fields from head.framing. Host comes from head.headers or head.authority;
  // Expect is not passed on. head.upgrade asks for the protocol of the Upgrade field
  // (HTTP/1 only). REQUIRES: HTTP/1: idle(). HTTP/2: where
  // room() is 0 by now, it waits, or is told OnMessageReset(kRefusedStream).
  virtual MessageId WriteRequest(Gather& out, const RequestHead& head,
                                 std::span<const Header> extra) = 0;
  // Server role: begins the answer to `id`. head.keep_alive is not looked at (it
  // speaks of the connection that the head came from). Connection: close is added where the
  // connection will not be kept; chunked towards HTTP/1.0 becomes until-close;
  // no body is written for HEAD, 204 and 304. HTTP/1: after 101, which a request must
  // have asked for, what the client sends is told by OnBody as it is.
  virtual void WriteResponse(Gather& out, MessageId id, const ResponseHead& head,
                             std::span<const Header> extra) = 0;
  virtual void WriteContinue(Gather& out, MessageId id) = 0;  // 100 Continue.
  // Framed by the head's framing. `data` is only referenced by `out`. Bytes past
  // the announced length are not written, and HTTP/1 is then not reusable. HTTP/2
  // keeps a copy of what the peer's window has no room for: a producer of more than
  // kUnsentMark gives it in pieces and looks at unsent() after each. One that goes on
  // although kUnsentMark and CodecLimits::h2.unsent_bytes wait has its message reset.
  virtual void WriteBody(Gather& out, MessageId id, std::string_view data) = 0;
  // Not needed, but allowed, where the framing is kNone or the length is reached.
  // Before the announced length is reached: HTTP/1 becomes unusable, HTTP/2 resets.
  virtual void WriteEnd(Gather& out, MessageId id, std::span<const Header> trailers = {}) = 0;
  // Gives up on one message: HTTP/2 resets it; HTTP/1 becomes unusable.
  virtual void WriteReset(Gather& out, MessageId id, uint32_t error_code) = 0;
  // This connection takes no more messages after the current ones
  // (connection: close on the next answer; GOAWAY).
  virtual void StartClosing(Gather& out) = 0;

  // HTTP/2: asks the peer for a sign of life: whatever it sends from now on is one.
  virtual void WritePing(Gather& out) { (void)out; }

  // HTTP/2: ends what StartClosing() announced: requests that cross it on the wire
  // are refused from now on, and the peer knows which ones.
  // kSettingsTimeout says why; else kNoError.
  virtual void FinishClosing(Gather& out, uint32_t error_code) { (void)out, (void)error_code; }

  // Bytes of this message's body that the codec keeps because the peer's window is
  // closed, or kept when the peer reset it; on HTTP/1 nothing, since all is handed to
  // the stream.
  virtual size_t unsent(MessageId id) const { (void)id; return 0; }
  // Client role: how many more messages may begin now. HTTP/2: what the peer's
  // SETTINGS_MAX_CONCURRENT_STREAMS leaves; 0 where !reusable().
  virtual size_t room() const { return reusable() && idle() ? 1 : 0; }

  // HTTP/2: some of a head has come, or of the preface or of a frame without a body,
  // and its rest has not; always before the peer's first frame.
  virtual bool inside_head() const { return false; }
  // HTTP/2: the peer has acknowledged our settings.
  virtual bool settled() const { return true; }
  // True while another message may follow the current ones.
  virtual bool reusable() const = 0;
  // True while no message is in progress in either direction.
  virtual bool idle() const = 0;
  virtual bool multiplexed() const = 0;  // HTTP/2.
};

enum class CodecRole { kServer, kClient };

std::unique_ptr<Codec> MakeH1Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits);
std::unique_ptr<Codec> MakeH2Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits);

}  // namespace penstock
