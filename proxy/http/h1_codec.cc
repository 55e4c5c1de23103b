#include "proxy/http/h1_codec.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/http/h1_rules.h"

namespace penstock {
namespace {
constexpr size_t kStoreKept = 8 * 1024;   // Of a head's buffer, while no message is read.
constexpr int kInterimMax = 8;
constexpr std::string_view kBeforeVersion = "HTTP/";
}  // namespace

struct H1Callbacks {
  static H1Codec& Of(llhttp_t* parser) { return *static_cast<H1Codec*>(parser->data); }

  template <int (H1Codec::*kMember)(std::string_view)>
  static int Span(llhttp_t* parser, const char* at, size_t length) {
    return (Of(parser).*kMember)({at, length});
  }
  template <int (H1Codec::*kMember)()>
  static int Event(llhttp_t* parser) {
    return (Of(parser).*kMember)();
  }
  static int Begin(llhttp_t* parser) {
    Of(parser).begun_ = true;
    return 0;
  }
  static int Version(llhttp_t* parser, const char* at, size_t) { return Of(parser).OnVersion(at); }
  static int Extension(llhttp_t* parser, const char*, size_t length) {
    return Of(parser).OnExtension(length);
  }
  static int Body(llhttp_t* parser, const char* at, size_t length) {
    H1Codec& codec = Of(parser);
    codec.receiver_.OnBody(codec.id_, {at, length});
    return codec.state_ == H1Codec::State::kFailed ? HPE_USER : 0;
  }
  static int MessageEnd(llhttp_t* parser) {
    Of(parser).message_over_ = true;
    return HPE_PAUSED;
  }

  // What stands before a bad byte in its field or target is told by llhttp only where the
  // bytes were cut in between. Told always, a limit that it exceeds has the same say.
  static void TellOpenPart(llhttp_t& parser) {
    const auto* const begin = static_cast<const char*>(parser._span_pos0);
    if (begin == nullptr) return;
    using Tell = int (*)(llhttp_t*, const char* begin, const char* end);
    reinterpret_cast<Tell>(parser._span_cb0)(&parser, begin, llhttp_get_error_pos(&parser));
  }

  static const llhttp_settings_t& Settings() {
    static const llhttp_settings_t settings = [] {
      llhttp_settings_t s;
      llhttp_settings_init(&s);
      s.on_message_begin = Begin;
      s.on_url = Span<&H1Codec::OnTarget>;
      s.on_status = Span<&H1Codec::OnReason>;
      s.on_version = Version;
      s.on_version_complete = Event<&H1Codec::OnVersionEnd>;
      s.on_header_field = Span<&H1Codec::OnFieldName>;
      s.on_header_field_complete = Event<&H1Codec::OnFieldNameEnd>;
      s.on_header_value = Span<&H1Codec::OnFieldValue>;
      s.on_headers_complete = Event<&H1Codec::OnHeadEnd>;
      s.on_chunk_extension_name = Extension;
      s.on_chunk_extension_value = Extension;
      s.on_body = Body;
      s.on_message_complete = MessageEnd;
      return s;
    }();
    return settings;
  }
};

std::unique_ptr<Codec> MakeH1Codec(CodecRole role, CodecReceiver& receiver,
                                   const CodecLimits& limits) {
  return std::make_unique<H1Codec>(role, receiver, limits);
}

H1Codec::H1Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits)
    : role_(role),
      receiver_(receiver),
      limits_(limits),
      state_(role == CodecRole::kServer ? State::kReading : State::kWaiting) {
  llhttp_init(&parser_, server() ? HTTP_REQUEST : HTTP_RESPONSE, &H1Callbacks::Settings());
  parser_.data = this;
}

void H1Codec::FieldStore::BeginField() {
  EndLine();
  if (data == nullptr) Grow(0);   // Trailers: no start line stands before them.
  headers.emplace_back().name = {data.get() + used, 0};
}

void H1Codec::FieldStore::EndName() {
  Append(": ");
  Header& field = headers.back();
  field.id = LookUpHeader(field.name);
  field.value = {data.get() + used, 0};
}

// Ends the line of the last field: with the next one or with the head, which spares
// llhttp a callback. It skips blanks before a value and leaves those behind it.
void H1Codec::FieldStore::EndLine() {
  if (headers.empty() || headers.back().line) return;
  std::string_view& value = headers.back().value;
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1), --used;
  Append("\r\n");
  headers.back().line = true;
}

