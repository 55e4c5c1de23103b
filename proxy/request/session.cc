#include "proxy/request/session.h"

#include <utility>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"

namespace penstock {
namespace {

// How long a closing connection still reads, so that the client gets our last
// answer before the kernel answers its late bytes with a reset.
constexpr MonoTime kLingerTime = 2 * kSecond;
// How long the last bytes of a broken answer have until the reset, which would
// overtake them.
constexpr MonoTime kCutTime = 200 * kMillisecond;

CodecLimits LimitsOf(const config::Limits& limits) {
  CodecLimits out;
  out.header_bytes = limits.header_bytes;
  out.header_count = limits.header_count;
  out.request_line_bytes = limits.request_line_bytes;
  return out;
}

ReplyCode ReplyFor(uint16_t status) {
  switch (status) {
    case 405: return ReplyCode::kMethodNotAllowed;
    case 408: return ReplyCode::kRequestTimeout;
    case 413: return ReplyCode::kBodyTooLarge;
    case 414: return ReplyCode::kUriTooLong;
    case 431: return ReplyCode::kHeadersTooLarge;
    case 501:
    case 505: return ReplyCode::kNotImplemented;
    default: return ReplyCode::kBadRequest;
  }
}

}  // namespace

Session::Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
                 bool debug_headers)
    : set_(set),
      context_(context),
      stream_(std::move(stream)),
      codec_(MakeH1Codec(CodecRole::kServer, *this,
                         LimitsOf(context.snapshot->server().limits))),
      writer_(context.turn),
      deadline_(context.loop.deadlines(), &Session::OnDeadline, this),
      debug_headers_(debug_headers) {
  writer_.Attach(*stream_);
  stream_->SetReceiver(this);
  SetIdleDeadline();
  stream_->Resume();
}

Session::~Session() = default;

void Session::WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) {
  if (context_.draining || close_after_answer_) codec_->StartClosing(writer_.out());
  codec_->WriteResponse(writer_.out(), id, head, extra);
}

void Session::WriteContinue(MessageId id) { codec_->WriteContinue(writer_.out(), id); }

void Session::WriteBody(MessageId id, std::string_view data) {
  codec_->WriteBody(writer_.out(), id, data);
}

void Session::WriteEnd(MessageId id) { codec_->WriteEnd(writer_.out(), id); }

void Session::Cut(bool at_once) {
  writer_.Flush();
  if (exchange_ != nullptr) context_.Recycle(std::move(exchange_));
  if (at_once) {
    stream_->Reset();
    return Close();
  }
  // No shutdown: some clients take an early end of a chunked answer for its end.
  cut_ = true;
  BeginLinger();
}

// What is only gathered does not count: the kernel may take it all, and then nobody
// would say that there is room again.
bool Session::above_mark() {
  if (writer_.pending() <= stream_->high_mark()) return false;
  writer_.Flush();
  return stream_->above_mark();
}

void Session::CloseAfterAnswer() { close_after_answer_ = true; }

void Session::PauseBody() {
  reading_ = false;
  stream_->Pause();
}

void Session::ResumeBody() {
  if (reading_ || state_ == State::kClosed) return;
  reading_ = true;
  stream_->Resume();
}

void Session::OnData(std::string_view data) {
  Turn::Scope scope(context_.turn);
  if (state_ != State::kOpen) return;  // Lingering: late bytes are thrown away.
  if (exchange_ != nullptr && !pending_.empty()) {
    pending_.append(data);
    if (pending_.size() > kPendingMax) PauseBody();
    return;
  }
  Consume(data);
}

void Session::Consume(std::string_view data) {
  while (!data.empty() && state_ == State::kOpen) {
    feeding_ = true;
    const size_t taken = codec_->Feed(data);
    feeding_ = false;
    data.remove_prefix(taken);
    if (data.empty() || state_ != State::kOpen) break;
    if (exchange_ != nullptr) {
      pending_.append(data);
      if (pending_.size() > kPendingMax) PauseBody();
      break;
    }
    if (taken == 0) break;
  }
  if (state_ == State::kOpen && exchange_ == nullptr && !header_timer_ && !codec_->idle()) {
    header_timer_ = true;
    deadline_.Set(context_.loop.now() +
                  ToMicros(context_.snapshot->server().request_headers_timeout));
  }
}

void Session::OnStreamEnd(const absl::Status&) {
  Turn::Scope scope(context_.turn);
  if (state_ == State::kClosed) return;
  Close();
}

void Session::OnWritable() {
  Turn::Scope scope(context_.turn);
  if (exchange_ != nullptr) exchange_->OnClientWritable();
}

void Session::OnRequest(MessageId id, RequestHead& head) {
  header_timer_ = false;
  deadline_.Clear();
  exchange_ = context_.TakeExchange();
  exchange_->Start(*this, id, head);
}

void Session::OnBody(MessageId, std::string_view data) {
  if (exchange_ != nullptr) exchange_->OnRequestBody(data);
}

void Session::OnMessageEnd(MessageId, std::span<Header>) {
  if (exchange_ != nullptr) exchange_->OnRequestEnd();
}

