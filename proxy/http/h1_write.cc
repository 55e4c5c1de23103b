// The writing half of H1Codec: heads into the gather's scratch space, bodies by
// reference between chunk sizes.
#include <charconv>
#include <cstring>

#include "proxy/base/check.h"
#include "proxy/http/h1_codec.h"
#include "proxy/http/h1_rules.h"

namespace penstock {
namespace {

// Not 0 if one of the eight bytes is 0 (the classic of counting borrows).
constexpr uint64_t HasZero(uint64_t word) {
  return (word - 0x0101010101010101) & ~word & 0x8080808080808080;
}

// A value that could end its line early is never written.
bool Writable(std::string_view text) {
  const auto bad = [&text](size_t at) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, sizeof word);
    return HasZero(word) | HasZero(word ^ 0x0a0a0a0a0a0a0a0a) | HasZero(word ^ 0x0d0d0d0d0d0d0d0d);
  };
  if (text.size() >= 8) {
    uint64_t found = bad(text.size() - 8);  // Overlaps the last whole step.
    for (size_t i = 0; i + 8 < text.size(); i += 8) found |= bad(i);
    return found == 0;
  }
  for (const char c : text) {
    if (c == '\r' || c == '\n' || c == '\0') return false;
  }
  return true;
}

class Digits {
 public:
  explicit Digits(uint64_t value, int base = 10)
      : size_(static_cast<size_t>(std::to_chars(text_, text_ + sizeof(text_), value, base).ptr - text_)) {}
  operator std::string_view() const { return {text_, size_}; }

 private:
  char text_[20];
  size_t size_;
};

constexpr uint64_t Bit(KnownHeader id) { return uint64_t{1} << static_cast<unsigned>(id); }

// Written by the codec itself, whoever else brings them; Expect never is, since
// whoever reads the request answers it.
constexpr uint64_t kOwnedByCodec =
    Bit(KnownHeader::kConnection) | Bit(KnownHeader::kContentLength) | Bit(KnownHeader::kExpect) |
    Bit(KnownHeader::kHost) | Bit(KnownHeader::kKeepAlive) | Bit(KnownHeader::kProxyConnection) |
    Bit(KnownHeader::kTransferEncoding);

// Several small pieces at the price of one.
template <typename... Pieces>
void CopyAll(Gather& out, const Pieces&... pieces) {
  char* at = out.Extend((std::string_view(pieces).size() + ...));
  if (at == nullptr) return (out.Copy(pieces), ...);
  const auto put = [&at](std::string_view piece) {
    piece.copy(at, piece.size());
    at += piece.size();
  };
  (put(pieces), ...);
}

// The end of the line that the field stands in, or nullptr where it stands in none
// or was changed since.
const char* EndOfLine(const Header& header) {
  const char* const end = header.value.data() + header.value.size();
  const bool whole = header.line && header.value.data() == header.name.data() + header.name.size() + 2 &&
                     std::memcmp(end, "\r\n", 2) == 0;
  return whole ? end + 2 : nullptr;
}

}  // namespace

// Fields that stand behind one another in a codec's storage are passed on as one
// piece: whoever parsed them let no byte through that could end a line early.
void H1Codec::WriteHeaders(Gather& out, std::span<const Header> headers) {
  const char* begin = nullptr;
  const char* end = nullptr;
  const auto flush = [&] {
    if (begin != end) out.Copy({begin, static_cast<size_t>(end - begin)});
    begin = end = nullptr;
  };
  for (const Header& header : headers) {
    if (header.dropped || (kOwnedByCodec & Bit(header.id)) != 0) continue;
    if (const char* const line_end = EndOfLine(header); line_end != nullptr) {
      if (header.name.data() != end) {
        flush();
        begin = header.name.data();
      }
      end = line_end;
      continue;
    }
    flush();
    const bool name_known = header.id != KnownHeader::kOther;  // And so made of harmless bytes.
    if ((name_known || Writable(header.name)) && Writable(header.value)) {
      CopyAll(out, header.name, ": ", header.value, "\r\n");
    }
  }
  flush();
}

void H1Codec::Open(Framing framing, uint64_t length) {
  outgoing_.framing = framing;
  outgoing_.left = framing == Framing::kLength ? length : 0;
  outgoing_.open = framing == Framing::kChunked || framing == Framing::kUntilClose ||
                   (framing == Framing::kLength && length > 0);
}

