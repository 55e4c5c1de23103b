// How an HTTP/2 connection ends: at the end of a drain, after long idleness, for what
// the client sent, or because it went.
#include <utility>

#include "proxy/request/exchange.h"
#include "proxy/request/h2_session.h"

namespace penstock {

MonoTime H2Session::idle_time() const {
  return ToMicros(context_.snapshot->server().keep_alive_timeout);
}

size_t H2Session::busy() const {
  size_t count = 0;
  for (const Message& message : messages_) count += message.exchange != nullptr ? 1 : 0;
  return count;
}

// From its first byte a head has as long as on HTTP/1; so has a client's greeting.
void H2Session::WatchHead() {
  if (!codec_->inside_head()) return head_.Clear();
  if (head_.armed()) return;
  head_.Set(context_.loop.now() + ToMicros(context_.snapshot->server().request_headers_timeout));
}

void H2Session::OnHeadLate(void* self) {
  auto& session = *static_cast<H2Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ != State::kOpen) return;
  session.context_.no_pool.AddTimeout(TimeoutKind::kRequestHeaders);
  session.Leave(H2GoAway::kHeaders);
  session.writer_.out();
  // Half a head cannot be waited for, so whoever is still served goes too.
  session.failed_ = true;
}

// A peer that keeps to no settings of ours cannot be worked with (RFC 9113 6.5.3).
void H2Session::OnUnsettled(void* self) {
  auto& session = *static_cast<H2Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ != State::kOpen || session.codec_->settled()) return;
  // We do not look at what it says; or what it says takes too long, which is told apart.
  if (!session.reading_ || session.head_.armed()) {
    return session.unsettled_.Set(session.context_.loop.now() + kSecond);
  }
  session.Leave(H2GoAway::kSettings, kSettingsTimeout);
  session.writer_.out();
  session.failed_ = true;
}

void H2Session::OnIdle(void* self) {
  auto& session = *static_cast<H2Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ == State::kOpen) {
    session.writer_.out();
    if (session.leaving_ == Leaving::kFinal) {
      session.failed_ = true;           // It has had the time to go by itself.
      return;
    }
    session.context_.no_pool.AddTimeout(TimeoutKind::kKeepAlive);
    session.Leave(H2GoAway::kIdle);
    return session.idle_.Set(session.context_.loop.now() + Linger::kTime);
  }
  const MonoTime next = session.linger_.Look(*session.stream_, session.context_.loop.now(),
                                             session.idle_time());
  if (next == kNever) return session.Close();
  session.idle_.Set(next);
}

// No more requests after those that are on their way.
void H2Session::Announce(H2GoAway reason) {
  if (leaving_ != Leaving::kNo) return;
  leaving_ = Leaving::kAnnounced;
  context_.metrics.AddGoAway(reason);
  codec_->StartClosing(writer_.out());
}

// No more requests from now on; EndTurn closes when the last one is answered.
void H2Session::Leave(H2GoAway reason, uint32_t error_code) {
  Announce(reason);
  if (std::exchange(leaving_, Leaving::kFinal) != Leaving::kFinal) {
    codec_->FinishClosing(writer_.out(), error_code);
  }
}

void H2Session::BeginIdle() {
  idle_since_ = context_.loop.now();
  idle_.Set(idle_since_ + idle_time());
}

// At once, even if a request is on its way: the second GOAWAY says which were taken.
void H2Session::Drain(MonoTime) { AnnounceAndLeave(H2GoAway::kDrain); }

void H2Session::CloseIdle(MonoTime idle_for) {
  if (!messages_.empty() || context_.loop.now() - idle_since_ < idle_for) return;
  AnnounceAndLeave(H2GoAway::kIdle);
}

void H2Session::AnnounceAndLeave(H2GoAway reason) {
  if (state_ != State::kOpen || leaving_ != Leaving::kNo) return;
  Turn::Scope scope(context_.turn);
  Announce(reason);
  leave_.Set(context_.loop.now() + kGoAwayTime);
}

void H2Session::OnLeave(void* self) {
  auto& session = *static_cast<H2Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ == State::kOpen) session.Leave(H2GoAway::kDrain);
}

void H2Session::EndWhole() {
  Turn::Scope scope(context_.turn);
  MessageId last = 0;
  while (true) {
    Exchange* next = nullptr;
    for (const Message& message : messages_) {
      if (message.id <= last || message.exchange == nullptr) continue;
      last = message.id;
      next = message.exchange.get();
      break;
    }
    if (next == nullptr) return;
    next->OnDrainLimit();
  }
}

// What it has begun is served, and it may come back on another connection; whatever it
// is that it does has then cost as little as can be.
void H2Session::OnNearFlood() { AnnounceAndLeave(H2GoAway::kNearFlood); }

// The client begins no more requests: once all are answered there is nothing to stay for.
void H2Session::OnGoAway() { Leave(H2GoAway::kClient); }

void H2Session::OnProtocolError(const ProtocolError& error) {
  failed_ = true;
  const bool flood = error.code == "flood";
  context_.metrics.AddGoAway(flood ? H2GoAway::kFlood : H2GoAway::kProtocol);
  if (flood) {
    context_.metrics.AddFlood(error.detail);
  } else {
    context_.metrics.protocol_errors.Add();
  }
}

void H2Session::OnEndOfTurn(void* self, Gather&) { static_cast<H2Session*>(self)->EndTurn(); }

void H2Session::EndTurn() {
  if (state_ != State::kOpen) return;
  bool more = false;
  do {
    codec_->Pump(writer_.out());
    if (failed_) return BeginLinger();
    more = CutWhatIsSent();
    more |= WakeWritable();
  } while (more);
  if (leaving_ == Leaving::kFinal && codec_->idle() && messages_.empty()) BeginLinger();
}

void H2Session::CancelAll() {
  for (Message& message : std::exchange(messages_, {})) {
    if (message.exchange == nullptr) continue;
    std::unique_ptr<Exchange> exchange = std::move(message.exchange);
    exchange->OnClientGone(std::move(exchange));
  }
}

// Whatever is still there goes with it.
void H2Session::BeginLinger() {
  state_ = State::kLingering;
  head_.Clear();
  unsettled_.Clear();
  sweep_.Clear();
  leave_.Clear();
  writer_.Flush();  // What is said last.
  CancelAll();
  writer_.Drop();
  stream_->Shutdown();
  stream_->Resume();
  idle_.Set(linger_.Begin(*stream_, context_.loop.now()));
}

void H2Session::OnStreamEnd(const absl::Status& status) {
  Turn::Scope scope(context_.turn);
  broken_ = !status.ok();
  Close();
}

void H2Session::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  CancelAll();
  writer_.Drop();
  set_.Remove(*this);
}

}  // namespace penstock
