// Header fields that we treat by name, recognised once when a message is parsed.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

enum class KnownHeader : uint8_t {
  kOther,
  kAccept, kAcceptEncoding, kAge, kAuthorization, kCacheControl, kCacheStatus, kConnection,
  kContentEncoding, kContentLength, kContentType, kDate, kEndpointLoadMetrics,
  kEndpointLoadMetricsFormat, kExpect, kForwarded, kHost, kKeepAlive, kProxyConnection, kProxyStatus,
  kRetryAfter, kServer, kTe, kTrailer, kTransferEncoding, kUpgrade, kUserAgent, kVia,
  kXForwardedClientCert, kXForwardedFor, kXForwardedHost, kXForwardedProto, kXPenstockBackend,
  kXPenstockDecision, kXRequestId, kXShouldRetry,
};

// ASCII case-insensitive; no allocation; a switch on length, then a compare.
KnownHeader LookUpHeader(std::string_view name);
// In lower case; empty: kOther.
std::string_view NameOf(KnownHeader id);

}  // namespace penstock