MessageId H1Codec::WriteRequest(Gather& out, const RequestHead& head,
                                std::span<const Header> extra) {
  CHECK(!server() && !exchange_open_ && !outgoing_.open);
  ++id_;
  if (state_ == State::kWaiting && !peer_ended_) BeginMessage();
  exchange_open_ = true;
  interim_count_ = 0;
  to_head_ = head.method == "HEAD";
  upgrade_asked_ = head.upgrade;
  const Header* const host = Find(head.headers, KnownHeader::kHost);
  const std::string_view authority =
      host != nullptr && !host->dropped ? host->value : head.authority;

  CopyAll(out, head.method, " ", head.target, " HTTP/1.1\r\nhost: ", authority, "\r\n");
  WriteHeaders(out, head.headers);
  WriteHeaders(out, extra);
  const Framing framing =
      head.framing == Framing::kUntilClose ? Framing::kChunked : head.framing;
  Open(framing, head.content_length);
  if (framing == Framing::kChunked) {
    out.Copy("transfer-encoding: chunked\r\n");
  } else if (framing == Framing::kLength || head.method == "POST" || head.method == "PUT" ||
             head.method == "PATCH") {
    CopyAll(out, "content-length: ", Digits(outgoing_.left), "\r\n");
  }
  if (upgrade_asked_) {
    out.Copy("connection: upgrade\r\n");
  } else if (closing_) {
    out.Copy("connection: close\r\n");
  }
  out.Copy("\r\n");
  return id_;
}

void H1Codec::WriteResponse(Gather& out, MessageId id, const ResponseHead& head,
                            std::span<const Header> extra) {
  CHECK(server() && id <= id_ && !answered_);   // A refused head has no id of its own.
  answered_ = true;
  const bool bodiless = head.status < 200 || head.status == 204 || head.status == 304;
  Framing framing = head.framing;
  if (framing == Framing::kUntilClose) framing = Framing::kChunked;
  if (framing == Framing::kChunked && minor_version_ == 0) {
    framing = Framing::kUntilClose;
    keep_alive_ = false;
  }
  if (state_ == State::kFailed) keep_alive_ = false;

  std::string_view reason = head.reason.empty() ? ReasonPhrase(head.status) : head.reason;
  if (!Writable(reason)) reason = {};
  CopyAll(out, "HTTP/1.1 ", Digits(head.status), " ", reason, "\r\n");
  WriteHeaders(out, head.headers);
  WriteHeaders(out, extra);
  if (bodiless) {
    framing = Framing::kNone;
  } else if (framing == Framing::kChunked) {
    out.Copy("transfer-encoding: chunked\r\n");
  } else if (framing == Framing::kLength || (framing == Framing::kNone && !to_head_)) {
    const uint64_t length = framing == Framing::kLength ? head.content_length : 0;
    CopyAll(out, "content-length: ", Digits(length), "\r\n");
  }
  Open(to_head_ ? Framing::kNone : framing, head.content_length);
  if (head.status == 101) {
    tunnel_ = true;
    keep_alive_ = false;
    if (state_ == State::kWaiting) state_ = State::kTunnel;
    Open(Framing::kUntilClose, 0);
    out.Copy("connection: upgrade\r\n");
  } else if (!keep_alive_ || closing_ || peer_ended_) {
    keep_alive_ = false;
    out.Copy("connection: close\r\n");
  } else if (minor_version_ == 0) {
    out.Copy("connection: keep-alive\r\n");
  }
  out.Copy("\r\n");
}

void H1Codec::WriteContinue(Gather& out, MessageId id) {
  CHECK(server() && id == id_);
  if (answered_ || minor_version_ == 0) return;
  out.Copy("HTTP/1.1 100 Continue\r\n\r\n");
}

void H1Codec::WriteBody(Gather& out, MessageId id, std::string_view data) {
  CHECK(id <= id_);
  if (!outgoing_.open || data.empty()) return;
  switch (outgoing_.framing) {
    case Framing::kNone:
      return;
    case Framing::kUntilClose:
      return out.Reference(data);
    case Framing::kChunked:
      CopyAll(out, Digits(data.size(), 16), "\r\n");
      out.Reference(data);
      return out.Copy("\r\n");
    case Framing::kLength:
      if (data.size() > outgoing_.left) {
        data = data.substr(0, outgoing_.left);
        keep_alive_ = false;
      }
      out.Reference(data);
      outgoing_.left -= data.size();
      if (outgoing_.left == 0) outgoing_.open = false;
  }
}

void H1Codec::WriteEnd(Gather& out, MessageId id, std::span<const Header> trailers) {
  CHECK(id <= id_);
  if (!outgoing_.open) return;
  outgoing_.open = false;
  if (outgoing_.framing == Framing::kChunked) {
    out.Copy("0\r\n");
    WriteHeaders(out, trailers);
    out.Copy("\r\n");
  } else {
    // Fewer bytes than announced, or an end that only closing shows.
    keep_alive_ = false;
  }
}

void H1Codec::WriteReset(Gather& out, MessageId id, uint32_t error_code) {
  (void)out, (void)id, (void)error_code;
  outgoing_.open = false;
  keep_alive_ = false;
  state_ = State::kFailed;
}

void H1Codec::StartClosing(Gather& out) {
  (void)out;
  closing_ = true;
}

}  // namespace penstock
