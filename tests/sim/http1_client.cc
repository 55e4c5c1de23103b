#include <algorithm>
#include <deque>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/sim/client.h"
#include "tests/sim/http1_reader.h"

namespace penstock::sim {
namespace {

constexpr size_t kPipelinedMax = 4;

class Http1Client final : public Client, public StreamReceiver, public Http1Reader::Receiver {
 public:
  Http1Client(Outside& outside, std::unique_ptr<Stream> stream)
      : outside_(outside), stream_(std::move(stream)), reader_(false, *this) {
    stream_->SetReceiver(this);
    stream_->Resume();
  }
  ~Http1Client() override { Leave(true); }

  bool ready() const override { return stream_ != nullptr && !last_ && waiting_.size() < kPipelinedMax; }
  bool closed() const override { return stream_ == nullptr; }

  void Ask(Asked& asked, const Sending& sending) override {
    std::string head = fmt::format("{} {} HTTP/1.{}\r\nhost: api\r\nx-request-id: {}\r\nx-nonce: {}\r\n",
                                   asked.method, asked.path, sending.old ? 0 : 1, asked.nonce, asked.nonce);
    for (const auto& [name, value] : sending.fields) head += name + ": " + value + "\r\n";
    last_ = sending.old || sending.last;
    if (sending.last) head += "connection: close\r\n";
    std::string body = asked.body;
    if (sending.chunked) {
      head += "transfer-encoding: chunked\r\n";
      body = body.empty() ? "" : fmt::format("{:x}\r\n{}\r\n", body.size(), body);
      body += "0\r\n\r\n";
    } else if (!body.empty() || asked.method == "POST") {
      head += fmt::format("content-length: {}\r\n", body.size());
    }
    unsent_ += head + "\r\n" + body;
    waiting_.push_back(&asked);
    ends_.push_back({sent_ + unsent_.size(), &asked});
    if (slow_) asked.excused = true;
    Send(sending.at_once);
    asked.prompt = asked.sent;
  }

  void Act() override {
    if (stream_ == nullptr) return;
    switch (outside_.random.Below(6)) {
      case 0: return Send(unsent_.size());
      case 1: return Send(outside_.random.Below(2000));
      case 2: return ReadSlowly();
      default: stream_->Resume();
    }
  }

  void Behave() override {
    if (stream_ == nullptr) return;
    stream_->Resume();
    Send(unsent_.size());
  }

  void Leave(bool cleanly) override {
    if (stream_ == nullptr) return;
    if (!cleanly) stream_->Reset();
    stream_.reset();
    EndAll(Asked::End::kLeft);
  }

  void Excuse() override {
    for (Asked* asked : waiting_) asked->excused = true;
  }

  void OnData(std::string_view data) override {
    EXPECT_TRUE(reader_.Feed(data)) << "the proxy answered what is not HTTP/1: " << data.substr(0, 200);
  }
  void OnStreamEnd(const absl::Status& status) override {
    if (status.ok()) reader_.FeedEnd();
    stream_.reset();
    EndAll(Asked::End::kUnanswered);
  }
  void OnWritable() override {}

  bool OnHead(const Message& message) override {
    if (waiting_.empty()) {
      ADD_FAILURE() << "an answer to nothing: " << message.start;
      return true;
    }
    Asked& asked = *waiting_.front();
    asked.status = message.status();
    if (message.Field("connection") == "close") last_ = true;
    // Half a head is answered, though the rest is on its way, and is no request.
    if (asked.status == 408 && outside_.ledger.Refused(message.Field("x-request-id"))) asked.refusable = true;
    EXPECT_TRUE(asked.refusable || message.Field("x-request-id") == asked.nonce)
        << "the answer to " << message.Field("x-request-id") << " came to " << asked.nonce << ": " << message.start;
    return asked.method == "HEAD" || asked.status == 204 || asked.status == 304;
  }
  void OnBody(std::string_view data) override {
    if (!waiting_.empty()) outside_.ledger.OnAnswer(*waiting_.front(), data);
  }
  void OnEnd() override {
    if (waiting_.empty()) return;
    Asked& asked = *waiting_.front();
    waiting_.pop_front();
    outside_.ledger.OnEnd(asked, Asked::End::kWhole);
  }

 private:
  struct Due {
    size_t at = 0;
    Asked* asked = nullptr;
  };

  void Send(size_t bytes) {
    bytes = std::min(bytes, unsent_.size());
    if (stream_ == nullptr || bytes == 0) return;
    stream_->Write(std::string_view(unsent_).substr(0, bytes));
    unsent_.erase(0, bytes);
    sent_ += bytes;
    while (!ends_.empty() && ends_.front().at <= sent_) {
      ends_.front().asked->sent = true;
      ends_.pop_front();
    }
  }
  void ReadSlowly() {
    slow_ = true;
    stream_->Pause();
    Excuse();
  }
  void EndAll(Asked::End end) {
    ends_.clear();
    for (Asked* asked : std::exchange(waiting_, {})) {
      const bool broken = end == Asked::End::kUnanswered && asked->status != 0;
      outside_.ledger.OnEnd(*asked, broken ? Asked::End::kBroken : end);
    }
  }

  Outside& outside_;
  std::unique_ptr<Stream> stream_;
  Http1Reader reader_;
  std::deque<Asked*> waiting_;  // For their answers, in order.
  std::deque<Due> ends_;        // Where each request ends that is not sent whole.
  std::string unsent_;
  size_t sent_ = 0;
  bool last_ = false;           // No more requests on this connection.
  bool slow_ = false;
};

}  // namespace

std::unique_ptr<Client> MakeHttp1Client(Outside& outside, std::unique_ptr<Stream> stream) {
  return std::make_unique<Http1Client>(outside, std::move(stream));
}

}  // namespace penstock::sim