void H1Codec::FieldStore::Grow(size_t more) {
  const size_t wanted = std::max<size_t>({used + more, room * 2, 512});
  auto larger = std::make_unique<char[]>(wanted);
  if (used > 0) std::memcpy(larger.get(), data.get(), used);
  const auto follow = [&](std::string_view& view) {
    if (view.data() != nullptr) view = {larger.get() + (view.data() - data.get()), view.size()};
  };
  for (Header& field : headers) follow(field.name), follow(field.value);
  data = std::move(larger);
  room = wanted;
}

void H1Codec::FieldStore::Clear() {
  headers.clear();
  used = 0;
  if (room > kStoreKept) data.reset(), room = 0;
}

size_t H1Codec::Feed(std::string_view bytes) {
  if (!server() && state_ == State::kWaiting && !bytes.empty()) {
    Fail({502, "unsolicited_bytes", "bytes came although no request was under way"});
    return 0;
  }
  size_t taken = 0;
  while (taken < bytes.size() && state_ == State::kReading) taken += Parse(bytes.substr(taken));
  if (taken < bytes.size() && state_ == State::kTunnel) {
    receiver_.OnBody(id_, bytes.substr(taken));
    return bytes.size();
  }
  return state_ == State::kDone ? bytes.size() : taken;
}

size_t H1Codec::Parse(std::string_view bytes) {
  const size_t offered =
      head_done_ ? bytes.size() : std::min(bytes.size(), limits_.header_bytes - head_bytes_);
  feed_begin_ = bytes.data();
  const llhttp_errno_t error = llhttp_execute(&parser_, bytes.data(), offered);
  size_t taken = offered;
  if (error == HPE_PAUSED && message_over_) {
    taken = static_cast<size_t>(llhttp_get_error_pos(&parser_) - bytes.data());
  } else if (error != HPE_OK) {
    if (state_ == State::kFailed) return 0;
    if (!refused_) H1Callbacks::TellOpenPart(parser_);
    Fail(refused_ ? std::move(refusal_) : ErrorOf(error));
    return 0;
  }
  if (!head_done_) {
    head_bytes_ += taken;
    if (!version_seen_) {
      const std::string_view seen = bytes.substr(0, taken);
      const size_t last = std::min(seen.size(), kBeforeVersion.size());
      before_.append(seen.substr(seen.size() - last));
      if (before_.size() > kBeforeVersion.size()) {
        before_.erase(0, before_.size() - kBeforeVersion.size());
      }
    }
    if (head_bytes_ >= limits_.header_bytes) {
      Fail({431, "headers_too_large", "the header is larger than the limit"});
      return taken;
    }
  }
  if (message_over_) FinishMessage(taken < bytes.size());
  return taken;
}

int H1Codec::OnTarget(std::string_view part) {
  target_bytes_ += part.size();
  const std::string_view method =
      llhttp_method_name(static_cast<llhttp_method_t>(llhttp_get_method(&parser_)));
  constexpr size_t kRest = std::string_view("  HTTP/1.1").size();
  if (method.size() + target_bytes_ + kRest > limits_.request_line_bytes) {
    return Refuse(414, "request_line_too_long", "the request line is longer than the limit");
  }
  head_.Append(part);
  return 0;
}

// llhttp also takes RTSP/ and ICE/ here.
int H1Codec::OnVersion(const char* at) {
  if (version_seen_) return 0;
  version_seen_ = true;
  const std::string_view here(feed_begin_, static_cast<size_t>(at - feed_begin_));
  if (here.size() >= kBeforeVersion.size()) {
    if (here.ends_with(kBeforeVersion)) return 0;
  } else {
    before_.append(here);
    if (before_.ends_with(kBeforeVersion)) return 0;
  }
  return Refuse(400, "invalid_version", "the protocol is not HTTP");
}

int H1Codec::OnVersionEnd() {
  if (parser_.http_major == 1 && parser_.http_minor <= 1) return 0;
  if (server() && parser_.method == HTTP_PRI) return 0;   // llhttp looks at the whole preface.
  return Refuse(server() ? 505 : 502, "unsupported_version",
                "the only versions that are understood are HTTP/1.0 and HTTP/1.1");
}

int H1Codec::OnReason(std::string_view part) {
  target_bytes_ += part.size();
  head_.Append(part);
  return 0;
}

