// The writing half of H2Codec: heads and ends are handed to nghttp2, which frames
// all; bodies are framed around the owner's bytes as far as the windows go.
//
// A head that a body follows is written with the body's first bytes, or by Pump().
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "proxy/base/check.h"
#include "proxy/http/h2_codec.h"

namespace penstock {
namespace {

using Writing = H2Message::Writing;

const uint8_t* Bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// Of this connection alone, or written by the codec itself; Expect is answered by
// whoever reads the request.
bool StaysHere(KnownHeader id) {
  switch (id) {
    case KnownHeader::kConnection:
    case KnownHeader::kContentLength:
    case KnownHeader::kExpect:
    case KnownHeader::kHost:
    case KnownHeader::kKeepAlive:
    case KnownHeader::kProxyConnection:
    case KnownHeader::kTe:
    case KnownHeader::kTransferEncoding:
    case KnownHeader::kUpgrade:
      return true;
    default:
      return false;
  }
}

constexpr auto kOfTokens = [] {
  std::array<bool, 256> fine{};
  for (const unsigned char c : std::string_view("!#$%&'*+-.^_`|~0123456789")) fine[c] = true;
  for (unsigned char c = 'a'; c <= 'z'; ++c) fine[c] = fine[c - 'a' + 'A'] = true;
  return fine;
}();

bool IsToken(std::string_view name) {
  const auto fine = [](char c) { return kOfTokens[static_cast<unsigned char>(c)]; };
  return !name.empty() && std::all_of(name.begin(), name.end(), fine);
}

// Not 0, and another bit for each: fields whose values never come again. In the peer's
// table these would only push out others, and nghttp2 would compare each new one with all
// of them. The first one goes in all the same, for its name.
uint8_t ComesOnce(const Header& header) {
  if (header.id != KnownHeader::kOther) return header.id == KnownHeader::kXRequestId ? 1 : 0;
  switch (header.name.size()) {
    case 11: return EqualsIgnoringCase(header.name, "traceparent") ? 2 : 0;
    case 12: return EqualsIgnoringCase(header.name, "grpc-timeout") ? 4 : 0;
    case 20: return EqualsIgnoringCase(header.name, "x-request-timeout-ms") ? 8 : 0;
    default: return 0;
  }
}

// As RFC 9113 8.2.1 has it: no control characters but a tab, no blanks at the ends.
// nghttp2's own check looks at one byte at a time.
bool IsFieldValue(std::string_view value) {
  if (value.empty()) return true;
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  if (blank(value.front()) || blank(value.back())) return false;
  constexpr uint64_t kOnes = 0x0101010101010101, kHighs = 0x8080808080808080;
  const auto suspect = [](uint64_t word) {   // Some byte is below 0x20 or is 0x7f.
    const uint64_t low = (word - kOnes * 0x20) & ~word;
    const uint64_t del = word ^ (kOnes * 0x7f);
    return ((low | ((del - kOnes) & ~del)) & kHighs) != 0;
  };
  size_t at = 0;
  bool look = false;
  for (; at + sizeof(uint64_t) <= value.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, value.data() + at, sizeof word);
    look |= suspect(word);
  }
  if (!look && at == value.size()) return true;
  if (look) at = 0;
  return std::all_of(value.begin() + static_cast<ptrdiff_t>(at), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 0x20 && byte != 0x7f) || c == '\t';
  });
}

// One header block for nghttp2, which copies it and writes names in lower case: but for
// names that are known, since those are so and stay.
class Block {
 public:
  explicit Block(uint8_t& named) : named_(named) {}

