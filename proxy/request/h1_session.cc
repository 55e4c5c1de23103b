#include "proxy/request/h1_session.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"
#include "proxy/request/h2_session.h"

namespace penstock {
namespace {

// How long the last bytes of a broken answer have until the reset, which would
// overtake them.
constexpr MonoTime kCutTime = 200 * kMillisecond;
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

}  // namespace

H1Session::H1Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
                     std::shared_ptr<const Entrance> entrance)
    : Session(set, context, std::move(stream), std::move(entrance)),
      codec_(MakeH1Codec(CodecRole::kServer, *this,
                         LimitsOf(context.snapshot->server()))),
      deadline_(context.loop.deadlines(), &H1Session::OnDeadline, this) {
  undecided_ = entrance_->h2 && stream_->tls() == nullptr;
  stream_->SetReceiver(this);
  SetIdleDeadline();
  stream_->Resume();
}

H1Session::~H1Session() = default;

void H1Session::WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) {
  if (close_after_answer_ || ending()) codec_->StartClosing(writer_.out());
  codec_->WriteResponse(writer_.out(), id, head, extra);
  if (head.status == 101) EnterTunnel();
}

// What the client sent before it knew the answer has waited.
void H1Session::EnterTunnel() {
  tunnel_ = true;
  GoOnReading();
  if (!feeding_) FeedPending();
}

void H1Session::WriteContinue(MessageId id) { codec_->WriteContinue(writer_.out(), id); }

void H1Session::WriteBody(MessageId id, std::string_view data) {
  codec_->WriteBody(writer_.out(), id, data);
}

// RFC 9110 6.5: a client that does not say that it takes trailers may well throw them
// away, or choke on them.
void H1Session::WriteEnd(MessageId id, std::span<const Header> trailers) {
  codec_->WriteEnd(writer_.out(), id, takes_trailers_ ? trailers : std::span<const Header>());
}

