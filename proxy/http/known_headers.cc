#include "proxy/http/known_headers.h"

#include <array>
#include <cstring>
#include <initializer_list>
#include <span>

#include "proxy/http/message.h"

namespace penstock {
namespace {

// The first and the last eight bytes of a name (four of a shorter one), side by
// side: they overlap, and up to 16 bytes they are all of it.
struct Ends {
  uint64_t first = 0, last = 0;
};

template <typename Word>
Ends EndsOf(const char* name, size_t size) {
  Word first, last;
  std::memcpy(&first, name, sizeof first);
  std::memcpy(&last, name + size - sizeof last, sizeof last);
  // Known names have letters, digits and '-' only; for those, and characters that a
  // field name may have, setting the case bit compares exactly.
  constexpr auto kCase = static_cast<Word>(0x2020202020202020);
  return {first | kCase, last | kCase};
}

struct Known {
  constexpr Known(std::string_view its_name, KnownHeader its_id) : name(its_name), id(its_id) {
    const size_t width = name.size() < 8 ? 4 : 8;
    if (name.size() < 4) return;
    for (size_t i = 0; i < width; ++i) {
      ends.first |= uint64_t{static_cast<unsigned char>(name[i])} << (8 * i);
      ends.last |= uint64_t{static_cast<unsigned char>(name[name.size() - width + i])} << (8 * i);
    }
  }
  std::string_view name;
  KnownHeader id;
  Ends ends;
};

// By length, so that a look-up compares a few names at most.
constexpr Known kLength2[] = {{"te", KnownHeader::kTe}};
constexpr Known kLength3[] = {{"age", KnownHeader::kAge}, {"via", KnownHeader::kVia}};
constexpr Known kLength4[] = {{"host", KnownHeader::kHost}, {"date", KnownHeader::kDate}};
constexpr Known kLength6[] = {
    {"accept", KnownHeader::kAccept},
    {"expect", KnownHeader::kExpect},
    {"server", KnownHeader::kServer}};
constexpr Known kLength7[] = {
    {"trailer", KnownHeader::kTrailer},
    {"upgrade", KnownHeader::kUpgrade}};
constexpr Known kLength9[] = {{"forwarded", KnownHeader::kForwarded}};
constexpr Known kLength10[] = {
    {"connection", KnownHeader::kConnection},
    {"user-agent", KnownHeader::kUserAgent},
    {"keep-alive", KnownHeader::kKeepAlive}};
constexpr Known kLength11[] = {{"retry-after", KnownHeader::kRetryAfter}};
constexpr Known kLength12[] = {
    {"content-type", KnownHeader::kContentType},
    {"cache-status", KnownHeader::kCacheStatus},
    {"x-request-id", KnownHeader::kXRequestId},
    {"proxy-status", KnownHeader::kProxyStatus}};
constexpr Known kLength13[] = {
    {"authorization", KnownHeader::kAuthorization},
    {"cache-control", KnownHeader::kCacheControl}};
constexpr Known kLength14[] = {
    {"content-length", KnownHeader::kContentLength},
    {"x-should-retry", KnownHeader::kXShouldRetry}};
constexpr Known kLength15[] = {
    {"accept-encoding", KnownHeader::kAcceptEncoding},
    {"x-forwarded-for", KnownHeader::kXForwardedFor}};
constexpr Known kLength16[] = {
    {"content-encoding", KnownHeader::kContentEncoding},
    {"proxy-connection", KnownHeader::kProxyConnection},
    {"x-forwarded-host", KnownHeader::kXForwardedHost}};
constexpr Known kLength17[] = {
    {"transfer-encoding", KnownHeader::kTransferEncoding},
    {"x-forwarded-proto", KnownHeader::kXForwardedProto}};
constexpr Known kLength18[] = {{"x-penstock-backend", KnownHeader::kXPenstockBackend}};
constexpr Known kLength19[] = {{"x-penstock-decision", KnownHeader::kXPenstockDecision}};
constexpr Known kLength21[] = {{"endpoint-load-metrics", KnownHeader::kEndpointLoadMetrics}};
constexpr Known kLength23[] = {{"x-forwarded-client-cert", KnownHeader::kXForwardedClientCert}};
constexpr Known kLength28[] = {
    {"endpoint-load-metrics-format", KnownHeader::kEndpointLoadMetricsFormat}};

KnownHeader Among(std::span<const Known> known, std::string_view name) {
  const size_t size = name.size();
  const Ends ends = size < 8 ? EndsOf<uint32_t>(name.data(), size) : EndsOf<uint64_t>(name.data(), size);
  for (const Known& one : known) {
    if (one.ends.first != ends.first || one.ends.last != ends.last) continue;
    if (size <= 16 || EqualsIgnoringCase(one.name, name)) return one.id;
  }
  return KnownHeader::kOther;
}

constexpr auto kNames = [] {
  std::array<std::string_view, 256> names;
  const auto add = [&names](std::span<const Known> known) {
    for (const Known& one : known) names[static_cast<size_t>(one.id)] = one.name;
  };
  for (const std::span<const Known> known : std::initializer_list<std::span<const Known>>{
           kLength2, kLength3, kLength4, kLength6, kLength7, kLength9, kLength10, kLength11,
           kLength12, kLength13, kLength14, kLength15, kLength16, kLength17, kLength18, kLength19,
           kLength21, kLength23, kLength28}) {
    add(known);
  }
  return names;
}();

KnownHeader AmongShort(std::span<const Known> known, std::string_view name) {
  for (const Known& one : known) {
    if (EqualsIgnoringCase(one.name, name)) return one.id;
  }
  return KnownHeader::kOther;
}

}  // namespace

std::string_view NameOf(KnownHeader id) { return kNames[static_cast<size_t>(id)]; }

KnownHeader LookUpHeader(std::string_view name) {
  switch (name.size()) {
    case 2: return AmongShort(kLength2, name);
    case 3: return AmongShort(kLength3, name);
    case 4: return Among(kLength4, name);
    case 6: return Among(kLength6, name);
    case 7: return Among(kLength7, name);
    case 9: return Among(kLength9, name);
    case 10: return Among(kLength10, name);
    case 11: return Among(kLength11, name);
    case 12: return Among(kLength12, name);
    case 13: return Among(kLength13, name);
    case 14: return Among(kLength14, name);
    case 15: return Among(kLength15, name);
    case 16: return Among(kLength16, name);
    case 17: return Among(kLength17, name);
    case 18: return Among(kLength18, name);
    case 19: return Among(kLength19, name);
    case 21: return Among(kLength21, name);
    case 23: return Among(kLength23, name);
    case 28: return Among(kLength28, name);
    default: return KnownHeader::kOther;
  }
}

}  // namespace penstock
