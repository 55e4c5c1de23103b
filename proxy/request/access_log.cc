#include "proxy/request/access_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/log.h"

namespace penstock {
namespace {

void AppendEscaped(std::string_view text, std::string& out) {
  for (const char c : text.substr(0, 1024)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
}

void AppendMember(std::string_view key, std::string_view value, std::string& out) {
  out += ",\"";
  out += key;
  out += "\":\"";
  AppendEscaped(value, out);
  out += '"';
}

std::string Line(const AccessLogEntry& entry) {
  std::string out = fmt::format(
      R"({{"start_time":"{}")",
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", entry.start, absl::UTCTimeZone()));
  AppendMember("request_id", entry.request_id, out);
  AppendMember("method", entry.method, out);
  AppendMember("path", entry.path, out);
  AppendMember("protocol", entry.protocol, out);
  AppendMember("route", entry.route, out);
  AppendMember("pool", entry.pool, out);
  AppendMember("backend", entry.backend, out);
  AppendMember("model", entry.model, out);
  AppendMember("cache", entry.cache, out);
  AppendMember("response_flags", entry.flag, out);
  AppendMember("response_code_details", entry.details, out);
  AppendMember("client", entry.client, out);
  fmt::format_to(std::back_inserter(out),
                 R"(,"response_code":{},"stream":{},"attempts":{},"bytes_received":{},"bytes_sent":{},)"
                 R"("duration_ms":{:.3f})",
                 entry.status, entry.stream, entry.attempts, entry.bytes_received, entry.bytes_sent,
                 entry.duration_us / 1e3);
  if (entry.ttft_us >= 0) {
    fmt::format_to(std::back_inserter(out), R"(,"ttft_ms":{:.3f})", entry.ttft_us / 1e3);
  }
  out += "}\n";
  return out;
}

// A named pipe that nobody reads is an error here, not a wait.
int OpenFile(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
}

bool IsFile(int descriptor) {
  struct stat status{};
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(const std::string& target) {
  const int descriptor = target == "stdout" ? ::dup(STDOUT_FILENO) : OpenFile(target);
  if (descriptor < 0) {
    return absl::FailedPreconditionError(
        fmt::format("access log {}: cannot be opened: {}", target, std::strerror(errno)));
  }
  auto log = std::unique_ptr<AccessLog>(new AccessLog(target, descriptor));
  log->thread_ = std::thread([raw = log.get()] { raw->Run(); });
  return log;
}

AccessLog::AccessLog(std::string target, int descriptor)
    : target_(std::move(target)), descriptor_(descriptor), pipe_(!IsFile(descriptor)) {}

std::unique_ptr<AccessLog> AccessLog::Into(absl::AnyInvocable<void(std::string_view line)> sink) {
  return std::unique_ptr<AccessLog>(new AccessLog(std::move(sink)));
}

AccessLog::AccessLog(absl::AnyInvocable<void(std::string_view line)> sink)
    : sink_(std::move(sink)), descriptor_(-1), pipe_(false) {}

AccessLog::~AccessLog() {
  if (sink_) return;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
  ::close(descriptor_);
}

void AccessLog::Reopen() {
  if (sink_) return;
  {
    std::lock_guard lock(mutex_);
    reopen_ = target_ != "stdout";
  }
  wake_.notify_one();
}

void AccessLog::Write(const AccessLogEntry& entry) {
  const std::string line = Line(entry);
  if (sink_) return sink_(line);
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    if (waiting_.size() + line.size() > kBufferMax) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    first = waiting_.empty();
    waiting_ += line;
  }
  if (first) wake_.notify_one();
}

void AccessLog::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || reopen_ || !waiting_.empty(); });
    const bool reopen = std::exchange(reopen_, false);
    if (waiting_.empty() && !reopen) return;
    std::string lines;
    lines.swap(waiting_);
    lock.unlock();
    if (reopen) ReopenNow();
    const std::string_view lost = WriteOut(lines);
    const auto count = static_cast<uint64_t>(std::count(lost.begin(), lost.end(), '\n'));
    if (count > 0) dropped_.fetch_add(count, std::memory_order_relaxed);
    lock.lock();
  }
}

void AccessLog::ReopenNow() {
  const int fresh = OpenFile(target_);
  if (fresh < 0) {
    LogWarn("access log {}: cannot be opened again, the old file stays: {}", target_,
            std::strerror(errno));
    return;
  }
  ::close(std::exchange(descriptor_, fresh));
  pipe_ = !IsFile(descriptor_);
}

bool AccessLog::stopping() {
  std::lock_guard lock(mutex_);
  return stop_;
}

std::string_view AccessLog::WriteOut(std::string_view lines) {
  constexpr int kLookMillis = 50;
  int last_words = 0;
  while (!lines.empty()) {
    pollfd output{descriptor_, POLLOUT, 0};
    if (::poll(&output, 1, kLookMillis) == 0) {
      if (stopping() && (last_words += kLookMillis) > kLastWordsMillis) return lines;
      continue;
    }
    const size_t size = pipe_ ? std::min<size_t>(lines.size(), PIPE_BUF) : lines.size();
    const ssize_t n = ::write(descriptor_, lines.data(), size);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return lines;  // A full disk, or nobody who reads.
    lines.remove_prefix(static_cast<size_t>(n));
  }
  return lines;
}

}  // namespace penstock