void H1Session::Cut(MessageId, bool at_once) {
  writer_.Flush();
  if (exchange_ != nullptr) {
    patience_ = exchange_->patience();
    context_.Recycle(std::move(exchange_));
  }
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
bool H1Session::above_mark(MessageId) {
  if (writer_.pending() <= stream_->high_mark()) return false;
  writer_.Flush();
  return stream_->above_mark();
}

void H1Session::CloseAfterAnswer(MessageId) { close_after_answer_ = true; }

void H1Session::PauseBody(MessageId) { StopReading(); }
void H1Session::ResumeBody(MessageId) { GoOnReading(); }

void H1Session::StopReading() {
  reading_ = false;
  stream_->Pause();
}

void H1Session::GoOnReading() {
  if (reading_ || state_ == State::kClosed) return;
  reading_ = true;
  stream_->Resume();
}

void H1Session::OnData(std::string_view data) {
  Turn::Scope scope(context_.turn);
  if (state_ != State::kOpen) return;  // Lingering: late bytes are thrown away.
  if (undecided_) return Decide(data);
  if (exchange_ != nullptr && !pending_.empty()) {
    pending_.append(data);
    if (pending_.size() > kPendingMax) StopReading();
    return;
  }
  Consume(data);
}

// A client that knows that it talks HTTP/2 begins with the preface (RFC 9113 3.4),
// however its bytes are cut; no request of HTTP/1 does.
void H1Session::Decide(std::string_view data) {
  if (!pending_.empty()) {
    auto held = std::make_unique<std::string>(std::exchange(pending_, {}));
    data = held->append(data);
    context_.turn.Bury(std::move(held));  // Bodies in it are referenced until then.
  }
  const size_t size = std::min(data.size(), kPreface.size());
  if (data.substr(0, size) == kPreface.substr(0, size)) {
    if (size == kPreface.size()) return BecomeHttp2(data);
    pending_ = data;
    if (!header_timer_) SetHeaderDeadline();
    return;
  }
  undecided_ = header_timer_ = false;
  Consume(data);
}

void H1Session::BecomeHttp2(std::string_view data) {
  state_ = State::kClosed;
  deadline_.Clear();
  auto next = std::make_unique<H2Session>(set_, context_, std::move(stream_), entrance_);
  H2Session& session = *next;
  set_.Replace(*this, std::move(next));  // And buries this one.
  session.OnData(data);
}

void H1Session::Consume(std::string_view data) {
  while (!data.empty() && state_ == State::kOpen) {
    feeding_ = true;
    const size_t taken = codec_->Feed(data);
    feeding_ = false;
    data.remove_prefix(taken);
    if (data.empty() || state_ != State::kOpen) break;
    if (exchange_ != nullptr) {
      pending_.append(data);
      if (pending_.size() > kPendingMax) StopReading();
      break;
    }
    if (taken == 0) break;
  }
  if (state_ == State::kOpen && exchange_ == nullptr && !header_timer_ && !codec_->idle()) {
    SetHeaderDeadline();
  }
}

void H1Session::OnStreamEnd(const absl::Status& status) {
  Turn::Scope scope(context_.turn);
  if (state_ == State::kClosed) return;
  // The other direction of a tunnel goes on until the backend ends it.
  if (status.ok() && tunnel_ && state_ == State::kOpen) return codec_->FeedEnd();
  broken_ = !status.ok();
  Close();
}

void H1Session::OnWritable() {
  Turn::Scope scope(context_.turn);
  if (exchange_ != nullptr) exchange_->OnClientWritable();
}

void H1Session::OnRequest(MessageId id, RequestHead& head) {
  header_timer_ = false;
  deadline_.Clear();
  old_client_ = head.minor_version == 0;
  takes_trailers_ = TakesTrailers(head.headers);
  exchange_ = context_.TakeExchange();
  exchange_->Start(*this, id, head);
}

void H1Session::OnBody(MessageId, std::string_view data) {
  if (exchange_ != nullptr) exchange_->OnRequestBody(data);
}

void H1Session::OnMessageEnd(MessageId, std::span<Header> trailers) {
  if (exchange_ != nullptr) exchange_->OnRequestEnd(trailers);
}

void H1Session::OnProtocolError(const ProtocolError& error) {
  if (exchange_ != nullptr) {
    exchange_->OnBadRequestBody(ReplyFor(error.status), error.message);
    return;
  }
  if (state_ != State::kOpen) return;  // Answered before its body was found to be bad.
  codec_->StartClosing(writer_.out());
  Refuse(*codec_, 0, error);
  ShutDown();
}

void H1Session::ExchangeDone(MessageId, bool request_complete) {
  CHECK(exchange_ != nullptr);
  patience_ = exchange_->patience();
  context_.Recycle(std::move(exchange_));
  if (state_ != State::kOpen) return;
  if (!request_complete || close_after_answer_ || ending() || !codec_->reusable()) {
    writer_.Flush();
    ShutDown();
    return;
  }
  AfterExchange();
}

void H1Session::AfterExchange() {
  codec_->NextMessage();
  SetIdleDeadline();
  GoOnReading();
  if (!feeding_) FeedPending();  // Else Consume() goes on by itself.
}

void H1Session::FeedPending() {
  if (pending_.empty()) return;
  // Bodies in it are referenced until the turn ends.
  auto pending = std::make_unique<std::string>(std::exchange(pending_, {}));
  Consume(*pending);
  context_.turn.Bury(std::move(pending));
}

void H1Session::SetHeaderDeadline() {
  header_timer_ = true;
  deadline_.Set(context_.loop.now() +
                ToMicros(context_.snapshot->server().request_headers_timeout));
}

// How long a client may take nothing of an answer that is whole here.
MonoTime H1Session::patience() const {
  return patience_.value_or(ToMicros(context_.snapshot->server().keep_alive_timeout));
}

void H1Session::SetIdleDeadline() {
  header_timer_ = false;
  idle_since_ = context_.loop.now();
  deadline_.Set(idle_since_ + ToMicros(context_.snapshot->server().keep_alive_timeout));
}

void H1Session::ShutDown() {
  stream_->Shutdown();
  BeginLinger();
}

void H1Session::BeginLinger() {
  state_ = State::kLingering;
  stream_->Resume();
  deadline_.Set(linger_.Begin(*stream_, context_.loop.now(), cut_ ? kCutTime : Linger::kTime));
}

void H1Session::Drain(MonoTime idle_for) { CloseIdle(idle_for); }

void H1Session::CloseIdle(MonoTime idle_for) {
  Turn::Scope scope(context_.turn);
  if (state_ != State::kOpen || exchange_ != nullptr || !codec_->idle()) return;
  if (context_.loop.now() - idle_since_ >= idle_for) Leave();
}

// Between requests; the last answer may still be on its way to a slow client.
void H1Session::Leave() {
  writer_.Flush();
  if (stream_->buffered() > 0) return ShutDown();
  Close();
}

void H1Session::EndWhole() {
  if (exchange_ != nullptr) exchange_->OnDrainLimit();
}

void H1Session::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (exchange_ != nullptr) {
    std::unique_ptr<Exchange> exchange = std::move(exchange_);
    exchange->OnClientGone(std::move(exchange));
  }
  writer_.Drop();
  set_.Remove(*this);
}

void H1Session::OnDeadline(void* self) {
  auto& session = *static_cast<H1Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ == State::kOpen && session.header_timer_) {
    session.context_.no_pool.AddTimeout(TimeoutKind::kRequestHeaders);
    session.OnProtocolError({408, "request_timeout",
                             "the request's header fields did not arrive in time"});
    return;
  }
  if (session.state_ == State::kLingering) {
    const MonoTime next =
        session.linger_.Look(*session.stream_, session.context_.loop.now(), session.patience());
    if (next != kNever) return session.deadline_.Set(next);
    // Where bytes are left over, a clean end would make them look like the whole answer
    // to whoever reads until the end of the connection.
    if (session.cut_ || session.stream_->buffered() > 0) session.stream_->Reset();
  }
  if (session.state_ != State::kOpen) return session.Close();
  session.context_.no_pool.AddTimeout(TimeoutKind::kKeepAlive);
  session.Leave();
}

}  // namespace penstock