int H1Codec::OnFieldName(std::string_view part) {
  FieldStore& fields = store();
  if (!field_open_) {
    field_open_ = true;
    if (head_.headers.size() + trailers_.headers.size() >= limits_.header_count) {
      return Refuse(431, "too_many_headers", "there are more header fields than the limit");
    }
    fields.BeginField();
  }
  fields.Append(part);
  std::string_view& name = fields.headers.back().name;
  name = {name.data(), name.size() + part.size()};
  return head_done_ ? CheckTrailers() : 0;
}

int H1Codec::OnFieldNameEnd() {
  store().EndName();
  field_open_ = false;
  return 0;
}

int H1Codec::OnFieldValue(std::string_view part) {
  FieldStore& fields = store();
  fields.Append(part);
  std::string_view& value = fields.headers.back().value;
  value = {value.data(), value.size() + part.size()};
  return head_done_ ? CheckTrailers() : 0;
}

int H1Codec::CheckTrailers() {
  if (trailers_.used <= limits_.header_bytes) return 0;
  return Refuse(431, "headers_too_large", "the trailers are larger than the limit");
}

int H1Codec::OnHeadEnd() {
  head_done_ = true;
  parser_.upgrade = 0;   // What follows a request to upgrade is HTTP until a 101 was written.
  if (const int error = OnVersionEnd(); error != 0) return error;
  head_.EndLine();
  const int result = server() ? OnRequestHead() : OnResponseHead();
  return state_ == State::kFailed ? HPE_USER : result;
}

int H1Codec::OnRequestHead() {
  request_ = {};
  request_.method =
      llhttp_method_name(static_cast<llhttp_method_t>(llhttp_get_method(&parser_)));
  request_.target = head_.bytes().substr(0, target_bytes_);
  request_.headers = head_.headers;
  request_.minor_version = parser_.http_minor;
  if (std::optional<ProtocolError> error = ReadRequestHead(request_, limits_.paths, target_)) {
    return Refuse(error->status, error->code, error->message);
  }
  ++id_;
  exchange_open_ = true;
  to_head_ = request_.method == "HEAD";
  minor_version_ = request_.minor_version;
  keep_alive_ = keep_alive_ && request_.keep_alive;
  receiver_.OnRequest(id_, request_);
  return 0;
}

// 1 tells llhttp that no body follows.
int H1Codec::OnResponseHead() {
  response_ = {};
  response_.status = parser_.status_code;
  response_.reason = head_.bytes().substr(0, target_bytes_);
  response_.headers = head_.headers;
  if (std::optional<ProtocolError> error =
          ReadResponseHead(response_, parser_.http_minor, to_head_)) {
    return Refuse(error->status, error->code, error->message);
  }
  if (response_.status < 200 && response_.status != 101) {
    if (++interim_count_ > kInterimMax) {
      return Refuse(502, "too_many_interim", "there are more interim answers than the limit");
    }
    receiver_.OnInterim(id_, response_);
    return 1;
  }
  if (response_.status == 101) {
    if (!upgrade_asked_) return Refuse(502, "unasked_upgrade", "a 101 that nobody asked for");
    response_.keep_alive = false;
    Open(Framing::kUntilClose, 0);
  }
  keep_alive_ = keep_alive_ && response_.keep_alive;
  receiver_.OnResponse(id_, response_);
  return to_head_ || response_.framing == Framing::kNone ? 1 : 0;
}

int H1Codec::OnExtension(size_t bytes) {
  extension_bytes_ += bytes;
  if (extension_bytes_ <= limits_.chunk_extension_bytes) return 0;
  return Refuse(400, "chunk_extensions_too_long", "the chunk extensions are longer than the limit");
}

int H1Codec::Refuse(uint16_t status, std::string_view code, std::string_view message) {
  refused_ = true;
  refusal_ = {server() ? status : uint16_t{502}, code, std::string(message)};
  return HPE_USER;
}

