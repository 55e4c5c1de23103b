#include "proxy/http/known_headers.h"

#include <cstring>

#include "proxy/http/message.h"

namespace penstock {
namespace {

struct Entry {
  std::string_view name;
  KnownHeader id;
};

// By length, so that a look-up compares one or two names at most.
constexpr Entry kLength2[] = {{"te", KnownHeader::kTe}};
constexpr Entry kLength3[] = {{"age", KnownHeader::kAge}, {"via", KnownHeader::kVia}};
constexpr Entry kLength4[] = {{"host", KnownHeader::kHost}, {"date", KnownHeader::kDate}};
constexpr Entry kLength6[] = {{"accept", KnownHeader::kAccept}, {"expect", KnownHeader::kExpect},
                              {"server", KnownHeader::kServer}};
constexpr Entry kLength7[] = {{"trailer", KnownHeader::kTrailer},
                              {"upgrade", KnownHeader::kUpgrade}};
constexpr Entry kLength10[] = {{"connection", KnownHeader::kConnection},
                               {"user-agent", KnownHeader::kUserAgent},
                               {"keep-alive", KnownHeader::kKeepAlive}};
constexpr Entry kLength11[] = {{"retry-after", KnownHeader::kRetryAfter}};
constexpr Entry kLength12[] = {{"content-type", KnownHeader::kContentType},
                               {"cache-status", KnownHeader::kCacheStatus},
                               {"x-request-id", KnownHeader::kXRequestId},
                               {"proxy-status", KnownHeader::kProxyStatus}};
constexpr Entry kLength13[] = {{"authorization", KnownHeader::kAuthorization},
                               {"cache-control", KnownHeader::kCacheControl}};
constexpr Entry kLength14[] = {{"content-length", KnownHeader::kContentLength},
                               {"x-should-retry", KnownHeader::kXShouldRetry}};
constexpr Entry kLength15[] = {{"accept-encoding", KnownHeader::kAcceptEncoding}};
constexpr Entry kLength16[] = {{"content-encoding", KnownHeader::kContentEncoding},
                               {"proxy-connection", KnownHeader::kProxyConnection}};
constexpr Entry kLength17[] = {{"transfer-encoding", KnownHeader::kTransferEncoding}};
constexpr Entry kLength18[] = {{"x-penstock-backend", KnownHeader::kXPenstockBackend}};
constexpr Entry kLength19[] = {{"x-penstock-decision", KnownHeader::kXPenstockDecision}};
constexpr Entry kLength21[] = {{"endpoint-load-metrics", KnownHeader::kEndpointLoadMetrics}};
constexpr Entry kLength28[] = {
    {"endpoint-load-metrics-format", KnownHeader::kEndpointLoadMetricsFormat}};

// `known` is in lower case and has letters, digits and '-' only; for those, and
// characters that a field name may have, setting the case bit compares exactly.
// Eight bytes a step; the last step overlaps the one before it.
bool Equals(std::string_view known, std::string_view name) {
  constexpr uint64_t kCase = 0x2020202020202020;
  const size_t size = known.size();
  if (size < 8) {
    for (size_t i = 0; i < size; ++i) {
      if (known[i] != (name[i] | 0x20)) return false;
    }
    return true;
  }
  const auto word = [](const char* at) {
    uint64_t out;
    std::memcpy(&out, at, sizeof out);
    return out;
  };
  for (size_t i = 0; i + 8 < size; i += 8) {
    if (word(known.data() + i) != (word(name.data() + i) | kCase)) return false;
  }
  return word(known.data() + size - 8) == (word(name.data() + size - 8) | kCase);
}

KnownHeader FindIn(std::span<const Entry> entries, std::string_view name) {
  for (const Entry& entry : entries) {
    if (Equals(entry.name, name)) return entry.id;
  }
  return KnownHeader::kOther;
}

}  // namespace

KnownHeader LookUpHeader(std::string_view name) {
  switch (name.size()) {
    case 2: return FindIn(kLength2, name);
    case 3: return FindIn(kLength3, name);
    case 4: return FindIn(kLength4, name);
    case 6: return FindIn(kLength6, name);
    case 7: return FindIn(kLength7, name);
    case 10: return FindIn(kLength10, name);
    case 11: return FindIn(kLength11, name);
    case 12: return FindIn(kLength12, name);
    case 13: return FindIn(kLength13, name);
    case 14: return FindIn(kLength14, name);
    case 15: return FindIn(kLength15, name);
    case 16: return FindIn(kLength16, name);
    case 17: return FindIn(kLength17, name);
    case 18: return FindIn(kLength18, name);
    case 19: return FindIn(kLength19, name);
    case 21: return FindIn(kLength21, name);
    case 28: return FindIn(kLength28, name);
    default: return KnownHeader::kOther;
  }
}

}  // namespace penstock
