#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "tests/sim/client.h"
#include "tests/support/h2_peer.h"

namespace penstock::sim {
namespace {

// Remembers the status of each answer when its head comes.
class Peer final : public H2Peer {
 public:
  Peer() : H2Peer(CodecRole::kClient) {}
  void OnResponse(MessageId id, ResponseHead& head) override {
    H2Peer::OnResponse(id, head);
    const Header* const request = penstock::Find(head.headers, KnownHeader::kXRequestId);
    on_response(id, head.status, request == nullptr ? std::string_view() : request->value);
  }
  std::function<void(MessageId, uint16_t, std::string_view)> on_response;
};

class Http2Client final : public Client, public StreamReceiver {
 public:
  Http2Client(Outside& outside, std::unique_ptr<Stream> stream)
      : outside_(outside), stream_(std::move(stream)) {
    peer_.on_response = [this](MessageId id, uint16_t status, std::string_view request) {
      if (Open* const open = Find(id)) {
        open->asked->status = status;
        EXPECT_TRUE(open->asked->refusable || request == open->asked->nonce)
            << "the answer to " << request << " came to " << open->asked->nonce;
      }
    };
    peer_.on_body = [this](MessageId id, std::string_view data) {
      if (Open* const open = Find(id)) outside_.ledger.OnAnswer(*open->asked, data);
    };
    peer_.on_end = [this](MessageId id) { End(id, Asked::End::kWhole); };
    peer_.on_reset = [this](MessageId id, uint32_t) { End(id, Asked::End::kUnanswered); };
    stream_->SetReceiver(this);
    stream_->Resume();
    Pump();
  }
  ~Http2Client() override { Leave(true); }

  bool ready() const override {
    return stream_ != nullptr && codec().reusable() && codec().room() > 0 && open_.size() < 8;
  }
  bool closed() const override { return stream_ == nullptr; }

  void Ask(Asked& asked, const Sending& sending) override {
    Fields fields = sending.fields;
    fields.emplace_back("x-request-id", asked.nonce);
    fields.emplace_back("x-nonce", asked.nonce);
    std::vector<Header> headers;
    for (const auto& [name, value] : fields) headers.push_back({name, value});
    RequestHead head;
    head.method = asked.method;
    head.target = head.path = asked.path;
    head.authority = "api";
    head.scheme = "http";
    head.headers = headers;
    const bool body = !asked.body.empty() || asked.method == "POST";
    head.framing = !body ? Framing::kNone : sending.chunked ? Framing::kChunked : Framing::kLength;
    head.content_length = asked.body.size();
    const MessageId id = codec().WriteRequest(peer_.out(), head, {});
    Open& open = open_[id];
    open.asked = &asked;
    open.chunked = sending.chunked;
    asked.excused = slow_;
    asked.sent = !body;
    Send(id, open, sending.at_once);
    asked.prompt = asked.sent;
  }

  void Act() override {
    if (stream_ == nullptr) return;
    if (open_.empty() || outside_.Chance(30)) {
      outside_.Chance(20) ? ReadSlowly() : stream_->Resume();
      return;
    }
    auto at = open_.begin();
    std::advance(at, outside_.random.Below(static_cast<uint32_t>(open_.size())));
    Open& open = at->second;
    switch (outside_.random.Below(6)) {
      case 0:
        if (open.sent_ever && outside_.Chance(50)) return Cancel(at->first);
        [[fallthrough]];
      case 1:
        open.asked->excused = true;
        codec().PauseBody(at->first);
        return;
      case 2:
        codec().ResumeBody(peer_.out(), at->first);
        return Pump();
      default: Send(at->first, open, outside_.Chance(50) ? SIZE_MAX : outside_.random.Below(2000));
    }
  }

  void Behave() override {
    if (stream_ == nullptr) return;
    stream_->Resume();
    std::vector<MessageId> ids;
    for (const auto& [id, open] : open_) ids.push_back(id);
    for (const MessageId id : ids) {
      codec().ResumeBody(peer_.out(), id);
      if (Open* const open = Find(id)) Send(id, *open, SIZE_MAX);
    }
    Pump();
  }

  void Leave(bool cleanly) override {
    if (stream_ == nullptr) return;
    if (!cleanly) stream_->Reset();
    stream_.reset();
    EndAll(Asked::End::kLeft);
  }

  void Excuse() override {
    for (auto& [id, open] : open_) open.asked->excused = true;
  }

  void OnData(std::string_view data) override {
    const std::string answer = peer_.Feed(data);
    EXPECT_FALSE(peer_.failed()) << "the proxy sent what is not HTTP/2: " << peer_.error().message;
    if (!answer.empty() && stream_ != nullptr) stream_->Write(answer);
  }
  void OnStreamEnd(const absl::Status&) override {
    EXPECT_EQ(peer_.wrong(), 0);
    stream_.reset();
    EndAll(Asked::End::kUnanswered);
  }
  void OnWritable() override {}

 private:
  struct Open {
    Asked* asked = nullptr;
    size_t at = 0;             // Of the body that has been sent.
    bool chunked = false;
    bool sent_ever = false;
  };

  Codec& codec() { return peer_.codec(); }
  const Codec& codec() const { return const_cast<Peer&>(peer_).codec(); }
  Open* Find(MessageId id) {
    const auto found = open_.find(id);
    return found == open_.end() ? nullptr : &found->second;
  }
  void Pump() {
    const std::string bytes = peer_.Pump();
    if (stream_ != nullptr && !bytes.empty()) stream_->Write(bytes);
  }
  void Send(MessageId id, Open& open, size_t bytes) {
    Asked& asked = *open.asked;
    if (!asked.sent) {
      bytes = std::min(bytes, asked.body.size() - open.at);
      open.sent_ever |= bytes > 0;
      codec().WriteBody(peer_.out(), id, std::string_view(asked.body).substr(open.at, bytes));
      open.at += bytes;
      if (open.at == asked.body.size()) {
        asked.sent = true;
        codec().WriteEnd(peer_.out(), id);
      }
    }
    Pump();
  }
  void ReadSlowly() {
    slow_ = true;
    stream_->Pause();
    Excuse();
  }
  void Cancel(MessageId id) {
    codec().WriteReset(peer_.out(), id, kCancel);
    End(id, Asked::End::kLeft);
    Pump();
  }
  void End(MessageId id, Asked::End end) {
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    Asked& asked = *found->second.asked;
    open_.erase(found);
    const bool broken = end == Asked::End::kUnanswered && asked.status != 0;
    outside_.ledger.OnEnd(asked, broken ? Asked::End::kBroken : end);
  }
  void EndAll(Asked::End end) {
    while (!open_.empty()) End(open_.begin()->first, end);
  }

  Outside& outside_;
  Peer peer_;
  std::unique_ptr<Stream> stream_;
  std::map<MessageId, Open> open_;
  bool slow_ = false;
};

}  // namespace

std::unique_ptr<Client> MakeHttp2Client(Outside& outside, std::unique_ptr<Stream> stream) {
  return std::make_unique<Http2Client>(outside, std::move(stream));
}

}  // namespace penstock::sim
