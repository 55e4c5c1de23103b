// Plain values: their spelling in the file, to and fro.
//
// Units are required and there is one way to write each thing, so that a policy
// file means the same to everyone who reads it: no 010, 1_000, yes, .inf or 10M.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "config/field.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "proxy/base/ip.h"
#include "proxy/base/suggest.h"

namespace penstock::config {
namespace {

struct Unit {
  std::string_view name;
  double size;
};
constexpr Unit kTimeUnits[] = {{"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 0.001}};
constexpr Unit kByteUnits[] = {
    {"GiB", 1024. * 1024 * 1024}, {"MiB", 1024. * 1024}, {"KiB", 1024}, {"B", 1}};
constexpr Unit kShareUnits[] = {{"%", 0.01}};

template <typename T>
T& As(void* value) {
  return *static_cast<T*>(value);
}
template <typename T>
const T& As(const void* value) {
  return *static_cast<const T*>(value);
}

// "12", "0.5"; no sign, no exponent, no leading zero, no letters.
std::optional<double> ParseDecimal(std::string_view text) {
  const size_t point = std::min(text.find('.'), text.size());
  if (text.empty() || point == 0 || point + 1 == text.size() || text.size() > 20) return {};
  if (text[0] == '0' && point > 1) return {};
  if (text.find_first_not_of("0123456789.") != std::string_view::npos) return {};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

// A number in the largest unit that leaves it whole.
std::string ShowUnits(double number, std::span<const Unit> units) {
  for (const Unit& unit : units) {
    const double count = number / unit.size;
    if (count >= 1 && std::abs(count - std::round(count)) < 1e-9 * count) {
      return fmt::format("{:.0f}{}", count, unit.name);
    }
  }
  const Unit& plain = units.size() > 2 ? units[2] : units.back();  // 0s, 0%; 1.0005s.
  if (number == 0 && units.size() == 4 && units.back().name == "B") return "0B";
  return fmt::format("{:g}{}", number / plain.size, plain.name);
}

std::string ShowNumber(const Field& field, double number) {
  switch (field.kind) {
    case Kind::kDuration:
      return ShowUnits(number, kTimeUnits);
    case Kind::kBytes:
    case Kind::kBytesOrAuto:
      return ShowUnits(number, kByteUnits);
    case Kind::kShare:
      return fmt::format("{:g}%", number * 100);
    case Kind::kNumber:
      if (number != std::floor(number)) return fmt::format("{:g}", number);
      [[fallthrough]];
    default:
      return fmt::format("{:.0f}", number);
  }
}

std::string CheckRange(const Field& field, std::string_view text, double number) {
  if (number >= field.min && number <= field.max) return "";
  return fmt::format("\"{}\" is out of range; allowed: {} to {}", text,
                     ShowNumber(field, field.min), ShowNumber(field, field.max));
}

// Splits "15s" into its number and unit. Returns what is wrong, or "".
std::string ParseUnits(std::string_view text, std::span<const Unit> units, std::string_view what,
                       double& number) {
  const size_t letters = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view unit_name = text.substr(letters);
  std::string allowed;
  for (const Unit& unit : units) {
    if (unit.name == unit_name) {
      const auto count = ParseDecimal(text.substr(0, letters));
      if (!count) break;
      number = *count * unit.size;
      return "";
    }
  }
  for (size_t i = units.size(); i-- > 0;) {
    allowed += fmt::format("{}15{}", allowed.empty() ? "" : i == 0 ? " or " : ", ", units[i].name);
  }
  if (unit_name.empty() && ParseDecimal(text)) {
    return fmt::format("\"{}\" has no unit; write {}", text, allowed);
  }
  return fmt::format("\"{}\" is not a {}; write it like {}", text, what, allowed);
}

std::string StoreNumber(const Field& field, std::string_view text, double& number) {
  std::string wrong;
  switch (field.kind) {
    case Kind::kDuration:
      wrong = ParseUnits(text, kTimeUnits, "duration", number);
      break;
    case Kind::kBytes:
    case Kind::kBytesOrAuto:
      wrong = ParseUnits(text, kByteUnits, "size", number);
      break;
    case Kind::kShare:
      wrong = ParseUnits(text, kShareUnits, "share", number);
      break;
    default: {
      const auto parsed = ParseDecimal(text);
      const bool whole = field.kind != Kind::kNumber;
      if (!parsed || (whole && text.find('.') != std::string_view::npos)) {
        return fmt::format("\"{}\" is not a {}; allowed: {}{} to {}", text,
                           whole ? "whole number" : "number",
                           field.kind == Kind::kCountOrAuto ? "auto, or " : "",
                           ShowNumber(field, field.min), ShowNumber(field, field.max));
      }
      number = *parsed;
    }
  }
  return wrong.empty() ? CheckRange(field, text, number) : wrong;
}

bool IsWord(std::string_view text, std::string_view extra) {
  return std::all_of(text.begin(), text.end(), [extra](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           extra.find(c) != std::string_view::npos;
  });
}

std::string CheckAddress(const Field& field, std::string_view text) {
  const bool bind = field.kind == Kind::kBindAddress;
  const std::string_view example =
      bind ? "0.0.0.0:8080 or [::]:8080" : "10.0.0.11:8000, [fd00::1]:8000 or engine-1:8000";
  if (text.find("://") != std::string_view::npos) {
    return fmt::format("\"{}\" is a URL; write host and port alone, like {}", text, example);
  }
  const size_t colon = text.rfind(':');
  const std::string_view host = text.substr(0, std::min(colon, text.size()));
  const bool v6 = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (colon == std::string_view::npos || (text.back() == ']' && text.front() == '[')) {
    return fmt::format("\"{}\" has no port; write it like {}", text, example);
  }
  if (host.empty()) return fmt::format("\"{}\" has no host; write it like {}", text, example);
  if (v6 ? !IsWord(host.substr(1, host.size() - 2), ":.%-") : !IsWord(host, ".-_")) {
    return fmt::format("\"{}\" is not HOST:PORT; write it like {}", text, example);
  }
  if (bind && !ParseIp(v6 ? host.substr(1, host.size() - 2) : host)) {
    return fmt::format("\"{}\" is not an IP address; a listener needs one, like {}", host, example);
  }
  const auto port = ParseDecimal(text.substr(colon + 1));
  if (!port || *port != std::floor(*port) || *port > 65535 || (*port == 0 && !bind)) {
    return fmt::format("\"{}\" is not a port; allowed: {} to 65535", text.substr(colon + 1),
                       bind ? 0 : 1);
  }
  return "";
}

std::string CheckText(const Field& field, std::string_view text) {
  if (static_cast<double>(text.size()) > field.max) {
    return fmt::format("{} bytes is too long; allowed: {}", text.size(), field.max);
  }
  switch (field.kind) {
    case Kind::kName:
      if (!IsWord(text, "._-:/[]@")) {
        return fmt::format("\"{}\" is not a name; letters, digits and . _ - : / @ [ ] only", text);
      }
      return "";
    case Kind::kPath:
      if (text[0] != '/' || text.find_first_of(" \t?#") != std::string_view::npos) {
        return fmt::format("\"{}\" is not a path; it begins with / and has no space, ? or #", text);
      }
      return "";
    case Kind::kAddress:
    case Kind::kBindAddress:
      return CheckAddress(field, text);
    default:
      return "";
  }
}

std::vector<std::string_view> Split(std::string_view words) {
  std::vector<std::string_view> parts;
  while (!words.empty()) {
    const size_t end = std::min(words.find('|'), words.size());
    parts.push_back(words.substr(0, end));
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return parts;
}

std::string StoreWord(const Field& field, std::string_view text, void* value) {
  const auto words = Split(field.kind == Kind::kFlag ? "false|true" : field.words);
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] != text) continue;
    if (field.kind == Kind::kFlag) {
      As<bool>(value) = i == 1;
    } else {
      field.set(value, static_cast<int>(i));
    }
    return "";
  }
  const std::string_view nearest = Nearest(text, words);
  return nearest.empty() ? fmt::format("\"{}\" is not one of {}", text, fmt::join(words, ", "))
                         : fmt::format("\"{}\" is not one of {}; did you mean \"{}\"?", text,
                                       fmt::join(words, ", "), nearest);
}

}  // namespace

std::string CheckControls(std::string_view text) {
  const auto found = std::find_if(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (found == text.end()) return "";
  if (*found == '\n' || *found == '\r') return "takes one line; take the line end out";
  return fmt::format("has the control character 0x{:02x} as its byte {}; take it out", static_cast<int>(*found),
                     found - text.begin() + 1);
}

std::string StoreScalar(const Field& field, std::string_view text, void* object) {
  void* value = field.at(object);
  if (text.empty()) return "is empty; give it a value or leave the line out";
  if (std::string wrong = CheckControls(text); !wrong.empty()) return wrong;
  switch (field.kind) {
    case Kind::kFlag:
    case Kind::kChoice:
      return StoreWord(field, text, value);
    case Kind::kCountOrAuto:
      if (text == "auto") {
        As<uint32_t>(value) = 0;
        return "";
      }
      [[fallthrough]];
    case Kind::kCount:
    case Kind::kBytes:
    case Kind::kBytesOrAuto:
    case Kind::kDuration:
    case Kind::kShare:
    case Kind::kNumber: {
      double number = 0;
      const bool bytes = field.kind == Kind::kBytes || field.kind == Kind::kBytesOrAuto;
      if (field.kind != Kind::kBytesOrAuto || text != "auto") {
        if (std::string wrong = StoreNumber(field, text, number); !wrong.empty()) return wrong;
      }
      if (bytes) {
        As<uint64_t>(value) = static_cast<uint64_t>(number);
      } else if (field.kind == Kind::kDuration) {
        As<absl::Duration>(value) = absl::Nanoseconds(std::llround(number * 1e9));
      } else if (field.kind == Kind::kShare || field.kind == Kind::kNumber) {
        As<double>(value) = number;
      } else {
        As<uint32_t>(value) = static_cast<uint32_t>(number);
      }
      return "";
    }
    default:
      if (std::string wrong = CheckText(field, text); !wrong.empty()) return wrong;
      As<std::string>(value) = text;
      return "";
  }
}

std::string ShowScalar(const Field& field, const void* object) {
  const void* value = field.at(const_cast<void*>(object));  // at() only adds an offset.
  switch (field.kind) {
    case Kind::kFlag:
      return As<bool>(value) ? "true" : "false";
    case Kind::kChoice:
      return std::string(Split(field.words)[static_cast<size_t>(field.get(value))]);
    case Kind::kCountOrAuto:
      if (As<uint32_t>(value) == 0) return "auto";
      [[fallthrough]];
    case Kind::kCount:
      return std::to_string(As<uint32_t>(value));
    case Kind::kBytesOrAuto:
      if (As<uint64_t>(value) == 0) return "auto";
      [[fallthrough]];
    case Kind::kBytes:
      return ShowNumber(field, static_cast<double>(As<uint64_t>(value)));
    case Kind::kDuration:
      return ShowNumber(field, absl::ToDoubleSeconds(As<absl::Duration>(value)));
    case Kind::kShare:
    case Kind::kNumber:
      return ShowNumber(field, As<double>(value));
    case Kind::kSecret:
    case Kind::kSecretFile:
      return As<std::string>(value).empty() ? "" : "***";
    case Kind::kSecretsFile: {
      const auto& keys = As<std::vector<std::string>>(value);
      return keys.empty() ? "" : fmt::format("*** ({} keys)", keys.size());
    }
    case Kind::kTexts:
      return fmt::format("[{}]", fmt::join(As<std::vector<std::string>>(value), ", "));
    default:
      return As<std::string>(value);
  }
}

std::string DescribeKind(const Field& field) {
  const auto range = [&](std::string_view what) {
    return fmt::format("{}, {} to {}", what, ShowNumber(field, field.min),
                       ShowNumber(field, field.max));
  };
  switch (field.kind) {
    case Kind::kName:
      return "name";
    case Kind::kText:
      return "text";
    case Kind::kTexts:
      return "list of texts";
    case Kind::kPath:
      return "path";
    case Kind::kAddress:
      return "HOST:PORT";
    case Kind::kBindAddress:
      return "IP:PORT";
    case Kind::kFlag:
      return "true or false";
    case Kind::kCount:
      return range("count");
    case Kind::kCountOrAuto:
      return range("auto, or count");
    case Kind::kBytes:
      return range("size");
    case Kind::kBytesOrAuto:
      return range("auto, or size");
    case Kind::kDuration:
      return range("duration");
    case Kind::kShare:
      return range("share");
    case Kind::kNumber:
      return range("number");
    case Kind::kChoice:
      return fmt::format("{}", fmt::join(Split(field.words), ", "));
    case Kind::kSecret:
      return "${NAME}";
    case Kind::kSecretFile:
    case Kind::kSecretsFile:
      return "file";
    case Kind::kSection:
      return "fields";
    case Kind::kList:
      return fmt::format("list, up to {}", field.max);
  }
  return "";
}

}  // namespace penstock::config
