// The two kinds of connection to a simulated backend.
#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/sim/backend.h"
#include "tests/sim/http1_reader.h"
#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"
#include "tests/support/memory_stream.h"

namespace penstock::sim {
namespace {

// What decides the answer: the nonce; or, where requests are meant to share one, what
// they ask and who they are.
void ReadQuestion(Call& call, Outside& outside, std::string_view nonce) {
  call.nonce = nonce;
  if (const Asked* const asked = outside.ledger.Find(nonce)) {
    call.question = asked->question;
    call.events = asked->inference && asked->body.find("\"stream\":true") != std::string::npos;
  }
}

// A backend's side of a connection that is not read for a while, now and then, as when
// the engine's process has other work.
class Reading {
 public:
  void Begin(Stream& stream) { stream.Resume(); }
  void MayRest(Backend& backend, Stream* stream) {
    Outside& outside = backend.outside();
    if (stream == nullptr || backend.calm || !outside.Chance(10)) return;
    stream->Pause();
    resting_ = true;
    timer_ = outside.loop.timers().After(outside.Millis(1, 150), [this, stream] {
      resting_ = false;
      stream->Resume();
    });
  }
  void End() { timer_ = {}; }
  bool resting() const { return resting_; }

 private:
  TimerQueue::Timer timer_;
  bool resting_ = false;
};

// Nothing is under way and the backend reads: what a client sent at once has come.
void CheckHasCome(const Call& call, Outside& outside) {
  const Asked* const asked = outside.ledger.Find(call.nonce);
  if (asked == nullptr || !asked->prompt || asked->excused || call.answering) return;
  if (asked->end != Asked::End::kNone) return;
  EXPECT_EQ(call.body.size(), asked->body.size()) << "stands still: " << call.method << " " << call.path;
}

class Http1Line final : public Line, public StreamReceiver, public Http1Reader::Receiver {
 public:
  Http1Line(Backend& backend, std::unique_ptr<Stream> stream)
      : backend_(backend), stream_(std::move(stream)), reader_(true, *this) {
    stream_->SetReceiver(this);
    reading_.Begin(*stream_);
  }
  ~Http1Line() override { Drop(); }
  bool closed() const override { return stream_ == nullptr; }
  void CheckRest() const override {
    if (call_ == nullptr || stream_ == nullptr || reading_.resting()) return;
    CheckHasCome(*call_, backend_.outside());
  }

  void OnData(std::string_view data) override {
    EXPECT_TRUE(reader_.Feed(data)) << "the proxy sent what is not HTTP/1: " << data.substr(0, 200);
    reading_.MayRest(backend_, stream_.get());
  }
  void OnStreamEnd(const absl::Status&) override { Drop(); }
  void OnWritable() override {}

  bool OnHead(const Message& message) override {
    if (call_ != nullptr && !call_->answered) {
      ADD_FAILURE() << "asked " << message.start << " before " << call_->path << " was answered";
    }
    DropCall();
    call_ = std::make_unique<Http1Call>(*this);
    call_->method = message.Word(0);
    call_->path = message.Word(1);
    ReadQuestion(*call_, backend_.outside(), message.Field("x-nonce"));
    backend_.OnHead(*call_);
    return false;
  }
  void OnBody(std::string_view data) override {
    if (call_ != nullptr) call_->body += data;
  }
  void OnEnd() override {
    if (call_ != nullptr) backend_.OnWhole(*call_);
  }

 private:
  struct Http1Call final : Call {
    explicit Http1Call(Http1Line& line_in) : Call(line_in.backend_), line(line_in) {}

