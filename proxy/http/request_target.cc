#include "proxy/http/request_target.h"

#include <array>

#include "proxy/http/codec_limits.h"

namespace penstock {
namespace {

using Verdict = std::optional<ProtocolError>;

Verdict Refuse(std::string_view message) {
  return ProtocolError{400, "invalid_target", std::string(message)};
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlnum(char c) { return IsDigit(c) || (ToLower(c) >= 'a' && ToLower(c) <= 'z'); }

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = ToLower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool IsUnreserved(char c) { return IsAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~'; }

enum Class : uint8_t { kPlain, kSlash, kDot, kPercent, kForbidden };

constexpr auto kClasses = [] {
  std::array<Class, 256> classes{};
  for (size_t i = 0; i < classes.size(); ++i) {
    classes[i] = i < 0x21 || i > 0x7e || i == '#' || i == '\\' ? kForbidden : kPlain;
  }
  classes['/'] = kSlash;
  classes['.'] = kDot;
  classes['%'] = kPercent;
  return classes;
}();
Class ClassOf(char c) { return kClasses[static_cast<unsigned char>(c)]; }

// What a first look at a path finds.
struct Look {
  bool forbidden = false;
  bool escapes = false;
  bool segments = false;   // An empty one, or one that begins with a dot.
};
Look LookAt(std::string_view path) {
  Look look;
  Class before = kPlain;
  for (const char c : path) {
    const Class now = ClassOf(c);
    look.forbidden |= now == kForbidden;
    look.escapes |= now == kPercent;
    look.segments |= before == kSlash && (now == kSlash || now == kDot);
    before = now;
  }
  return look;
}

// `path` with its escapes in their one spelling, appended to `out`.
Verdict Unescape(std::string_view path, std::string& out) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      out += path[i];
      continue;
    }
    const int high = i + 2 < path.size() ? HexValue(path[i + 1]) : -1;
    const int low = i + 2 < path.size() ? HexValue(path[i + 2]) : -1;
    if (high < 0 || low < 0) return Refuse("the path has a % without two hexadecimal digits");
    const char byte = static_cast<char>(high * 16 + low);
    if (byte == '\0' || byte == '/' || byte == '\\') {
      return Refuse("the path has an escaped slash, backslash or NUL");
    }
    if (IsUnreserved(byte)) {
      out += byte;
    } else {
      out += '%';
      out += kDigits[static_cast<size_t>(high)];
      out += kDigits[static_cast<size_t>(low)];
    }
    i += 2;
  }
  return std::nullopt;
}

// Walks the segments of `path`, which it rewrites in place: the result is never longer.
Verdict ResolveSegments(std::string& path, PathRule rule) {
  size_t end = 0;                       // Of what is written.
  for (size_t at = 0; at < path.size();) {
    const size_t slash = path.find('/', at + 1);
    const size_t next = slash == std::string::npos ? path.size() : slash;
    const std::string_view segment = std::string_view(path).substr(at + 1, next - at - 1);
    const bool last = slash == std::string::npos;
    const bool dots = segment == "." || segment == "..";
    if (rule == PathRule::kStrict && (dots || (segment.empty() && !last))) {
      return Refuse(dots ? "the path has a . or .. segment" : "the path has an empty segment (//)");
    }
    if (segment == "..") {
      if (end == 0) return Refuse("the path leads above its root");
      end = path.rfind('/', end - 1);
    }
    if (!dots && !(segment.empty() && !last)) {
      const size_t size = next - at;
      path.replace(end, size, path, at, size);
      end += size;
    } else if (last) {
      path[end++] = '/';                // "/a/.." is "/", "/a/." is "/a/".
    }
    at = next;
  }
  path.resize(end);
  return std::nullopt;
}

Verdict CheckQuery(std::string_view query) {
  for (const char c : query) {
    if (c < 0x21 || c > 0x7e || c == '#') {
      return Refuse("the query has a character that no query may have");
    }
  }
  return std::nullopt;
}

}  // namespace

bool IsAuthority(std::string_view text) {
  std::string_view port;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos || close < 3) return false;
    for (const char c : text.substr(1, close - 1)) {
      if (HexValue(c) < 0 && c != ':' && c != '.') return false;
    }
    port = text.substr(close + 1);
  } else {
    const size_t colon = text.find(':');
    const std::string_view host = text.substr(0, colon);
    if (host.empty()) return false;
    for (const char c : host) {
      if (!IsUnreserved(c)) return false;
    }
    port = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (port.empty()) return true;
  if (port.front() != ':' || port.size() > 6) return false;
  for (const char c : port.substr(1)) {
    if (!IsDigit(c)) return false;
  }
  return true;
}

std::optional<ProtocolError> ReadTarget(RequestHead& head, PathRule rule, std::string& storage) {
  if (head.method == "CONNECT" || head.method == "TRACE") {
    return ProtocolError{405, "method_not_allowed", "neither CONNECT nor TRACE is taken"};
  }
  if (head.target == "*") {
    head.path = head.target;
    if (head.method == "OPTIONS") return std::nullopt;
    return Refuse("only OPTIONS may have * as its target");
  }
  if (head.target.empty() || head.target.front() != '/') return Refuse("the path does not begin with /");
  const size_t question = head.target.find('?');
  head.path = head.target.substr(0, question);
  if (question != std::string_view::npos) {
    if (Verdict verdict = CheckQuery(head.target.substr(question + 1))) return verdict;
  }
  const Look look = LookAt(head.path);
  if (look.forbidden) return Refuse("the path has a character that no path may have");
  if (!look.escapes && !look.segments) return std::nullopt;

  std::string path;
  if (Verdict verdict = Unescape(head.path, path)) return verdict;
  if (Verdict verdict = ResolveSegments(path, rule)) return verdict;
  if (path == head.path) return std::nullopt;
  const size_t size = path.size();
  if (question != std::string_view::npos) path += head.target.substr(question);
  storage = std::move(path);
  head.target = storage;
  head.path = head.target.substr(0, size);
  return std::nullopt;
}

}  // namespace penstock