void Session::OnProtocolError(const ProtocolError& error) {
  if (exchange_ != nullptr) {
    exchange_->OnBadRequestBody(ReplyFor(error.status), error.message);
    return;
  }
  context_.metrics.protocol_errors.Add();
  context_.no_pool.AddRequest(error.status, false, 0);
  context_.no_pool.AddFlag(Flag::kIH);
  const std::string body = ErrorBody(ReplyFor(error.status), error.message);
  Header type{"content-type", "application/json", KnownHeader::kContentType};
  ResponseHead head;
  head.status = error.status;
  head.headers = std::span(&type, 1);
  head.framing = Framing::kLength;
  head.content_length = body.size();
  codec_->StartClosing(writer_.out());
  codec_->WriteResponse(writer_.out(), 0, head, {});
  codec_->WriteBody(writer_.out(), 0, body);
  codec_->WriteEnd(writer_.out(), 0);
  writer_.Flush();
  Linger();
}

void Session::ExchangeDone(Exchange& exchange, bool request_complete) {
  CHECK(exchange_.get() == &exchange);
  context_.Recycle(std::move(exchange_));
  if (state_ != State::kOpen) return;
  if (!request_complete || close_after_answer_ || context_.draining || !codec_->reusable()) {
    writer_.Flush();
    Linger();
    return;
  }
  AfterExchange();
}

void Session::AfterExchange() {
  codec_->NextMessage();
  SetIdleDeadline();
  ResumeBody();
  if (feeding_ || pending_.empty()) return;  // Consume() goes on by itself.
  const std::string pending = std::exchange(pending_, {});
  Consume(pending);
}

MonoTime Session::linger_time() const { return cut_ ? kCutTime : kLingerTime; }

void Session::SetIdleDeadline() {
  header_timer_ = false;
  deadline_.Set(context_.loop.now() + ToMicros(context_.snapshot->server().keep_alive_timeout));
}

void Session::Linger() {
  stream_->Shutdown();
  BeginLinger();
}

void Session::BeginLinger() {
  state_ = State::kLingering;
  stream_->Resume();
  unsent_ = stream_->buffered();
  moved_ = context_.loop.now();
  deadline_.Set(moved_ + linger_time());
}

// A slow client may still take the rest of its answer; one that takes nothing for
// as long as an idle connection may last does not hold it for ever.
bool Session::StillSending() {
  const MonoTime now = context_.loop.now();
  const size_t unsent = stream_->buffered();
  if (std::exchange(unsent_, unsent) != unsent) moved_ = now;
  const MonoTime patience =
      unsent == 0 ? linger_time() : ToMicros(context_.snapshot->server().keep_alive_timeout);
  if (now - moved_ >= patience) return false;
  deadline_.Set(now + linger_time());
  return true;
}

void Session::Drain() {
  Turn::Scope scope(context_.turn);
  if (state_ == State::kOpen && exchange_ == nullptr && codec_->idle()) Close();
}

void Session::EndWhole() {
  if (exchange_ != nullptr) exchange_->OnDrainLimit();
}

void Session::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (exchange_ != nullptr) {
    std::unique_ptr<Exchange> exchange = std::move(exchange_);
    exchange->OnClientGone(std::move(exchange));
  }
  writer_.Drop();
  set_.Remove(*this);
}

void Session::OnDeadline(void* self) {
  auto& session = *static_cast<Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ == State::kOpen && session.header_timer_) {
    session.context_.no_pool.AddTimeout(TimeoutKind::kRequestHeaders);
    session.OnProtocolError({408, "request_timeout",
                             "the request's header fields did not arrive in time"});
    return;
  }
  if (session.state_ == State::kLingering && session.StillSending()) return;
  if (session.cut_) session.stream_->Reset();
  if (session.state_ == State::kOpen) session.context_.no_pool.AddTimeout(TimeoutKind::kKeepAlive);
  session.Close();
}

SessionSet::~SessionSet() { CloseAll(); }

void SessionSet::Accept(std::unique_ptr<Stream> stream, bool debug_headers) {
  Turn::Scope scope(context_.turn);
  const uint32_t limit = context_.snapshot->server().limits.connections;
  if (context_.draining || context_.totals.connections.fetch_add(1) >= limit) {
    if (!context_.draining) context_.totals.connections.fetch_sub(1);
    context_.metrics.client_connections_refused.Add();
    return;  // The stream closes as it goes out of scope.
  }
  context_.metrics.client_connections.Add(+1);
  context_.metrics.client_connections_total.Add();
  sessions_.push_back(std::make_unique<Session>(*this, context_, std::move(stream), debug_headers));
  sessions_.back()->index_ = sessions_.size() - 1;
}

void SessionSet::Remove(Session& session) {
  const size_t index = session.index_;
  CHECK(sessions_[index].get() == &session);
  context_.turn.Bury(std::move(sessions_[index]));
  if (index + 1 != sessions_.size()) {
    sessions_[index] = std::move(sessions_.back());
    sessions_[index]->index_ = index;
  }
  sessions_.pop_back();
  context_.totals.connections.fetch_sub(1);
  context_.metrics.client_connections.Add(-1);
}

void SessionSet::Drain() {
  for (size_t i = sessions_.size(); i-- > 0;) sessions_[i]->Drain();
}

void SessionSet::EndWhole() {
  Turn::Scope scope(context_.turn);
  for (size_t i = sessions_.size(); i-- > 0;) sessions_[i]->EndWhole();
}

void SessionSet::CloseAll() {
  Turn::Scope scope(context_.turn);
  while (!sessions_.empty()) sessions_.back()->Close();
}

size_t SessionSet::busy() const {
  size_t count = 0;
  for (const auto& session : sessions_) count += session->busy();
  return count;
}

}  // namespace penstock
