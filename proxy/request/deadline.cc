#include "proxy/request/deadline.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace penstock {
namespace {

constexpr MonoTime kLongest = 24 * 3600 * kSecond;

// Digits alone, of a number above zero, times `unit`; kNever for anything else.
MonoTime ParseCount(std::string_view text, double unit, size_t digits_max) {
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count == 0) return kNever;
  if (text.size() > digits_max) return kNever;
  const double time = static_cast<double>(count) * unit;
  return std::max(MonoTime{1}, static_cast<MonoTime>(std::min(time, double{kLongest})));
}

MonoTime ParseSeconds(std::string_view text) {
  double seconds = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), seconds, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size() || !(seconds > 0) || !std::isfinite(seconds)) {
    return kNever;
  }
  return std::max(MonoTime{1}, static_cast<MonoTime>(std::min(seconds * kSecond, double{kLongest})));
}

// One to eight digits and a unit.
MonoTime ParseGrpc(std::string_view text) {
  if (text.size() < 2) return kNever;
  double unit = 0;
  switch (text.back()) {
    case 'H': unit = 3600.0 * kSecond; break;
    case 'M': unit = 60.0 * kSecond; break;
    case 'S': unit = kSecond; break;
    case 'm': unit = kMillisecond; break;
    case 'u': unit = 1; break;
    case 'n': unit = 0.001; break;
    default: return kNever;
  }
  text.remove_suffix(1);
  return ParseCount(text, unit, 8);
}

}  // namespace

ClientDeadline ReadDeadline(std::span<Header> headers) {
  enum Field { kOwn, kGrpc, kEnvoy, kRead, kWhole, kFields };
  static constexpr std::string_view kNames[kFields] = {
      "x-request-timeout-ms", "grpc-timeout", "x-envoy-upstream-rq-timeout-ms",  // As Envoy spells it.
      "x-stainless-read-timeout", "x-stainless-timeout"};
  MonoTime times[kFields] = {kNever, kNever, kNever, kNever, kNever};
  for (Header& header : headers) {
    if (header.id != KnownHeader::kOther) continue;
    for (int field = 0; field < kFields; ++field) {
      if (!EqualsIgnoringCase(header.name, kNames[field])) continue;
      const std::string_view value = header.value;
      const MonoTime time = field == kGrpc    ? ParseGrpc(value)
                            : field <= kEnvoy ? ParseCount(value, kMillisecond, 12)
                                              : ParseSeconds(value);
      if (time == kNever) continue;
      if (field <= kEnvoy) header.dropped = true;
      if (times[field] == kNever) times[field] = time;
    }
  }
  ClientDeadline out;
  out.grpc = times[kGrpc] != kNever;
  for (int field = kFields; field-- > 0;) {
    if (times[field] == kNever) continue;
    out.time = times[field];
    out.until_answer = field >= kRead;
  }
  return out;
}

std::string_view AsMillis(MonoTime left, TimeText& storage) {
  const MonoTime millis = std::max<MonoTime>(left / kMillisecond, 1);
  const auto end = std::to_chars(storage.data(), storage.data() + storage.size(), millis).ptr;
  return {storage.data(), end};
}

std::string_view AsGrpcTimeout(MonoTime left, TimeText& storage) {
  // Eight digits of milliseconds are more than a day, which is the longest deadline.
  char* const begin = storage.data();
  char* end = begin + AsMillis(left, storage).size();
  *end++ = 'm';
  return {begin, end};
}

}  // namespace penstock
