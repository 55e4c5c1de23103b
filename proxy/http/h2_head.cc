#include "proxy/http/h2_head.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "proxy/base/check.h"
#include "proxy/http/h1_rules.h"

namespace penstock {
namespace {

constexpr size_t kFieldOverhead = 32;   // As RFC 9113 6.5.2 counts.
constexpr size_t kFieldsKept = 64;      // Room that stays from block to block.
constexpr std::string_view kCookie = "cookie";
constexpr std::string_view kBetweenCookies = "; ";

// The methods that HTTP/1 is read with here, so that both are answered alike.
bool IsMethod(std::string_view method) {
  constexpr std::string_view kKnown[] = {
      "GET",   "POST",  "HEAD",   "OPTIONS", "PUT",    "PATCH", "DELETE",   "TRACE",     "QUERY", "COPY",
      "LOCK",  "MKCOL", "MOVE",   "PURGE",   "REPORT", "MERGE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK",
      "BIND",  "LINK",  "UNLINK", "NOTIFY",  "ACL"};
  return std::find(std::begin(kKnown), std::end(kKnown), method) != std::end(kKnown);
}

bool IsCookie(const Header& field) { return field.name == kCookie; }

}  // namespace

void H2Head::Begin() {
  fields_.clear();
  if (fields_.capacity() > kFieldsKept) fields_.shrink_to_fit();
  method_ = scheme_ = authority_ = path_ = {};
  status_ = 0;
  over_limit_ = too_many_ = false;
}

void H2Head::Add(std::string_view name, std::string_view value, Arena& arena,
                 H2FieldCount& count) {
  if (over_limit_) return;
  const bool pseudo = name.starts_with(':');
  if (!pseudo) ++count.fields;
  count.bytes += name.size() + value.size() + kFieldOverhead;
  too_many_ = count.fields > limits_.header_count;
  over_limit_ = too_many_ || count.bytes > limits_.header_bytes;
  if (over_limit_) return;
  const std::string_view kept = arena.Copy(value);
  const KnownHeader id = pseudo ? KnownHeader::kOther : LookUpHeader(name);
  // Names are in lower case here, as a known one is kept already.
  const std::string_view kept_name = pseudo                     ? name
                                     : id == KnownHeader::kOther ? arena.Copy(name)
                                                                 : NameOf(id);
  if (kept.data() == nullptr || kept_name.data() == nullptr) {
    over_limit_ = true;
  } else if (pseudo) {
    AddPseudo(name, kept);
  } else {
    fields_.push_back({kept_name, kept, id});
  }
}

// nghttp2 lets no others through.
void H2Head::AddPseudo(std::string_view name, std::string_view value) {
  switch (name[1]) {
    case 'm': method_ = value; return;
    case 'a': authority_ = value; return;
    case 'p': path_ = value; return;
    case 's':
      if (name[2] == 'c') scheme_ = value;
      if (name[2] == 't') std::from_chars(value.data(), value.data() + value.size(), status_);
      return;
    default: return;
  }
}

ProtocolError H2Head::LimitError(uint16_t status) const {
  if (too_many_) return {status, "too_many_headers", "there are more header fields than the limit"};
  return {status, "headers_too_large", "the header is larger than the limit"};
}

// :authority in place of whatever Host says (RFC 9113 8.3.1).
void H2Head::PlaceHost() {
  if (authority_.empty()) return;
  std::erase_if(fields_, [](const Header& field) { return field.id == KnownHeader::kHost; });
  fields_.insert(fields_.begin(), {"host", authority_, KnownHeader::kHost});
}

// Crumbs become one field again (RFC 9113 8.2.3), where the first one stood.
bool H2Head::JoinCookies(Arena& arena) {
  size_t crumbs = 0, bytes = 0;
  for (const Header& field : fields_) {
    if (IsCookie(field)) ++crumbs, bytes += field.value.size() + kBetweenCookies.size();
  }
  if (crumbs < 2) return true;
  bytes -= kBetweenCookies.size();
  char* const joined = static_cast<char*>(arena.Allocate(bytes, 1));
  if (joined == nullptr) return false;
  const auto first = std::find_if(fields_.begin(), fields_.end(), IsCookie);
  char* at = joined;
  const auto append = [&at](std::string_view text) { at += text.copy(at, text.size()); };
  append(first->value);
  for (auto field = first + 1; field != fields_.end(); ++field) {
    if (!IsCookie(*field)) continue;
    append(kBetweenCookies);
    append(field->value);
  }
  CHECK(at == joined + bytes);   // Else it would end with what others left in the arena.
  first->value = {joined, bytes};
  fields_.erase(std::remove_if(first + 1, fields_.end(), IsCookie), fields_.end());
  return true;
}

bool H2Head::Keep(std::span<Header>& headers, Arena& arena) {
  headers = {};
  if (fields_.empty()) return true;
  headers = arena.Array<Header>(fields_.size());
  if (headers.empty()) return false;
  std::copy(fields_.begin(), fields_.end(), headers.begin());
  return true;
}

std::optional<ProtocolError> H2Head::ReadRequest(RequestHead& head, bool end_stream, Arena& arena) {
  head = {};
  head.method = method_;
  if (method_ == "CONNECT") {
    return ProtocolError{405, "method_not_allowed", "CONNECT is not allowed"};
  }
  if (over_limit_) return LimitError(431);
  if (!IsMethod(method_)) return ProtocolError{400, "invalid_method", "the method is not known"};
  constexpr size_t kRest = std::string_view("  HTTP/1.1").size();
  if (method_.size() + path_.size() + kRest > limits_.request_line_bytes) {
    return ProtocolError{414, "request_line_too_long", "the request line is longer than the limit"};
  }
  if (scheme_ != "http" && scheme_ != "https") {
    return ProtocolError{400, "invalid_target", "the scheme is neither http nor https"};
  }
  if (!path_.starts_with('/') && path_ != "*") {
    return ProtocolError{400, "invalid_target", "the path does not begin with a slash"};
  }
  PlaceHost();
  if (!JoinCookies(arena) || !Keep(head.headers, arena)) return LimitError(431);
  head.target = path_;
  head.scheme = scheme_;
  std::string rewritten;
  if (std::optional<ProtocolError> error = ReadRequestHead(head, limits_.paths, rewritten)) return error;
  if (!rewritten.empty()) {
    head.target = arena.Copy(rewritten);
    if (head.target.data() == nullptr) return LimitError(431);
    head.path = head.target.substr(0, head.path.size());
  }
  if (head.framing == Framing::kNone && !end_stream) head.framing = Framing::kChunked;
  head.expect_continue = !end_stream && Find(head.headers, KnownHeader::kExpect) != nullptr;
  return std::nullopt;
}

std::optional<ProtocolError> H2Head::ReadResponse(ResponseHead& head, bool end_stream,
                                                  bool to_head, Arena& arena) {
  head = {};
  head.status = status_;
  if (over_limit_ || !Keep(head.headers, arena)) return LimitError(502);
  if (std::optional<ProtocolError> error = ReadResponseHead(head, 1, to_head)) return error;
  head.keep_alive = true;   // No field of HTTP/2 speaks of the connection.
  if (head.framing == Framing::kUntilClose) {
    head.framing = end_stream ? Framing::kNone : Framing::kChunked;
  }
  return std::nullopt;
}

std::optional<std::span<Header>> H2Head::ReadTrailers(Arena& arena) {
  std::span<Header> trailers;
  if (over_limit_ || !Keep(trailers, arena)) return std::nullopt;
  DropForbiddenTrailers(trailers);
  return trailers;
}

}  // namespace penstock