    void Head(int status, Fields fields, Ends ends_in, size_t length) override {
      ends = ends_in;
      std::string head = fmt::format("HTTP/1.1 {} {}\r\n", status, status == 200 ? "OK" : "Other");
      for (const auto& [name, value] : fields) head += name + ": " + value + "\r\n";
      if (ends == Ends::kLength) head += fmt::format("content-length: {}\r\n", length);
      if (ends == Ends::kChunked) head += "transfer-encoding: chunked\r\n";
      line.Write(head + "\r\n");
    }
    void Body(std::string_view bytes) override {
      if (method == "HEAD" || bytes.empty()) return;
      line.Write(ends == Ends::kChunked ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes)
                                        : std::string(bytes));
    }
    void End() override {
      if (ends == Ends::kChunked && method != "HEAD") line.Write("0\r\n\r\n");
      answered = true;
    }
    void Break(bool cleanly) override { line.Break(cleanly); }
    void Raw(std::string_view bytes) override { line.Write(bytes); }
    void Beyond(std::string_view bytes) override {
      if (line.stream_ != nullptr) static_cast<MemoryStream&>(*line.stream_).WriteTogether(bytes);
    }
    bool Refuse(int) override { return false; }
    bool full() const override { return line.stream_ != nullptr && line.stream_->above_mark(); }

    Http1Line& line;
    Ends ends = Ends::kLength;
  };

  void Write(std::string_view bytes) {
    if (stream_ != nullptr) stream_->Write(bytes);
  }
  void Break(bool cleanly) {
    if (stream_ == nullptr) return;
    cleanly ? stream_->Shutdown() : stream_->Reset();
    if (call_ != nullptr) call_->Stop();
    if (!cleanly) Let();
  }
  void DropCall() {
    if (call_ == nullptr) return;
    call_->Stop();
    backend_.Gone(*call_);
    done_ = std::move(call_);  // Its own step may be running.
  }
  void Drop() {
    DropCall();
    Let();
  }
  void Let() {
    reading_.End();
    stream_.reset();
  }

  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  Reading reading_;
  Http1Reader reader_;
  std::unique_ptr<Http1Call> call_, done_;
};

class Http2Line final : public Line, public StreamReceiver {
 public:
  Http2Line(Backend& backend, std::unique_ptr<Stream> stream)
      : backend_(backend),
        peer_(CodecRole::kServer, LimitsBy(backend.outside())),
        stream_(std::move(stream)) {
    peer_.on_request = [this](MessageId id) { OnRequest(id); };
    peer_.on_body = [this](MessageId id, std::string_view data) {
      if (Http2Call* const call = Find(id)) call->body += data;
    };
    peer_.on_end = [this](MessageId id) {
      if (Http2Call* const call = Find(id)) backend_.OnWhole(*call);
    };
    peer_.on_reset = [this](MessageId id, uint32_t) { End(id); };
    stream_->SetReceiver(this);
    reading_.Begin(*stream_);
    Pump();
  }
  ~Http2Line() override { Drop(); }
  bool closed() const override { return stream_ == nullptr; }
  void CheckRest() const override {
    if (stream_ == nullptr || reading_.resting()) return;
    for (const auto& [id, call] : calls_) CheckHasCome(*call, backend_.outside());
  }

  void OnData(std::string_view data) override {
    const std::string answer = peer_.Feed(data);
    EXPECT_FALSE(peer_.failed()) << "the proxy sent what is not HTTP/2: " << peer_.error().message;
    EXPECT_EQ(peer_.wrong(), 0);
    if (!answer.empty() && stream_ != nullptr) stream_->Write(answer);
    reading_.MayRest(backend_, stream_.get());
  }
  void OnStreamEnd(const absl::Status&) override { Drop(); }
  void OnWritable() override {}

 private:
  struct Http2Call final : Call {
    Http2Call(Http2Line& line_in, MessageId id_in)
        : Call(line_in.backend_), line(line_in), id(id_in) {}