  // `name` is one for all time, in lower case.
  void AddKnown(std::string_view name, std::string_view value, uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
    Add(name, value, flags | NGHTTP2_NV_FLAG_NO_COPY_NAME);
  }
  void Add(std::string_view name, std::string_view value, uint8_t flags) {
    fields_.push_back({const_cast<uint8_t*>(Bytes(name)), const_cast<uint8_t*>(Bytes(value)),
                       name.size(), value.size(), flags});
  }
  // Without a field that no peer would take.
  void Add(std::span<const Header> headers) {
    for (const Header& header : headers) {
      // TE may say one thing on HTTP/2 (RFC 9113 8.2.2), and gRPC servers want to hear it.
      const bool te = header.id == KnownHeader::kTe && header.value == "trailers";
      if (header.dropped || (StaysHere(header.id) && !te)) continue;
      if (header.id == KnownHeader::kOther && !IsToken(header.name)) continue;
      if (!IsFieldValue(header.value)) continue;
      const uint8_t once = ComesOnce(header);
      const uint8_t flags = (named_ & once) != 0 ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE;
      named_ |= once;
      if (header.id == KnownHeader::kOther) {
        Add(header.name, header.value, flags);
      } else {
        AddKnown(NameOf(header.id), header.value, flags);
      }
    }
  }
  void AddStatus(uint16_t status) { AddNumber(":status", status, status_); }
  void AddLength(uint64_t length) { AddNumber("content-length", length, length_); }

  const nghttp2_nv* data() const { return fields_.data(); }
  size_t size() const { return fields_.size(); }

 private:
  using Digits = std::array<char, 20>;

  void AddNumber(std::string_view name, uint64_t value, Digits& digits) {
    const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    AddKnown(name, {digits.data(), static_cast<size_t>(result.ptr - digits.data())});
  }

  uint8_t& named_;   // Of the connection: what its peer has had of ComesOnce().

  absl::InlinedVector<nghttp2_nv, 48> fields_;
  Digits status_, length_;
};

}  // namespace

struct H2Source {
  static ssize_t Read(nghttp2_session* session, int32_t stream, uint8_t*, size_t size,
                      uint32_t* flags, nghttp2_data_source*, void* user_data) {
    auto* const message =
        static_cast<H2Message*>(nghttp2_session_get_stream_user_data(session, stream));
    if (message == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    bool last = false;
    const size_t offered = static_cast<H2Codec*>(user_data)->Offer(*message, size, last);
    if (offered == 0 && !last) return NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!last) return static_cast<ssize_t>(offered);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!message->trailers_to_send.empty()) {
      Block block(static_cast<H2Codec*>(user_data)->named_);
      block.Add(message->trailers_to_send);
      if (block.size() > 0 &&
          nghttp2_submit_trailer(session, stream, block.data(), block.size()) == 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      }
    }
    return static_cast<ssize_t>(offered);
  }

  static nghttp2_data_provider Provider() {
    nghttp2_data_provider provider{};
    provider.read_callback = Read;
    return provider;
  }
};

// How many bytes of its body fit into a frame of `size`, and whether they are the last.
size_t H2Codec::Offer(H2Message& message, size_t size, bool& last) {
  const size_t waiting = message.unsent.size() + (direct_of_ == &message ? direct_.size() : 0);
  last = waiting <= size && message.ended();
  return std::min(waiting, size);
}

void H2Codec::WriteFrame(H2Message& message, std::string_view head, size_t size) {
  out_->Copy(head);
  const size_t kept = std::min(size, message.unsent.size());
  if (kept > 0) {
    out_->Copy(message.unsent.view().substr(0, kept));
    message.unsent.Take(kept);
    if (message.above_mark && message.unsent.size() <= kUnsentMark / 2) {
      message.above_mark = false;
      Note(Event::Kind::kWritable, &message);
    }
  }
  if (size == kept) return;
  CHECK(direct_of_ == &message && size - kept <= direct_.size());
  out_->Reference(direct_.substr(0, size - kept));
  direct_.remove_prefix(size - kept);
}

void H2Codec::Drain(Gather& out) {
  CHECK(out_ == nullptr);
  out_ = &out;
  const uint8_t* bytes = nullptr;
  ssize_t size = 0;
  while ((size = nghttp2_session_mem_send(session_, &bytes)) > 0) {
    out.Copy({reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)});
  }
  out_ = nullptr;
  if (size < 0) FailWith(static_cast<int>(size));
}

