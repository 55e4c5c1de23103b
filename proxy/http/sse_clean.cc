#include "proxy/http/sse_clean.h"

#include <algorithm>

namespace penstock {
namespace {

// A line with what ends it, taken off the front of `rest`.
std::string_view TakeLine(std::string_view& rest) {
  size_t end = std::min(rest.find_first_of("\r\n"), rest.size());
  if (end < rest.size()) end += rest.substr(end).starts_with("\r\n") ? 2 : 1;
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end);
  return line;
}

std::string_view FieldOf(std::string_view line) { return line.substr(0, line.find_first_of(":\r\n")); }

bool IsBlank(std::string_view line) { return line.front() == '\r' || line.front() == '\n'; }

// Whether a line of an event stays.
bool Stays(std::string_view line, bool has_data) {
  if (line.front() == ':') return true;
  const std::string_view field = FieldOf(line);
  return has_data && field != "id" && field != "retry";
}

}  // namespace

std::string CleanEvents(std::string_view events) {
  std::string clean;
  clean.reserve(events.size());
  while (!events.empty()) {
    std::string_view rest = events;
    bool has_data = false, blank = false;
    while (!rest.empty() && !blank) {
      const std::string_view line = TakeLine(rest);
      blank = IsBlank(line);
      has_data |= FieldOf(line) == "data";
    }
    std::string_view event = events.substr(0, events.size() - rest.size());
    events = rest;
    const bool nothing_but_blank = IsBlank(event);
    const size_t before = clean.size();
    while (!event.empty()) {
      const std::string_view line = TakeLine(event);
      if (IsBlank(line) ? clean.size() > before || nothing_but_blank : Stays(line, has_data)) clean += line;
    }
  }
  return clean;
}

}  // namespace penstock
