#include "proxy/http/server_connection.h"

#include <algorithm>
#include <utility>

#include "proxy/base/log.h"
#include "proxy/http/error_reply.h"

namespace penstock {
namespace {

constexpr MonoTime kLingerTime = kSecond;
constexpr size_t kLingerBytes = 64 * 1024;
constexpr MonoTime kCutTime = kSecond;
constexpr MonoTime kCutTick = 20 * kMillisecond;

ReplyCode ReplyFor(uint16_t status) {
  switch (status) {
    case 405: return ReplyCode::kMethodNotAllowed;
    case 413: return ReplyCode::kBodyTooLarge;
    case 414: return ReplyCode::kUriTooLong;
    case 431: return ReplyCode::kHeadersTooLarge;
    case 501: return ReplyCode::kNotImplemented;
    default: return ReplyCode::kBadRequest;
  }
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), ToLower);
  return lower;
}

std::vector<Header> Views(const HeaderList& list) {
  std::vector<Header> views;
  views.reserve(list.size() + 1);
  for (const auto& [name, value] : list) views.push_back({name, value, LookUpHeader(name)});
  return views;
}

}  // namespace

// Every entry from outside holds one; the last one out removes a dead connection.
class ServerConnection::Scope {
 public:
  explicit Scope(ServerConnection& connection) : connection_(connection) { ++connection_.depth_; }
  ~Scope() {
    if (--connection_.depth_ == 0 && connection_.dead_) {
      connection_.shared_.connections.erase(connection_.self);
    }
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  ServerConnection& connection_;
};

ServerConnection::ServerConnection(ServerShared& shared, std::unique_ptr<Stream> stream)
    : shared_(shared),
      stream_(std::move(stream)),
      codec_(MakeH1Codec(CodecRole::kServer, *this, shared.options.codec)),
      deadline_(shared.loop.deadlines(),
                [](void* self) { static_cast<ServerConnection*>(self)->OnDeadline(); }, this) {
  stream_->SetReceiver(this);
  deadline_.Set(shared_.loop.now() + shared_.options.header_timeout);
  stream_->Resume();
}

ServerConnection::~ServerConnection() {
  if (cutting_ && !dead_) stream_->Reset();
  if (answer_ == nullptr) return;
  answer_->connection_ = nullptr;
  answer_->gone_ = true;
}

void ServerConnection::StopTaking() {
  const Scope scope(*this);
  if (cutting_) return;
  if (codec_->idle()) return Die();
  codec_->StartClosing(shared_.gather);
  Flush();
}

void ServerConnection::OnData(std::string_view data) {
  const Scope scope(*this);
  if (lingering_ || cutting_) {
    lingered_ += data.size();
    if (lingered_ <= kLingerBytes) return;
    if (cutting_) stream_->Reset();
    Die();
    return;
  }
  if (!pending_.empty()) {
    pending_ += data;
    return;
  }
  const bool was_idle = codec_->idle();
  Feed(data);
  // From the first byte on the whole head has header_timeout; a body may pause that long.
  const bool reading =
      !dead_ && !lingering_ && !cutting_ && answer_ == nullptr && !codec_->idle();
  if (reading && (was_idle || id_ != 0)) {
    deadline_.Set(shared_.loop.now() + shared_.options.header_timeout);
    unsent_ = 0;
  }
}

void ServerConnection::Feed(std::string_view data) {
  in_feed_ = true;
  const size_t taken = codec_->Feed(data);
  in_feed_ = false;
  if (dead_ || refused_ || cutting_ || taken == data.size()) return;
  pending_ = data.substr(taken);
  stream_->Pause();
}

void ServerConnection::OnStreamEnd(const absl::Status& status) {
  const Scope scope(*this);
  // An end while the answer is awaited: whoever closes does not want it any more.
  if (status.ok() && !lingering_ && !refused_ && answer_ == nullptr) codec_->FeedEnd();
  Die();
}

void ServerConnection::OnDeadline() {
  const Scope scope(*this);
  if (cutting_) {
    const size_t unsent = stream_->buffered();
    if (unsent < std::exchange(unsent_, unsent)) cut_by_ = shared_.loop.now() + kCutTime;
    if (unsent > 0 && shared_.loop.now() < cut_by_) {
      return deadline_.Set(shared_.loop.now() + kCutTick);
    }
    stream_->Reset();
    return Die();
  }
  // An answer on its way to a slow reader has as long as some of it is taken.
  if (answer_ == nullptr && unsent_ > 0) {
    if (stream_->buffered() < unsent_) return AwaitPeer();
    if (lingering_ && shared_.loop.now() < give_up_) {
      return deadline_.Set(shared_.loop.now() + kLingerTime);
    }
  }
  if (!lingering_ && answer_ == nullptr && !codec_->idle()) {
    return Refuse(408, ErrorBody(ReplyCode::kRequestTimeout, "the request did not come in time"));
  }
  Die();
}

void ServerConnection::OnRequest(MessageId id, RequestHead& head) {
  id_ = id;
  request_ = {};
  request_.method = head.method;
  request_.path = head.path;
  if (head.target.size() > head.path.size()) {
    request_.query = head.target.substr(head.path.size() + 1);
  }
  request_.headers.reserve(head.headers.size());
  for (const struct Header& header : head.headers) {
    request_.headers.emplace_back(Lower(header.name), header.value);
  }
  request_.peer = stream_->peer();
  const absl::StatusOr<Address> peer = Address::Parse(request_.peer);
  request_.from_loopback = peer.ok() && peer->loopback();
  if (head.framing == Framing::kLength) {
    if (head.content_length > shared_.options.body_bytes) return RefuseBody();
    request_.body.reserve(std::min<size_t>(head.content_length, 1 << 20));
  }
  if (!head.expect_continue) return;
  codec_->WriteContinue(shared_.gather, id);
  Flush();
}

void ServerConnection::OnBody(MessageId, std::string_view data) {
  if (refused_) return;
  if (data.size() > shared_.options.body_bytes - request_.body.size()) return RefuseBody();
  request_.body += data;
}

void ServerConnection::RefuseBody() {
  Refuse(413, ErrorBody(ReplyCode::kBodyTooLarge, "the request body is larger than the limit"));
}

void ServerConnection::OnMessageEnd(MessageId, std::span<Header>) {
  if (refused_) return;
  deadline_.Clear();
  auto answer = std::make_unique<ServerAnswer>(*this);
  answer_ = answer.get();
  shared_.handler(std::move(request_), std::move(answer));
}

void ServerConnection::OnProtocolError(const ProtocolError& error) {
  if (!refused_) Refuse(error.status, ErrorBody(ReplyFor(error.status), error.message));
}

// Answers an error and ends the connection; what still comes is thrown away.
void ServerConnection::Refuse(int status, std::string_view body) {
  refused_ = true;
  codec_->StartClosing(shared_.gather);
  WriteHead(status, "application/json", {}, Framing::kLength, body.size());
  codec_->WriteBody(shared_.gather, id_, body);
  Flush();
  Linger();
}

void ServerConnection::WriteHead(int status, std::string_view content_type,
                                 const HeaderList& headers, Framing framing, size_t length) {
  std::vector<struct Header> fields = Views(headers);
  const bool close = std::any_of(fields.begin(), fields.end(), [](const struct Header& field) {
    return field.id == KnownHeader::kConnection && field.value == "close";
  });
  if (close) codec_->StartClosing(shared_.gather);
  if (!content_type.empty()) {
    fields.push_back({"content-type", content_type, KnownHeader::kContentType});
  }
  ResponseHead head;
  head.status = static_cast<uint16_t>(status);
  head.framing = framing;
  head.content_length = length;
  codec_->WriteResponse(shared_.gather, id_, head, fields);
}

void ServerConnection::Flush() {
  if (!shared_.gather.empty() && !dead_) stream_->Write(shared_.gather.pieces());
  shared_.gather.Clear();
}

void ServerConnection::FinishExchange() {
  answer_ = nullptr;
  id_ = 0;
  if (shared_.closing || !codec_->reusable()) return Linger();
  AwaitPeer();
  codec_->NextMessage();
  if (in_feed_ || pending_.empty()) return;
  const std::string bytes = std::exchange(pending_, {});
  Feed(bytes);
  if (pending_.empty() && !dead_ && !refused_) stream_->Resume();
}

// Ends our direction once all is sent and waits a little for the peer's end:
// closing at once with unread bytes would reset the connection and could take the answer away.
void ServerConnection::Linger() {
  if (dead_) return;
  lingering_ = true;
  pending_.clear();
  stream_->Shutdown();
  stream_->Resume();
  AwaitPeer();
}

// The peer is to take what is left of the last answer, then send a request or end.
void ServerConnection::AwaitPeer() {
  unsent_ = stream_->buffered();
  const MonoTime now = shared_.loop.now();
  give_up_ = now + shared_.options.keep_alive_timeout;
  deadline_.Set(lingering_ ? now + kLingerTime : give_up_);
}

// A reset takes away what the client's side has not got yet, so it comes a tick
// after the last byte went out, or when none was taken for kCutTime.
void ServerConnection::CutSoon() {
  if (dead_) return;
  answer_ = nullptr;
  cutting_ = true;
  pending_.clear();
  stream_->Resume();
  unsent_ = stream_->buffered();
  cut_by_ = shared_.loop.now() + kCutTime;
  deadline_.Set(shared_.loop.now() + kCutTick);
}

void ServerConnection::Die() {
  if (std::exchange(dead_, true)) return;
  deadline_.Clear();
  stream_->Pause();
  ServerAnswer* const answer = std::exchange(answer_, nullptr);
  if (answer == nullptr) return;
  answer->connection_ = nullptr;
  answer->gone_ = true;
  absl::AnyInvocable<void()> on_gone = std::move(answer->on_gone_);
  if (on_gone) on_gone();   // May destroy the answer.
}

ServerAnswer::~ServerAnswer() {
  if (connection_ == nullptr) return;
  on_gone_ = nullptr;
  if (begun_) {
    Cut();
    return;
  }
  Send(500, "application/json",
       ErrorBody(ReplyCode::kInternal, "the request was dropped without an answer"), {});
}

void ServerAnswer::Send(int status, std::string_view content_type, std::string_view body,
                        const HeaderList& headers) {
  if (connection_ == nullptr || begun_) return;
  ServerConnection& connection = *std::exchange(connection_, nullptr);
  const ServerConnection::Scope scope(connection);
  connection.WriteHead(status, content_type, headers, Framing::kLength, body.size());
  connection.codec_->WriteBody(connection.shared_.gather, connection.id_, body);
  connection.Flush();
  connection.FinishExchange();
}

void ServerAnswer::Begin(int status, std::string_view content_type, const HeaderList& headers) {
  if (connection_ == nullptr || begun_) return;
  begun_ = true;
  const ServerConnection::Scope scope(*connection_);
  connection_->WriteHead(status, content_type, headers, Framing::kChunked, 0);
  connection_->Flush();
}

void ServerAnswer::Write(std::string_view data) {
  if (connection_ == nullptr || !begun_) return;
  const ServerConnection::Scope scope(*connection_);
  connection_->codec_->WriteBody(connection_->shared_.gather, connection_->id_, data);
  connection_->Flush();
  const size_t unsent = connection_->stream_->buffered();
  const size_t most = connection_->shared_.options.stream_buffer_bytes;
  if (unsent <= most) return;
  LogInfo("{}: cut in the middle of an answer: {} bytes of it are not taken, allowed: {}",
          connection_->stream_->peer(), unsent, most);
  connection_->stream_->Reset();
  connection_->Die();
}

void ServerAnswer::End(const HeaderList& trailers) {
  if (connection_ == nullptr || !begun_) return;
  ServerConnection& connection = *std::exchange(connection_, nullptr);
  const ServerConnection::Scope scope(connection);
  const std::vector<Header> fields = Views(trailers);
  connection.codec_->WriteEnd(connection.shared_.gather, connection.id_, fields);
  connection.Flush();
  connection.FinishExchange();
}

void ServerAnswer::Cut() {
  if (connection_ == nullptr) return;
  ServerConnection& connection = *std::exchange(connection_, nullptr);
  const ServerConnection::Scope scope(connection);
  connection.answer_ = nullptr;
  connection.stream_->Reset();
  connection.Die();
}

void ServerAnswer::CutAfter(std::string_view last) {
  if (connection_ == nullptr || !begun_) return Cut();
  ServerConnection& connection = *std::exchange(connection_, nullptr);
  const ServerConnection::Scope scope(connection);
  connection.codec_->WriteBody(connection.shared_.gather, connection.id_, last);
  connection.Flush();
  connection.CutSoon();
}

size_t ServerAnswer::buffered() const {
  return connection_ == nullptr ? 0 : connection_->stream_->buffered();
}

void ServerAnswer::OnClientGone(absl::AnyInvocable<void()> callback) {
  on_gone_ = std::move(callback);
}

}  // namespace penstock
