// The fields in which proxies tell each other who the client is: X-Forwarded-For, and
// Forwarded (RFC 7239). Pure functions over one field's value.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

// Addresses that are kept of a list, the nearest ones; those before them are dropped.
inline constexpr size_t kForwardedHopsMax = 32;

// The last `count` elements of a comma-separated list, as they stand there.
std::string_view LastElements(std::string_view list, size_t count);

// Calls `visit(element)` from the last element on until it returns false. Empty ones
// are skipped.
template <typename Visit>
void ForEachFromTheEnd(std::string_view list, Visit visit) {
  while (!list.empty()) {
    const size_t comma = list.rfind(',');
    std::string_view element = comma == std::string_view::npos ? list : list.substr(comma + 1);
    while (!element.empty() && (element.front() == ' ' || element.front() == '\t')) element.remove_prefix(1);
    while (!element.empty() && (element.back() == ' ' || element.back() == '\t')) element.remove_suffix(1);
    if (!element.empty() && !visit(element)) return;
    if (comma == std::string_view::npos) return;
    list = list.substr(0, comma);
  }
}

// The address of a node, without brackets and port: "10.0.0.7" of "10.0.0.7:4711", "::1"
// of "[::1]:80" and of "::1"; empty where it is none ("unknown", "_hidden", nonsense).
std::string_view AddressOfNode(std::string_view node);

// One element of Forwarded, the quotes around values taken off.
struct ForwardedHop {
  std::string_view client;   // for=
  std::string_view by, host, proto;
};

struct ForwardedList {
  std::array<ForwardedHop, kForwardedHopsMax> hops;   // The last of the field comes first.
  size_t count = 0;
};

// Strictly as RFC 7239 4 and 6 have it: known parameters at most once an element, each
// value in its own form. False: not so, and nothing of it is to be believed.
bool ReadForwarded(std::string_view value, ForwardedList& out);

// Appends `for=...;host=...;proto=...`; what is empty is left out. `ip` without brackets.
void AppendForwarded(std::string_view ip, std::string_view host, std::string_view proto, std::string& out);

}  // namespace penstock