void H2Codec::Flush(Gather& out) {
  if (out.empty()) flood_.OnTaken();
  if (!said_.empty()) {
    out.Copy(said_);
    std::string().swap(said_);
  }
  Drain(out);
  if (!flood_word_.empty() && !failed_) {
    Flood(flood_word_);
    Drain(out);
  }
  flood_.OnWritten();
}

void H2Codec::Pump(Gather& out) {
  do {
    Flush(out);
    NoteNearFlood();
  } while (Tell());
  Reap();
}

void H2Codec::BeginBody(H2Message& message, Framing framing, uint64_t length) {
  message.framing = framing;
  message.left = framing == Framing::kLength ? length : 0;
  const bool none = framing == Framing::kNone || (framing == Framing::kLength && length == 0);
  message.writing = none ? Writing::kEnded : Writing::kBody;
}

MessageId H2Codec::WriteRequest(Gather& out, const RequestHead& head,
                                std::span<const Header> extra) {
  CHECK(!server());
  const Header* const host = penstock::Find(head.headers, KnownHeader::kHost);
  const std::string_view authority =
      host != nullptr && !host->dropped ? host->value : head.authority;
  Block block(named_);
  block.AddKnown(":method", head.method);
  block.AddKnown(":scheme", head.scheme.empty() ? std::string_view("http") : head.scheme);
  if (!authority.empty()) block.AddKnown(":authority", authority);
  block.AddKnown(":path", head.target);
  block.Add(head.headers);
  block.Add(extra);
  if (head.framing == Framing::kLength) block.AddLength(head.content_length);

  const bool bodiless = head.framing == Framing::kNone ||
                        (head.framing == Framing::kLength && head.content_length == 0);
  const nghttp2_data_provider body = H2Source::Provider();
  const bool too_late = !reusable();
  const auto id = static_cast<MessageId>(nghttp2_session_get_next_stream_id(session_));
  H2Message& message = Open(id);
  message.told = true;
  message.to_head = head.method == "HEAD";
  BeginBody(message, head.framing, head.content_length);
  const int32_t given = nghttp2_submit_request(session_, nullptr, block.data(), block.size(),
                                               bodiless ? nullptr : &body, &message);
  CHECK(given == static_cast<int32_t>(id));
  if (too_late && !failed_) {
    message.over = true;
    message.error_code = kRefusedStream;
    Note(Event::Kind::kReset, &message);
    SubmitReset(message, kRefusedStream);   // Takes it back: it is not sent.
  }
  flood_.OnStreamOpened();
  if (too_late) Flush(out);   // Otherwise with its body, or when the turn ends.
  return id;
}

void H2Codec::WriteResponse(Gather& out, MessageId id, const ResponseHead& head,
                            std::span<const Header> extra) {
  CHECK(server());
  H2Message* const message = FindOpen(id);
  if (message == nullptr || message->writing != Writing::kNothing) return;
  Block block(named_);
  block.AddStatus(head.status);
  block.Add(head.headers);
  block.Add(extra);
  if (head.status == 101) return WriteReset(out, id, kInternalError);   // No such thing here.
  if (head.status < 200) {
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(id), nullptr,
                           block.data(), block.size(), nullptr);
    return Flush(out);
  }
  const bool bodiless = head.status == 204 || head.status == 304;
  if (head.framing == Framing::kLength && !bodiless) block.AddLength(head.content_length);
  BeginBody(*message, bodiless || message->to_head ? Framing::kNone : head.framing,
            head.content_length);
  const nghttp2_data_provider body = H2Source::Provider();
  nghttp2_submit_response(session_, static_cast<int32_t>(id), block.data(), block.size(),
                          message->ended() ? nullptr : &body);
  if (message->ended()) Flush(out);   // Otherwise with its body, or when the turn ends.
}

void H2Codec::WriteContinue(Gather& out, MessageId id) {
  CHECK(server());
  H2Message* const message = FindOpen(id);
  if (message == nullptr || message->writing != Writing::kNothing) return;
  Block block(named_);
  block.AddStatus(100);
  nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(id), nullptr,
                         block.data(), block.size(), nullptr);
  Flush(out);
}

