#include "proxy/http/h1_rules.h"

#include <array>
#include <charconv>
#include <string>

namespace penstock {
namespace {

constexpr uint64_t kLengthMax = uint64_t{1} << 62;   // More is absurd, and sums stay in range.

using Verdict = std::optional<ProtocolError>;

ProtocolError Refuse(uint16_t status, std::string_view code, std::string_view message) {
  return ProtocolError{status, code, std::string(message)};
}

std::optional<uint64_t> ParseLength(std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
  }
  const auto [last, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || last != end || value > kLengthMax) return std::nullopt;
  return value;
}

// Absolute form: the authority moves out of the target.
Verdict SplitAbsoluteForm(RequestHead& head, std::string& storage) {
  const size_t scheme_end = head.target.find("://");
  const std::string_view scheme = head.target.substr(0, scheme_end);
  if (scheme_end == std::string_view::npos ||
      (!EqualsIgnoringCase(scheme, "http") && !EqualsIgnoringCase(scheme, "https"))) {
    return Refuse(400, "invalid_target",
                  "the target is neither a path nor a URL of http or https");
  }
  const std::string_view rest = head.target.substr(scheme_end + 3);
  const size_t end = rest.find_first_of("/?#");
  head.authority = rest.substr(0, end);
  if (!IsAuthority(head.authority)) {
    return Refuse(400, "invalid_target", "the target's authority is no host with an optional port");
  }
  if (end == std::string_view::npos) {
    head.target = "/";
  } else if (rest[end] == '/') {
    head.target = rest.substr(end);
  } else {
    storage.assign("/").append(rest.substr(end));
    head.target = storage;
  }
  for (Header& header : head.headers) {
    if (header.id == KnownHeader::kHost) header.value = head.authority;
  }
  return std::nullopt;
}

// CONNECT's authority form is no path; whoever reads targets refuses it by its method.
bool HasPath(const RequestHead& head) {
  return head.method == "CONNECT" || head.target == "*" || head.target.starts_with('/');
}

// What the fields say about framing and connection, the same for both roles.
struct FieldFacts {
  int hosts = 0;
  int lengths = 0;
  int codings = 0;
  int expects = 0;
  bool close = false;
  bool keep_alive = false;
  bool connection_upgrade = false;
  bool upgrade = false;
  bool names_protected = false;
  std::string_view host;
  std::string_view length;
  std::string_view coding;
  std::string_view expect;
};

void ReadConnection(std::string_view value, FieldFacts& facts) {
  ForEachToken(value, [&](std::string_view token) {
    if (EqualsIgnoringCase(token, "close")) facts.close = true;
    if (EqualsIgnoringCase(token, "keep-alive")) facts.keep_alive = true;
    if (EqualsIgnoringCase(token, "upgrade")) facts.connection_upgrade = true;
    if (IsProtected(LookUpHeader(token))) facts.names_protected = true;
  });
}

FieldFacts ReadFields(std::span<const Header> headers) {
  FieldFacts facts;
  for (const Header& header : headers) {
    switch (header.id) {
      case KnownHeader::kHost: ++facts.hosts, facts.host = header.value; break;
      case KnownHeader::kContentLength: ++facts.lengths, facts.length = header.value; break;
      case KnownHeader::kTransferEncoding: ++facts.codings, facts.coding = header.value; break;
      case KnownHeader::kExpect: ++facts.expects, facts.expect = header.value; break;
      case KnownHeader::kUpgrade: facts.upgrade = true; break;
      case KnownHeader::kConnection: ReadConnection(header.value, facts); break;
      default: break;
    }
  }
  return facts;
}

// Transfer_Encoding reads as Transfer-Encoding to whoever turns fields into variables.
bool HasUnderscoreAlias(std::span<const Header> headers) {
  std::array<char, 32> name;
  for (const Header& header : headers) {
    if (header.name.size() > name.size() || header.name.find('_') == std::string_view::npos) continue;
    for (size_t i = 0; i < header.name.size(); ++i) {
      name[i] = header.name[i] == '_' ? '-' : header.name[i];
    }
    if (LookUpHeader({name.data(), header.name.size()}) != KnownHeader::kOther) return true;
  }
  return false;
}

Verdict ReadFraming(const FieldFacts& facts, int minor_version, uint16_t status, Framing& framing,
                    uint64_t& length) {
  if (facts.codings > 0) {
    if (minor_version == 0) {
      return Refuse(status, "invalid_framing", "Transfer-Encoding in an HTTP/1.0 message");
    }
    if (facts.lengths > 0) {
      return Refuse(status, "invalid_framing", "both Content-Length and Transfer-Encoding");
    }
    if (facts.codings > 1) {
      return Refuse(status, "invalid_framing", "more than one Transfer-Encoding");
    }
    if (!EqualsIgnoringCase(facts.coding, "chunked")) {
      return Refuse(status == 400 ? 501 : status, "unknown_transfer_coding",
                    "the only transfer coding that is understood is one chunked");
    }
    framing = Framing::kChunked;
  } else if (facts.lengths > 0) {
    const std::optional<uint64_t> value = ParseLength(facts.length);
    if (facts.lengths > 1) return Refuse(status, "invalid_framing", "more than one Content-Length");
    if (!value) return Refuse(status, "invalid_framing", "Content-Length is not a usable number");
    framing = Framing::kLength;
    length = *value;
  }
  return std::nullopt;
}

}  // namespace

