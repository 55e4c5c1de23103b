#include "proxy/base/log.h"

#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <memory>
#include <mutex>
#include <string>

namespace penstock {
namespace {

std::atomic<LogLevel> log_level{LogLevel::kInfo};
std::atomic<uint64_t> lines_dropped{0};

// Standard error, which is not ours alone: it cannot be made non-blocking. A pipe
// that is ready takes PIPE_BUF bytes at once, so no line is longer.
class ErrorOutput final : public spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    if (text.size() > PIPE_BUF) {
      text.resize(PIPE_BUF);
      text[PIPE_BUF - 1] = '\n';
    }
    pollfd output{STDERR_FILENO, POLLOUT, 0};
    const bool ready = ::poll(&output, 1, 0) == 1 && (output.revents & POLLOUT) != 0;
    if (!ready || ::write(STDERR_FILENO, text.data(), text.size()) < 0) ++lines_dropped;
  }
  void flush_() override {}
};

// Leaked on purpose: threads may still log while the process ends.
spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger("penstock", std::make_shared<ErrorOutput>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    made->set_level(spdlog::level::trace);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarn: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: break;
  }
  return spdlog::level::off;
}

}  // namespace

void SetLogLevel(LogLevel level) { log_level.store(level, std::memory_order_relaxed); }

bool LogEnabled(LogLevel level) { return level >= log_level.load(std::memory_order_relaxed); }

uint64_t LogLinesDropped() { return lines_dropped.load(std::memory_order_relaxed); }

void LogLine(LogLevel level, std::string_view text) {
  if (!LogEnabled(level)) return;
  std::string line(text);
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  Logger().log(SpdlogLevel(level), "{}", line);
}

}  // namespace penstock
