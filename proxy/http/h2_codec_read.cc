// The reading half of H2Codec: parses from pause to pause, tells the receiver what
// was noted, fails, and takes back the storage of what is over.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/http/h2_codec.h"

namespace penstock {
namespace {

constexpr size_t kSpareMax = 256;        // Messages kept for later ones.
constexpr size_t kMessagesKept = 16;     // Room in lists that stays while a connection is idle.
constexpr size_t kEventsKept = 32;

// Shared by all connections of a thread: an idle one owns no message.
std::vector<std::unique_ptr<H2Message>>& Spare() {
  thread_local std::vector<std::unique_ptr<H2Message>> spare;
  return spare;
}

constexpr uint32_t kLastStream = 0x7fff'0000;   // Nobody is given a slot with no id left for it.

// What nghttp2 found wrong with the connection, by the code of its GOAWAY.
std::pair<std::string_view, std::string_view> WordsOf(uint32_t error_code) {
  switch (error_code) {
    case NGHTTP2_FLOW_CONTROL_ERROR:
      return {"flow_control_error", "more bytes came than the window allows"};
    case NGHTTP2_STREAM_CLOSED: return {"stream_closed", "a frame came after the end of its stream"};
    case NGHTTP2_FRAME_SIZE_ERROR: return {"frame_size_error", "a frame's size is not valid"};
    case NGHTTP2_COMPRESSION_ERROR:
      return {"compression_error", "a header block could not be decoded"};
    case NGHTTP2_INTERNAL_ERROR: return {"internal_error", "the connection ran out of memory"};
    default: return {"protocol_error", "a frame is not valid where it came"};
  }
}

}  // namespace

H2Message& H2Codec::Open(MessageId id) {
  std::unique_ptr<H2Message> message;
  if (std::vector<std::unique_ptr<H2Message>>& spare = Spare(); spare.empty()) {
    message = std::make_unique<H2Message>();
  } else {
    message = std::move(spare.back());
    spare.pop_back();
  }
  message->id = id;
  CHECK(messages_.empty() || messages_.back()->id < id);
  messages_.push_back(std::move(message));
  ++open_;
  return *messages_.back();
}

// Most often the one of last time.
H2Message* H2Codec::Find(MessageId id) const {
  if (found_ != nullptr && found_->id == id) return found_;
  const auto at = std::lower_bound(
      messages_.begin(), messages_.end(), id,
      [](const auto& message, MessageId wanted) { return message->id < wanted; });
  if (at == messages_.end() || (*at)->id != id) return nullptr;
  return found_ = at->get();
}

H2Message* H2Codec::FindOpen(MessageId id) const {
  H2Message* const message = Find(id);
  return message == nullptr || message->over ? nullptr : message;
}

size_t H2Codec::Feed(std::string_view bytes) {
  CHECK(!feeding_);
  if (failed_ || peer_ended_) return 0;
  feeding_ = true;
  std::string_view word;
  const size_t good = Accept(bytes, word);
  size_t taken = 0;
  do {
    chunk_of_ = nullptr;
    const ssize_t parsed =
        nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()) + taken,
                                 good - taken);
    if (parsed < 0) {
      FailWith(static_cast<int>(parsed));
      break;
    }
    taken += static_cast<size_t>(parsed);
    Tell();
    if (chunk_of_ != nullptr) TellBody();
  } while (!failed_ && (chunk_of_ != nullptr || taken < good));
  // Before anybody pumps, what is due may only grow so far.
  const bool due = nghttp2_session_get_outbound_queue_size(session_) > limits_.h2.outbound_frames;
  if (due && word.empty()) word = "outbound_frames";
  if (flood_word_.empty()) flood_word_ = word;
  if (!flood_word_.empty()) {
    SayBefore();
    Flood(flood_word_);
  } else if (late_frame_) {
    SayBefore();
    FailAsSent(NGHTTP2_STREAM_CLOSED);
  }
  NoteNearFlood();
  Tell();
  feeding_ = false;
  return taken;
}

// What nghttp2 found wrong before this it tells only by what it sends.
void H2Codec::SayBefore() {
  const auto out = std::make_unique<Gather>();
  Drain(*out);
  for (const std::string_view piece : out->pieces()) said_.append(piece);
}

// How many bytes may be parsed: all, or up to the frame that is one too many (`word`).
size_t H2Codec::Accept(std::string_view bytes, std::string_view& word) {
  size_t seen = 0;
  while (seen < bytes.size() && word.empty() && !late_frame_) {
    seen += scan_.Take(bytes.substr(seen));
    if (!scan_.whole()) continue;
    word = flood_.OnFrame(scan_.head());
    late_frame_ = server() && !open_to_peer_.Take(scan_.head());
  }
  return seen;
}

void H2Codec::FeedEnd() {
  if (failed_ || std::exchange(peer_ended_, true)) return;
  if (open_ > 0) {
    Fail("unexpected_end", "the connection ended in the middle of a message", NGHTTP2_NO_ERROR);
  }
  Tell();
}

bool H2Codec::Tell() {
  if (telling_ || events_.empty()) return false;
  telling_ = true;
  for (size_t i = 0; i < events_.size(); ++i) {   // It may grow meanwhile.
    const Event event = events_[i];
    TellOne(event);
  }
  events_.clear();
  telling_ = false;
  return true;
}

