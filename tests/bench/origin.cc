// The origin of the comparison (compare.py): answers what a path asks for, on one
// thread, so cheaply that the proxy in front of it is what is measured.
//
//   GET /bytes/N              N bytes
//   GET /events/COUNT/GAP     COUNT server-sent events, GAP milliseconds apart, in chunks
//   POST anything             the body is read and dropped; three events
//   GET /count                how many requests were answered
//
// Usage: origin PORT. It trusts whoever asks: it is no server for the world.
#include <signal.h>
#include <strings.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "proxy/net/loop.h"

namespace penstock {
namespace {

long answered = 0;

size_t LengthIn(std::string_view head) {
  constexpr std::string_view kName = "content-length:";
  for (size_t at = 0; (at = head.find('\n', at)) != std::string_view::npos;) {
    ++at;
    if (head.size() - at > kName.size() && strncasecmp(head.data() + at, kName.data(), kName.size()) == 0) {
      return std::strtoul(head.data() + at + kName.size(), nullptr, 10);
    }
  }
  return 0;
}

// One connection; deletes itself when the peer has gone.
class Client final : public StreamReceiver {
 public:
  Client(Loop& loop, std::unique_ptr<Stream> stream) : loop_(loop), stream_(std::move(stream)) {
    stream_->SetReceiver(this);
    stream_->Resume();
  }

  void OnData(std::string_view data) override {
    while (!data.empty()) {
      if (body_left_ > 0) {
        const size_t part = std::min(body_left_, data.size());
        body_left_ -= part;
        data.remove_prefix(part);
        if (body_left_ > 0) return;
        Answer();
        continue;
      }
      const size_t before = head_.size();
      head_.append(data);
      const size_t end = head_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
      if (end == std::string::npos) return;
      data.remove_prefix(end + 4 - before);
      head_.resize(end + 2);
      body_left_ = LengthIn(head_);
      if (body_left_ == 0) Answer();
    }
  }
  void OnStreamEnd(const absl::Status&) override { delete this; }
  void OnWritable() override {}

 private:
  void Answer() {
    const std::string head = std::exchange(head_, {});
    const size_t begin = head.find(' ') + 1;
    const std::string path = head.substr(begin, head.find(' ', begin) - begin);
    if (path == "/count") return SendWhole(std::to_string(answered));
    ++answered;
    long first = 0, gap_ms = 0;
    if (head.starts_with("POST")) return SendEvents(3, 0);
    if (std::sscanf(path.c_str(), "/events/%ld/%ld", &first, &gap_ms) == 2) return SendEvents(first, gap_ms);
    std::sscanf(path.c_str(), "/bytes/%ld", &first);
    SendWhole(std::string(static_cast<size_t>(first), 'x'));
  }

  void SendWhole(std::string_view body) {
    stream_->Write(fmt::format("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: origin\r\n"
                               "content-length: {}\r\n\r\n{}", body.size(), body));
  }

  void SendEvents(long count, long gap_ms) {
    events_sent_ = 0;
    events_ = count;
    gap_ = gap_ms * kMillisecond;
    stream_->Write(std::string_view(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"));
    if (gap_ > 0) return SendLater();
    while (SendEvent()) {
    }
  }

  void SendLater() {
    timer_ = loop_.timers().After(gap_, [this] {
      if (SendEvent()) SendLater();
    });
  }

  // False: that was the last.
  bool SendEvent() {
    if (events_sent_ == events_) {
      stream_->Write(std::string_view("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"));
      return false;
    }
    const std::string event = fmt::format(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"token {}\"}}}}]}}\n\n", events_sent_++);
    stream_->Write(fmt::format("{:x}\r\n{}\r\n", event.size(), event));
    return true;
  }

  Loop& loop_;
  std::unique_ptr<Stream> stream_;
  std::string head_;           // Of the request that is being read.
  size_t body_left_ = 0;
  long events_ = 0, events_sent_ = 0;
  MonoTime gap_ = 0;
  TimerQueue::Timer timer_;
};

int Run(const char* port) {
  const std::unique_ptr<Loop> loop = Loop::Create();
  const absl::StatusOr<Address> address = Address::Parse(fmt::format("127.0.0.1:{}", port));
  if (!address.ok()) return std::fprintf(stderr, "origin: %s is no port\n", port), 2;
  const auto listener = loop->Listen(*address, [&](std::unique_ptr<Stream> stream) {
    new Client(*loop, std::move(stream));
  });
  if (!listener.ok()) return std::fprintf(stderr, "origin: port %s cannot be listened on\n", port), 1;
  loop->Run();
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: origin PORT\n"), 2;
  signal(SIGPIPE, SIG_IGN);   // Clients leave when their time is over.
  return penstock::Run(argv[1]);
}
