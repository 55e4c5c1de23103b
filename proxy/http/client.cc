#include "proxy/http/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proxy/base/gather.h"
#include "proxy/base/status.h"
#include "proxy/http/codec.h"

namespace penstock {
namespace {

// Codec events are only noted; what the caller is told comes after the codec has
// returned, so that the caller may destroy the fetch at any time.
class OneFetch final : public Fetch, public StreamReceiver, public CodecReceiver {
 public:
  OneFetch(Dialer& dialer, DeadlineWheel& deadlines, const Address& address, FetchOptions options,
           Callback callback)
      : deadlines_(deadlines),
        options_(std::move(options)),
        callback_(std::move(callback)),
        name_(fmt::format("{} http://{}{} at {}", options_.method, options_.authority,
                          options_.target, address.text)),
        deadline_(deadlines, [](void* self) { static_cast<OneFetch*>(self)->OnDeadline(); }, this) {
    deadline_.Set(deadlines_.now() + options_.timeout);
    dial_ = dialer.Dial(address, options_.connect_timeout,
                        [this](auto stream) { OnDialled(std::move(stream)); });
  }
  ~OneFetch() override { *alive_ = false; }

  void OnData(std::string_view data) override {
    codec_->SetNow(deadlines_.now());
    codec_->Feed(data);
    Gather out;
    codec_->Pump(out);
    if (!out.empty()) stream_->Write(out.pieces());
    if (head_done_ && options_.on_data) deadline_.Set(IdleDeadline());
    Tell();
  }
  void OnStreamEnd(const absl::Status& status) override {
    if (status.ok()) {
      codec_->FeedEnd();
    } else {
      failure_ = status;
    }
    if (!done_ && failure_.ok()) failure_ = Broken("the connection ended before the answer");
    Tell();
  }
  void OnWritable() override {}

  void OnResponse(MessageId, ResponseHead& head) override {
    head_done_ = true;
    result_.status = head.status;
    Append(head.headers, result_.headers);
  }
  void OnBody(MessageId, std::string_view data) override {
    const bool streams = static_cast<bool>(options_.on_data);
    if (!streams && data.size() > options_.body_bytes - body_.size()) {
      failure_ = Broken(fmt::format("the body is longer than {} bytes", options_.body_bytes));
      return;
    }
    if (failure_.ok()) body_ += data;
  }
  void OnMessageEnd(MessageId, std::span<Header> trailers) override {
    Append(trailers, result_.trailers);
    done_ = true;
  }
  void OnMessageReset(MessageId, uint32_t) override {
    if (!done_ && failure_.ok()) failure_ = Broken("the stream was reset");
  }
  void OnProtocolError(const ProtocolError& error) override {
    if (!done_ && failure_.ok()) failure_ = Broken(error.message);
  }

 private:
  static void Append(std::span<const Header> from, HeaderList& to) {
    for (const Header& header : from) {
      std::string name(header.name);
      std::transform(name.begin(), name.end(), name.begin(), ToLower);
      to.emplace_back(std::move(name), header.value);
    }
  }

  absl::Status Broken(std::string_view why) const {
    return absl::UnavailableError(A(fmt::format("{}: {}", name_, why)));
  }

  MonoTime IdleDeadline() const {
    return options_.idle_timeout == kNever ? kNever : deadlines_.now() + options_.idle_timeout;
  }

  void OnDialled(absl::StatusOr<std::unique_ptr<Stream>> stream) {
    dial_.reset();
    if (!stream.ok()) return Finish(stream.status());
    stream_ = *std::move(stream);
    stream_->SetReceiver(this);
    const bool http2 = options_.http2 || stream_->alpn() == "h2";
    codec_ = (http2 ? MakeH2Codec : MakeH1Codec)(CodecRole::kClient, *this, CodecLimits{});
    RequestHead head;
    head.method = options_.method;
    head.target = options_.target;
    head.scheme = stream_->tls() == nullptr ? "http" : "https";
    head.authority = options_.authority;
    if (!options_.body.empty()) {
      head.framing = Framing::kLength;
      head.content_length = options_.body.size();
    }
    std::vector<Header> fields;
    for (const auto& [name, value] : options_.headers) {
      fields.push_back({name, value, LookUpHeader(name)});
    }
    Gather out;
    if (!http2) codec_->StartClosing(out);
    codec_->Pump(out);
    const MessageId id = codec_->WriteRequest(out, head, fields);
    codec_->WriteBody(out, id, options_.body);
    stream_->Write(out.pieces());
    stream_->Resume();
  }

  void OnDeadline() {
    const bool idle = head_done_ && static_cast<bool>(options_.on_data);
    const MonoTime limit = idle ? options_.idle_timeout : options_.timeout;
    Finish(absl::DeadlineExceededError(A(fmt::format(
        "{}: {} within {} ms", name_, idle ? "nothing came" : "no answer", limit / kMillisecond))));
  }

  // Hands over what the codec has noted. May destroy this.
  void Tell() {
    if (options_.on_data && !body_.empty()) {
      const std::shared_ptr<bool> alive = alive_;
      const std::string data = std::exchange(body_, {});
      options_.on_data(data);
      if (!*alive) return;
    }
    if (!failure_.ok()) return Finish(failure_);
    if (!done_) return;
    result_.body = std::move(body_);
    Finish(std::move(result_));
  }

  void Finish(absl::StatusOr<FetchResult> result) {
    deadline_.Clear();
    dial_.reset();
    stream_.reset();
    Callback callback = std::move(callback_);
    callback(std::move(result));
  }

  DeadlineWheel& deadlines_;
  FetchOptions options_;
  Callback callback_;
  const std::string name_;
  std::unique_ptr<Codec> codec_;
  Deadline deadline_;
  std::unique_ptr<Dialer::Pending> dial_;
  std::unique_ptr<Stream> stream_;
  FetchResult result_;
  std::string body_;
  absl::Status failure_;
  bool head_done_ = false;
  bool done_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<Fetch> Fetch::Start(Dialer& dialer, DeadlineWheel& deadlines,
                                    const Address& address, FetchOptions options,
                                    Callback callback) {
  return std::make_unique<OneFetch>(dialer, deadlines, address, std::move(options),
                                    std::move(callback));
}

}  // namespace penstock