std::optional<ProtocolError> ReadRequestHead(RequestHead& head, PathRule rule, std::string& storage) {
  const FieldFacts facts = ReadFields(head.headers);
  if (facts.hosts > 1) return Refuse(400, "invalid_host", "more than one Host field");
  if (facts.hosts == 0 && head.minor_version >= 1) {
    return Refuse(400, "invalid_host", "the Host field is missing");
  }
  if (facts.hosts == 1 && !IsAuthority(facts.host)) {
    return Refuse(400, "invalid_host", "the Host field is no host with an optional port");
  }
  head.authority = facts.host;
  if (!HasPath(head)) {
    if (Verdict verdict = SplitAbsoluteForm(head, storage)) return verdict;
  }
  if (Verdict verdict = ReadTarget(head, rule, storage)) return verdict;
  if (HasUnderscoreAlias(head.headers)) {
    return Refuse(400, "invalid_header",
                  "a field name with an underscore that could be taken for a known field");
  }
  if (facts.names_protected) {
    return Refuse(400, "invalid_connection", "Connection names a field that it may not remove");
  }
  if (Verdict verdict =
          ReadFraming(facts, head.minor_version, 400, head.framing, head.content_length)) {
    return verdict;
  }
  head.keep_alive = !facts.close && (head.minor_version >= 1 || facts.keep_alive);
  head.upgrade = facts.upgrade && facts.connection_upgrade;
  if (facts.expects > 0 && head.minor_version >= 1) {
    if (facts.expects > 1 || !EqualsIgnoringCase(facts.expect, "100-continue")) {
      return Refuse(417, "unknown_expectation", "the only expectation that is met is 100-continue");
    }
    head.expect_continue = head.framing == Framing::kChunked || head.content_length > 0;
  }
  return std::nullopt;
}

std::optional<ProtocolError> ReadResponseHead(ResponseHead& head, int minor_version, bool to_head) {
  if (head.status < 100 || head.status > 999) {
    return Refuse(502, "invalid_status", "the status is not a number from 100 to 999");
  }
  const FieldFacts facts = ReadFields(head.headers);
  if (Verdict verdict = ReadFraming(facts, minor_version, 502, head.framing, head.content_length)) {
    return verdict;
  }
  head.keep_alive = !facts.close && (minor_version >= 1 || facts.keep_alive);
  const bool bodiless = head.status < 200 || head.status == 204 || head.status == 304;
  if (bodiless) {
    head.framing = Framing::kNone;
  } else if (head.framing == Framing::kNone && !to_head) {
    head.framing = Framing::kUntilClose;
    head.keep_alive = false;
  }
  return std::nullopt;
}

void DropForbiddenTrailers(std::span<Header> trailers) {
  for (Header& trailer : trailers) {
    switch (trailer.id) {
      case KnownHeader::kOther:
      case KnownHeader::kEndpointLoadMetrics:
      case KnownHeader::kServer:
        break;
      default:
        trailer.dropped = true;
    }
  }
}

std::string_view ReasonPhrase(uint16_t status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 508: return "Loop Detected";
    default: return "";
  }
}

}  // namespace penstock
