// The process log: one line on standard error for each event that a human acts
// on. Facts about single requests go to the access log instead, and a prompt or
// an answer goes to neither. Whoever reads standard error may stop reading: lines
// that would have to wait are dropped and counted.
//
// Threads: any.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string_view>
#include <utility>

namespace penstock {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError, kOff };

void SetLogLevel(LogLevel level);   // kInfo at the start.
bool LogEnabled(LogLevel level);
// Control characters in `text` are written as '?', so that one event stays one line.
void LogLine(LogLevel level, std::string_view text);

// Lines that found no room, since the start.
uint64_t LogLinesDropped();

template <typename... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  if (!LogEnabled(LogLevel::kInfo)) return;
  LogLine(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogWarn(fmt::format_string<Args...> format, Args&&... args) {
  if (!LogEnabled(LogLevel::kWarn)) return;
  LogLine(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  if (!LogEnabled(LogLevel::kError)) return;
  LogLine(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace penstock