void H2Codec::TellOne(const Event& event) {
  if (event.kind == Event::Kind::kGoAway) return receiver_.OnGoAway();
  if (event.kind == Event::Kind::kNearFlood) return receiver_.OnNearFlood();
  if (event.kind == Event::Kind::kError) return receiver_.OnProtocolError(error_);
  H2Message& message = *event.message;
  if (message.quiet) return;
  const bool first = event.kind == Event::Kind::kRequest || event.kind == Event::Kind::kRefused;
  // What was reset in the bytes that brought it costs nobody anything.
  if (!message.told && (!first || message.over)) return;
  message.told = true;
  switch (event.kind) {
    case Event::Kind::kRequest: return receiver_.OnRequest(message.id, message.request);
    case Event::Kind::kRefused: return receiver_.OnMessageRefused(message.id, message.refusal);
    case Event::Kind::kResponse: return receiver_.OnResponse(message.id, *event.response);
    case Event::Kind::kInterim: return receiver_.OnInterim(message.id, *event.response);
    case Event::Kind::kWritable:
      if (!message.over) receiver_.OnMessageWritable(message.id);
      return;
    case Event::Kind::kReset: return receiver_.OnMessageReset(message.id, message.error_code);
    case Event::Kind::kEnd:
      receiver_.OnMessageEnd(message.id, message.trailers);
      // An answer that ended before its request did: nobody reads the rest.
      if (!server() && !message.over && message.writing != H2Message::Writing::kSent) {
        message.quiet = message.over = true;
        SubmitReset(message, NGHTTP2_CANCEL);
      }
      return;
    case Event::Kind::kGoAway:
    case Event::Kind::kNearFlood:
    case Event::Kind::kError: return;
  }
}

void H2Codec::TellBody() {
  H2Message& message = *chunk_of_;
  if (message.quiet || message.over) return;
  telling_ = true;
  receiver_.OnBody(message.id, chunk_);
  telling_ = false;
  if (message.paused) {
    message.unconsumed += chunk_.size();
  } else if (!message.closed) {
    nghttp2_session_consume_stream(session_, static_cast<int32_t>(message.id), chunk_.size());
  }
}

void H2Codec::PauseBody(MessageId id) {
  if (H2Message* const message = FindOpen(id)) message->paused = true;
}

void H2Codec::ResumeBody(Gather& out, MessageId id) {
  H2Message* const message = FindOpen(id);
  if (message == nullptr) return;
  message->paused = false;
  const size_t unconsumed = std::exchange(message->unconsumed, 0);
  if (unconsumed == 0 || message->read_over) return;
  nghttp2_session_consume_stream(session_, static_cast<int32_t>(id), unconsumed);
  Flush(out);
}

void H2Codec::Fail(std::string_view code, std::string_view text, uint32_t error_code) {
  if (std::exchange(failed_, true)) return;
  error_ = {server() ? uint16_t{400} : uint16_t{502}, code, std::string(text)};
  for (const auto& message : messages_) message->over = true;
  nghttp2_session_terminate_session(session_, error_code);
  Note(Event::Kind::kError, nullptr);
}

void H2Codec::Flood(std::string_view word) {
  if (failed_) return;
  Fail("flood", "the peer makes more work than a limit allows", NGHTTP2_ENHANCE_YOUR_CALM);
  error_.detail = word;
}

void H2Codec::NoteNearFlood() {
  if (failed_ || near_flood_ || !flood_.low()) return;
  near_flood_ = true;
  Note(Event::Kind::kNearFlood, nullptr);
}

void H2Codec::FailWith(int lib_error) {
  switch (lib_error) {
    case NGHTTP2_ERR_CALLBACK_FAILURE: return Flood(flood_word_);
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
      return Fail("invalid_preface", "the bytes are not HTTP/2", NGHTTP2_PROTOCOL_ERROR);
    case NGHTTP2_ERR_FLOODED: return Flood("control_frames");
    default: return FailAsSent(NGHTTP2_INTERNAL_ERROR);
  }
}

void H2Codec::FailAsSent(uint32_t error_code) {
  const auto [code, text] = WordsOf(error_code);
  Fail(code, text, error_code);
}

bool H2Codec::reusable() const {
  if (failed_ || goaway_ || closing_ || peer_ended_) return false;
  return server() || (nghttp2_session_check_request_allowed(session_) != 0 &&
                      nghttp2_session_get_next_stream_id(session_) < kLastStream);
}

void H2Codec::Reap() {
  if (telling_ || feeding_ || closed_ == 0) return;
  closed_ = 0;
  found_ = nullptr;
  std::vector<std::unique_ptr<H2Message>>& spare = Spare();
  size_t kept = 0;
  for (std::unique_ptr<H2Message>& message : messages_) {
    if (!message->closed) {
      std::swap(messages_[kept++], message);
    } else if (spare.size() < kSpareMax) {
      message->Reset();
      spare.push_back(std::move(message));
    }
  }
  messages_.resize(kept);
  if (open_ > 0) return;
  if (messages_.capacity() > kMessagesKept) messages_.shrink_to_fit();
  if (events_.capacity() > kEventsKept) events_.shrink_to_fit();
}

}  // namespace penstock
