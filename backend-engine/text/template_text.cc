#include "backend-engine/text/template_text.h"

#include <string.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "backend-engine/text/unicode.h"

namespace penstock::engine::jinja {
namespace {

template <typename Function>
std::string MapChars(std::string_view text, Function function) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedChar next = DecodeChar(text);
    text.remove_prefix(next.size);
    AppendChar(function(next.code), out);
  }
  return out;
}

// The last character of `text` and where it starts.
DecodedChar LastChar(std::string_view text, size_t& begin) {
  begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return DecodeChar(text.substr(begin));
}

std::vector<std::string_view> SplitAtSpaces(std::string_view text, int64_t limit,
                                            bool from_right) {
  std::vector<std::string_view> parts;
  text = Strip(text, from_right ? Side::kRight : Side::kLeft);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(Strip(text, Side::kBoth));
      break;
    }
    if (from_right) {
      size_t begin = text.size();
      while (begin > 0) {
        size_t at = 0;
        if (IsPythonSpace(LastChar(text.substr(0, begin), at).code)) break;
        begin = at;
      }
      parts.push_back(text.substr(begin));
      text = Strip(text.substr(0, begin), Side::kRight);
    } else {
      size_t end = 0;
      while (end < text.size()) {
        const DecodedChar next = DecodeChar(text.substr(end));
        if (IsPythonSpace(next.code)) break;
        end += next.size;
      }
      parts.push_back(text.substr(0, end));
      text = Strip(text.substr(end), Side::kLeft);
    }
  }
  return parts;
}

}  // namespace

bool IsPythonSpace(char32_t code) { return IsSpace(code) || (code >= 0x1C && code <= 0x1F); }

std::u32string Chars(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedChar next = DecodeChar(text);
    out += next.code;
    text.remove_prefix(next.size);
  }
  return out;
}

std::string FromChars(std::u32string_view chars) {
  std::string out;
  for (const char32_t code : chars) AppendChar(code, out);
  return out;
}

size_t CharCount(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string_view Strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  const std::u32string set = chars.has_value() ? Chars(*chars) : std::u32string();
  const auto drop = [&](char32_t code) {
    return chars.has_value() ? set.find(code) != std::u32string::npos : IsPythonSpace(code);
  };
  while (side != Side::kRight && !text.empty()) {
    const DecodedChar first = DecodeChar(text);
    if (!drop(first.code)) break;
    text.remove_prefix(first.size);
  }
  while (side != Side::kLeft && !text.empty()) {
    size_t begin = 0;
    if (!drop(LastChar(text, begin).code)) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  if (separator.empty()) {
    parts = SplitAtSpaces(text, limit, from_right);
  } else if (!from_right) {
    for (size_t at = 0; limit < 0 || static_cast<int64_t>(parts.size()) < limit;) {
      at = FindText(text, separator);
      if (at == std::string_view::npos) break;
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
    parts.push_back(text);
  } else {
    while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
      const size_t at = text.rfind(separator);
      if (at == std::string_view::npos) break;
      parts.push_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    }
    parts.push_back(text);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const DecodedChar next = DecodeChar(text.substr(at));
    const char32_t c = next.code;
    size_t end = at + next.size;
    const bool breaks = (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                        c == 0x2028 || c == 0x2029;
    if (breaks) {
      if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(begin, (keep_ends ? end : at) - begin));
      begin = end;
    }
    at = end;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t CountText(std::string_view text, std::string_view part) {
  if (part.empty()) return CharCount(text) + 1;
  size_t count = 0;
  for (size_t at = FindText(text, part); at != std::string_view::npos;
       at = FindText(text, part, at + part.size())) {
    ++count;
  }
  return count;
}

std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t limit) {
  std::string out;
  const auto more = [&limit] { return limit < 0 || limit-- > 0; };
  if (from.empty()) {
    while (more()) {
      out += to;
      if (text.empty()) return out;
      const size_t size = DecodeChar(text).size;
      out += text.substr(0, size);
      text.remove_prefix(size);
    }
    return out += text;
  }
  size_t at = 0;
  while (more()) {
    const size_t found = FindText(text, from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  return out += text.substr(at);
}

std::string UpperText(std::string_view text) {
  std::string out;
  for (const char32_t code : Chars(text)) {
    if (code == U'ß') {
      out += "SS";
    } else {
      AppendChar(ToUpper(code), out);
    }
  }
  return out;
}
std::string LowerText(std::string_view text) { return MapChars(text, ToLower); }

std::string CapitalizeText(std::string_view text) {
  bool first = true;
  return MapChars(text, [&first](char32_t code) {
    return std::exchange(first, false) ? ToTitle(code) : ToLower(code);
  });
}

std::string TitleText(std::string_view text) {
  bool after_letter = false;
  return MapChars(text, [&after_letter](char32_t code) {
    const char32_t out = after_letter ? ToLower(code) : ToTitle(code);
    after_letter = ToUpper(code) != code || ToLower(code) != code;
    return out;
  });
}

std::string SwapCaseText(std::string_view text) {
  return MapChars(text, [](char32_t code) {
    return IsUpper(code) ? ToLower(code) : ToUpper(code);
  });
}

std::string OneLine(std::string_view text) {
  constexpr size_t kShownMax = 400;
  std::string out(text.substr(0, kShownMax));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return out + (text.size() > kShownMax ? "..." : "");
}

void AppendStringRepr(std::string_view text, std::string& out) {
  const bool single = text.find('\'') != std::string_view::npos;
  const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  while (!text.empty()) {
    const DecodedChar next = DecodeChar(text);
    text.remove_prefix(next.size);
    const char32_t code = next.code;
    if (code == static_cast<char32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (IsPrintable(code)) {
      AppendChar(code, out);
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
    }
  }
  out += quote;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  const bool negative = text.front() == '-';
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string out = negative ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) {
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  const auto whole = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace penstock::engine::jinja