void H2Codec::WriteBody(Gather& out, MessageId id, std::string_view data) {
  H2Message* const message = FindOpen(id);
  if (message == nullptr || message->writing != Writing::kBody || data.empty()) return;
  if (message->framing == Framing::kLength) {
    data = data.substr(0, message->left);
    message->left -= data.size();
    if (message->left == 0) message->writing = Writing::kEnded;
  }
  direct_of_ = message;
  direct_ = data;
  nghttp2_session_resume_data(session_, static_cast<int32_t>(id));
  Flush(out);
  direct_of_ = nullptr;
  const std::string_view rest = std::exchange(direct_, {});
  if (!rest.empty() && !message->over) KeepUnsent(*message, rest);
}

void H2Codec::KeepUnsent(H2Message& message, std::string_view rest) {
  if (message.unsent.size() > kUnsentMark + limits_.h2.unsent_bytes) {
    // Its owner does not look at unsent(); the message is not worth the connection.
    SubmitReset(message, NGHTTP2_INTERNAL_ERROR);
    return;
  }
  message.unsent.Append(rest);
  if (message.unsent.size() > kUnsentMark) message.above_mark = true;
}

void H2Codec::WriteEnd(Gather& out, MessageId id, std::span<const Header> trailers) {
  H2Message* const message = FindOpen(id);
  if (message == nullptr || message->writing != Writing::kBody) return;
  if (message->framing == Framing::kLength) return WriteReset(out, id, kInternalError);
  message->writing = Writing::kEnded;
  const auto sent = static_cast<size_t>(std::count_if(
      trailers.begin(), trailers.end(), [](const Header& trailer) { return !trailer.dropped; }));
  if (sent > 0) {
    const std::span<Header> kept = message->arena.Array<Header>(sent);
    size_t count = 0;
    for (const Header& trailer : trailers) {
      if (trailer.dropped || kept.empty()) continue;
      kept[count] = {message->arena.Copy(trailer.name), message->arena.Copy(trailer.value),
                     trailer.id};
      if (kept[count].name.data() == nullptr || kept[count].value.data() == nullptr) break;
      ++count;
    }
    if (count < sent) return WriteReset(out, id, kInternalError);
    message->trailers_to_send = kept;
  }
  nghttp2_session_resume_data(session_, static_cast<int32_t>(id));
  Flush(out);
}

void H2Codec::SubmitReset(H2Message& message, uint32_t error_code) {
  message.reset_ours = true;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(message.id),
                            error_code);
}

void H2Codec::WriteReset(Gather& out, MessageId id, uint32_t error_code) {
  H2Message* const message = Find(id);
  if (message == nullptr || message->quiet) return;
  message->quiet = true;
  if (!message->over) {
    message->over = true;
    SubmitReset(*message, error_code);
  }
  if (!failed_) Flush(out);
}

void H2Codec::StartClosing(Gather& out) {
  if (failed_ || std::exchange(closing_, true)) return;
  if (server()) {
    nghttp2_submit_shutdown_notice(session_);
  } else {
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, nullptr, 0);
  }
  Flush(out);
}

void H2Codec::FinishClosing(Gather& out, uint32_t error_code) {
  if (failed_ || !server() || std::exchange(finished_, true)) return;
  closing_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), error_code, nullptr,
                        0);
  Flush(out);
}

void H2Codec::WritePing(Gather& out) {
  if (failed_) return;
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  Flush(out);
}

size_t H2Codec::unsent(MessageId id) const {
  const H2Message* const message = Find(id);
  return message == nullptr ? 0 : message->unsent.size() + message->lost;
}

size_t H2Codec::room() const {
  if (server() || !reusable()) return 0;
  const uint32_t allowed = std::min(
      limits_.h2.concurrent_streams,
      nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS));
  return allowed > open_ ? allowed - open_ : 0;
}

}  // namespace penstock
