#include "proxy/request/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

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

}  // namespace

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(const std::string& target) {
  const int descriptor = target == "stdout"
                             ? ::dup(STDOUT_FILENO)
                             : ::open(target.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (descriptor < 0) {
    return absl::FailedPreconditionError(
        fmt::format("access log {}: cannot be opened: {}", target, std::strerror(errno)));
  }
  auto log = std::unique_ptr<AccessLog>(new AccessLog(descriptor));
  log->thread_ = std::thread([raw = log.get()] { raw->Run(); });
  return log;
}

AccessLog::~AccessLog() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
  ::close(descriptor_);
}

void AccessLog::Write(const AccessLogEntry& entry) {
  const std::string line = Line(entry);
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
    wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::string lines;
    lines.swap(waiting_);
    lock.unlock();
    for (size_t done = 0; done < lines.size();) {
      const ssize_t n = ::write(descriptor_, lines.data() + done, lines.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;  // A full disk loses lines, never requests.
      done += static_cast<size_t>(n);
    }
    lock.lock();
  }
}

}  // namespace penstock
