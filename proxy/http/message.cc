#include "proxy/http/message.h"

namespace penstock {

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && ToLower(a[i]) != ToLower(b[i])) return false;
  }
  return true;
}

std::string_view TrimSpace(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

const Header* Find(std::span<const Header> headers, KnownHeader id) {
  for (const Header& header : headers) {
    if (header.id == id) return &header;
  }
  return nullptr;
}

const Header* Find(std::span<const Header> headers, std::string_view name) {
  for (const Header& header : headers) {
    if (EqualsIgnoringCase(header.name, name)) return &header;
  }
  return nullptr;
}

bool TakesTrailers(std::span<const Header> headers) {
  bool takes = false;
  for (const Header& header : headers) {
    if (header.id != KnownHeader::kTe) continue;
    ForEachToken(header.value, [&](std::string_view token) {
      takes |= EqualsIgnoringCase(token, "trailers");
    });
  }
  return takes;
}

bool IsProtected(KnownHeader id) {
  switch (id) {
    case KnownHeader::kAuthorization:
    case KnownHeader::kCacheControl:
    case KnownHeader::kContentEncoding:
    case KnownHeader::kContentLength:
    case KnownHeader::kContentType:
    case KnownHeader::kDate:
    case KnownHeader::kExpect:
    case KnownHeader::kForwarded:
    case KnownHeader::kHost:
    case KnownHeader::kRetryAfter:
    case KnownHeader::kTransferEncoding:
    case KnownHeader::kVia:
    case KnownHeader::kXForwardedClientCert:
    case KnownHeader::kXForwardedFor:
    case KnownHeader::kXForwardedHost:
    case KnownHeader::kXForwardedProto:
    case KnownHeader::kXRequestId:
      return true;
    default:
      return false;
  }
}

void DropHopByHop(std::span<Header> headers) {
  for (Header& header : headers) {
    switch (header.id) {
      case KnownHeader::kConnection:
        header.dropped = true;
        ForEachToken(header.value, [&](std::string_view token) {
          const KnownHeader id = LookUpHeader(token);
          if (id == KnownHeader::kKeepAlive || id == KnownHeader::kConnection || IsProtected(id) ||
              EqualsIgnoringCase(token, "close")) {
            return;  // Of its own meaning, or dropped by its own name anyway.
          }
          for (Header& named : headers) {
            if (EqualsIgnoringCase(named.name, token)) named.dropped = true;
          }
        });
        break;
      case KnownHeader::kContentLength:
      case KnownHeader::kKeepAlive:
      case KnownHeader::kProxyConnection:
      case KnownHeader::kTe:
      case KnownHeader::kTrailer:
      case KnownHeader::kTransferEncoding:
      case KnownHeader::kUpgrade:
        header.dropped = true;
        break;
      default:
        break;
    }
  }
}

void DropFromTrailers(std::span<Header> trailers) {
  static constexpr std::string_view kNeverLate[] = {
      "accept-ranges", "age", "content-location", "content-range", "expires", "forwarded",
      "location", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range",
      "set-cookie", "cookie", "vary", "www-authenticate", "x-forwarded-for",
  };
  DropHopByHop(trailers);
  for (Header& trailer : trailers) {
    trailer.dropped |= IsProtected(trailer.id);
    for (const std::string_view name : kNeverLate) {
      trailer.dropped |= EqualsIgnoringCase(trailer.name, name);
    }
  }
}

}  // namespace penstock