    void Head(int status, Fields fields, Ends ends, size_t length) override {
      std::vector<Header> headers;
      for (const auto& [name, value] : fields) headers.push_back({name, value});
      ResponseHead head;
      head.status = static_cast<uint16_t>(status);
      head.headers = headers;
      head.framing = ends == Ends::kLength ? Framing::kLength : Framing::kChunked;
      head.content_length = length;
      line.peer_.codec().WriteResponse(line.peer_.out(), id, head, {});
      line.Pump();
    }
    void Body(std::string_view bytes) override {
      if (method == "HEAD") return;
      line.peer_.codec().WriteBody(line.peer_.out(), id, bytes);
      line.Pump();
    }
    void End() override {
      line.peer_.codec().WriteEnd(line.peer_.out(), id, {});
      line.Pump();
      answered = true;
    }
    void Break(bool cleanly) override {
      if (answered) return;  // The stream is over; its connection goes on.
      line.Reset(id, cleanly ? kCancel : kInternalError);
    }
    void Raw(std::string_view) override { line.Fail(); }
    void Beyond(std::string_view) override { line.Fail(); }
    bool Refuse(int how) override {
      if (how > 2) return false;
      if (how == 0) line.Reset(id, kRefusedStream);
      if (how == 1) line.Reset(id, kEnhanceYourCalm);
      if (how == 2) line.GoAway(id);
      return true;
    }
    bool full() const override {
      return line.stream_ != nullptr &&
             (line.stream_->above_mark() || line.peer_.codec().unsent(id) > Codec::kUnsentMark);
    }

    Http2Line& line;
    const MessageId id;
  };

  static CodecLimits LimitsBy(Outside& outside) {
    CodecLimits limits;
    if (outside.Chance(20)) limits.h2.concurrent_streams = outside.Between(1, 3);
    if (outside.Chance(50)) limits.h2.stream_window = limits.h2.connection_window = 1 << 20;
    limits.h2.unsent_bytes = 2 << 20;
    return limits;
  }

  Http2Call* Find(MessageId id) {
    const auto found = calls_.find(id);
    return found == calls_.end() ? nullptr : found->second.get();
  }
  void OnRequest(MessageId id) {
    if (id > last_) return;  // It crossed our GOAWAY: as good as never seen.
    const RequestHead& head = peer_.of(id).request;
    auto& call = calls_[id] = std::make_unique<Http2Call>(*this, id);
    call->method = head.method;
    call->path = head.target;
    const Header* const nonce = penstock::Find(head.headers, "x-nonce");
    ReadQuestion(*call, backend_.outside(), nonce == nullptr ? std::string_view() : nonce->value);
    backend_.OnHead(*call);
  }
  void Pump() {
    const std::string bytes = peer_.Pump();
    if (stream_ != nullptr && !bytes.empty()) stream_->Write(bytes);
  }
  void Reset(MessageId id, uint32_t code) {
    if (stream_ == nullptr) return;
    peer_.codec().WriteReset(peer_.out(), id, code);
    Pump();
    End(id);
  }
  // This request and later ones were not taken in; those before it are served.
  void GoAway(MessageId id) {
    if (stream_ == nullptr) return;
    last_ = std::min(last_, id - 2);
    stream_->Write(h2::GoAway(last_, kNoError));
    while (!calls_.empty() && calls_.rbegin()->first > last_) End(calls_.rbegin()->first);
  }
  void Fail() {
    if (stream_ != nullptr) stream_->Reset();
    Drop();
  }
  void End(MessageId id) {
    const auto found = calls_.find(id);
    if (found == calls_.end()) return;
    found->second->Stop();
    backend_.Gone(*found->second);
    done_.push_back(std::move(found->second));  // Its own step may be running.
    calls_.erase(found);
  }
  void Drop() {
    while (!calls_.empty()) End(calls_.begin()->first);
    reading_.End();
    stream_.reset();
  }

  Backend& backend_;
  H2Peer peer_;
  std::unique_ptr<Stream> stream_;
  Reading reading_;
  std::map<MessageId, std::unique_ptr<Http2Call>> calls_;
  std::vector<std::unique_ptr<Http2Call>> done_;
  MessageId last_ = 0x7fffffff;
};

}  // namespace

std::unique_ptr<Line> MakeHttp1Line(Backend& backend, std::unique_ptr<Stream> stream) {
  return std::make_unique<Http1Line>(backend, std::move(stream));
}
std::unique_ptr<Line> MakeHttp2Line(Backend& backend, std::unique_ptr<Stream> stream) {
  return std::make_unique<Http2Line>(backend, std::move(stream));
}

}  // namespace penstock::sim