ProtocolError H1Codec::ErrorOf(llhttp_errno_t error) const {
  const uint16_t bad = server() ? 400 : 502;
  switch (error) {
    case HPE_PAUSED_H2_UPGRADE:
      return {505, "http2_preface", "HTTP/2 is not spoken on this connection"};
    case HPE_INVALID_METHOD: return {bad, "invalid_method", "the method is not known"};
    case HPE_INVALID_URL: return {bad, "invalid_target", "the target is not a valid URL"};
    case HPE_INVALID_VERSION:
      return {server() ? uint16_t{505} : bad, "unsupported_version",
              "the only versions that are understood are HTTP/1.0 and HTTP/1.1"};
    case HPE_INVALID_CONSTANT: return {bad, "invalid_start_line", "the first line is not HTTP"};
    case HPE_INVALID_STATUS: return {bad, "invalid_status", "the status line is not valid"};
    case HPE_INVALID_HEADER_TOKEN:
    case HPE_UNEXPECTED_SPACE:
      return {bad, "invalid_header", "a header field has a character that it may not have"};
    case HPE_CR_EXPECTED:
    case HPE_LF_EXPECTED:
      return {bad, "invalid_line_end", "a line does not end with CR LF"};
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
    case HPE_INVALID_TRANSFER_ENCODING:
      return {bad, "invalid_framing", "Content-Length or Transfer-Encoding is not valid"};
    case HPE_INVALID_CHUNK_SIZE:
    case HPE_STRICT:
      return {bad, "invalid_chunk", "the chunked body is not valid"};
    case HPE_INVALID_EOF_STATE:
      return {bad, "unexpected_end", "the connection ended in the middle of a message"};
    default: return {bad, "invalid_http", "the bytes are not HTTP/1"};
  }
}

void H1Codec::Fail(ProtocolError error) {
  state_ = State::kFailed;
  receiver_.OnProtocolError(error);
}

void H1Codec::FeedEnd() {
  if (peer_ended_ || state_ == State::kFailed) return;
  peer_ended_ = true;
  if (state_ == State::kTunnel) {
    state_ = State::kDone;
    return receiver_.OnMessageEnd(id_, {});
  }
  if (state_ != State::kReading) return;
  const bool in_answer = !server() && exchange_open_;
  if (in_answer && head_done_ && response_.framing == Framing::kUntilClose) {
    llhttp_finish(&parser_);
    if (message_over_) return FinishMessage(false);
  }
  if (begun_ || in_answer) return Fail(ErrorOf(HPE_INVALID_EOF_STATE));
  state_ = State::kDone;
}

void H1Codec::BeginMessage() {
  llhttp_reset(&parser_);
  state_ = State::kReading;
  begun_ = head_done_ = message_over_ = version_seen_ = field_open_ = false;
  head_bytes_ = target_bytes_ = extension_bytes_ = 0;
  answered_ = to_head_ = tunnel_ = false;
  minor_version_ = 1;
  before_.clear();
  head_.Clear();
  trailers_.Clear();
}

void H1Codec::FinishMessage(bool bytes_follow) {
  begun_ = false;
  trailers_.EndLine();
  DropForbiddenTrailers(trailers_.headers);
  state_ = State::kWaiting;
  if (!server()) return FinishAnswer(bytes_follow);
  receiver_.OnMessageEnd(id_, trailers_.headers);
  if (state_ == State::kWaiting && tunnel_) state_ = State::kTunnel;
  if (state_ == State::kWaiting && next_wanted_) Advance();
}

void H1Codec::FinishAnswer(bool bytes_follow) {
  if (response_.status == 101) {
    state_ = State::kTunnel;
    return;
  }
  if (response_.status < 200) {  // The answer itself is still to come, to the same request.
    const bool to_head = to_head_;
    BeginMessage();
    to_head_ = to_head;
    return;
  }
  exchange_open_ = false;
  if (bytes_follow || outgoing_.open) keep_alive_ = false;
  receiver_.OnMessageEnd(id_, trailers_.headers);
  if (bytes_follow && state_ != State::kFailed) {
    Fail({502, "unsolicited_bytes", "bytes came after the end of the answer"});
  }
}

void H1Codec::NextMessage() {
  if (!server()) return;
  if (state_ == State::kWaiting) {
    Advance();
  } else if (exchange_open_) {
    next_wanted_ = true;
  }
}

void H1Codec::Advance() {
  exchange_open_ = false;
  next_wanted_ = false;
  BeginMessage();
  if (!keep_alive_ || closing_ || peer_ended_) state_ = State::kDone;
}

bool H1Codec::reusable() const {
  if (state_ == State::kFailed || closing_ || peer_ended_ || !keep_alive_) return false;
  return state_ != State::kDone;
}

bool H1Codec::idle() const { return !begun_ && !exchange_open_ && !outgoing_.open; }

}  // namespace penstock
