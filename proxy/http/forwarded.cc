#include "proxy/http/forwarded.h"

#include <algorithm>

#include "proxy/base/ip.h"
#include "proxy/http/message.h"
#include "proxy/http/request_target.h"

namespace penstock {
namespace {

bool IsAlnum(char c) {
  return (c >= '0' && c <= '9') || (ToLower(c) >= 'a' && ToLower(c) <= 'z');
}

// RFC 9110 5.6.2.
bool IsTokenChar(char c) {
  return IsAlnum(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Takes a token off the front; empty: there is none.
std::string_view TakeToken(std::string_view& text) {
  size_t size = 0;
  while (size < text.size() && IsTokenChar(text[size])) ++size;
  const std::string_view token = text.substr(0, size);
  text.remove_prefix(size);
  return token;
}

// A token or a quoted string. No value that means something needs an escape, so a
// backslash is taken for what it mostly is.
bool TakeValue(std::string_view& text, std::string_view& value) {
  if (text.empty() || text.front() != '"') {
    value = TakeToken(text);
    return !value.empty();
  }
  for (size_t i = 1; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"') {
      value = text.substr(1, i - 1);
      text.remove_prefix(i + 1);
      return true;
    }
    if (c == '\\' || c < 0x20 || c >= 0x7f) return false;
  }
  return false;
}

bool IsObfuscated(std::string_view text) {
  if (text.size() < 2 || text.front() != '_') return false;
  return std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return IsAlnum(c) || c == '.' || c == '_' || c == '-'; });
}

bool IsPort(std::string_view text) {
  if (IsObfuscated(text)) return true;
  return !text.empty() && text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// RFC 7239 6: an address ("[...]" around one of version 6), "unknown" or a made-up
// name, and a port or not.
bool IsNode(std::string_view text) {
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return false;
    const std::string_view ip = text.substr(1, close - 1);
    if (ip.find(':') == std::string_view::npos || !ParseIp(ip)) return false;
    const std::string_view rest = text.substr(close + 1);
    return rest.empty() || (rest.front() == ':' && IsPort(rest.substr(1)));
  }
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  if (!ParseIp(name) && !EqualsIgnoringCase(name, "unknown") && !IsObfuscated(name)) return false;
  return colon == std::string_view::npos || IsPort(text.substr(colon + 1));
}

bool IsScheme(std::string_view text) {
  if (text.empty() || ToLower(text.front()) < 'a' || ToLower(text.front()) > 'z') return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return IsAlnum(c) || c == '+' || c == '-' || c == '.'; });
}

// Puts a known parameter where it belongs; unknown ones are allowed and skipped.
bool Take(std::string_view name, std::string_view value, ForwardedHop& hop) {
  const auto once = [&](std::string_view& place, bool fits) {
    if (!place.empty() || !fits) return false;
    place = value;
    return true;
  };
  if (EqualsIgnoringCase(name, "for")) return once(hop.client, IsNode(value));
  if (EqualsIgnoringCase(name, "by")) return once(hop.by, IsNode(value));
  if (EqualsIgnoringCase(name, "host")) return once(hop.host, IsAuthority(value));
  if (EqualsIgnoringCase(name, "proto")) return once(hop.proto, IsScheme(value));
  return true;
}

void SkipBlanks(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
}

bool TakeElement(std::string_view& text, ForwardedHop& hop) {
  while (true) {
    const std::string_view name = TakeToken(text);
    std::string_view value;
    if (name.empty() || text.empty() || text.front() != '=') return false;
    text.remove_prefix(1);
    if (!TakeValue(text, value) || !Take(name, value, hop)) return false;
    if (text.empty() || text.front() != ';') return true;
    text.remove_prefix(1);
  }
}

}  // namespace

std::string_view LastElements(std::string_view list, size_t count) {
  size_t begin = list.size();
  while (count > 0 && begin > 0) {
    const size_t comma = list.rfind(',', begin - 1);
    begin = comma == std::string_view::npos ? 0 : comma;
    --count;
  }
  if (begin < list.size() && list[begin] == ',') ++begin;
  return TrimSpace(list.substr(begin));
}

std::string_view AddressOfNode(std::string_view node) {
  if (ParseIp(node)) return node;
  const bool bracketed = node.starts_with('[');
  const size_t end = node.find(bracketed ? ']' : ':');
  if (end == std::string_view::npos) return {};
  const std::string_view ip = bracketed ? node.substr(1, end - 1) : node.substr(0, end);
  const std::string_view rest = node.substr(bracketed ? end + 1 : end);
  if (!rest.empty() && (rest.front() != ':' || !IsPort(rest.substr(1)))) return {};
  const bool v6 = ip.find(':') != std::string_view::npos;
  return v6 == bracketed && ParseIp(ip) ? ip : std::string_view();
}

bool ReadForwarded(std::string_view value, ForwardedList& out) {
  std::array<ForwardedHop, kForwardedHopsMax> ring;
  size_t seen = 0;
  SkipBlanks(value);
  while (!value.empty()) {
    ForwardedHop hop;
    if (!TakeElement(value, hop)) return false;
    ring[seen++ % ring.size()] = hop;
    SkipBlanks(value);
    if (value.empty()) break;
    if (value.front() != ',') return false;
    value.remove_prefix(1);
    SkipBlanks(value);
    if (value.empty()) return false;
  }
  out.count = std::min(seen, ring.size());
  for (size_t i = 0; i < out.count; ++i) out.hops[i] = ring[(seen - 1 - i) % ring.size()];
  return seen > 0;
}

void AppendForwarded(std::string_view ip, std::string_view host, std::string_view proto, std::string& out) {
  if (!ParseIp(ip)) ip = "unknown";
  const bool v6 = ip.find(':') != std::string_view::npos;
  out += v6 ? "for=\"[" : "for=";
  out += ip;
  if (v6) out += "]\"";
  if (!host.empty()) {
    out += ";host=\"";
    out += host;
    out += '"';
  }
  if (!proto.empty()) {
    out += ";proto=";
    out += proto;
  }
}

}  // namespace penstock
