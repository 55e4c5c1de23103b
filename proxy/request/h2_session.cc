// Exchanges come and go here; how the connection itself ends is in h2_session_end.cc.
#include "proxy/request/h2_session.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"

namespace penstock {
namespace {

// How often answers that wait for a window are looked at.
constexpr MonoTime kSweepTime = kSecond;

}  // namespace

H2Session::H2Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
                     std::shared_ptr<const Entrance> entrance)
    : Session(set, context, std::move(stream), std::move(entrance)),
      codec_(MakeH2Codec(CodecRole::kServer, *this, LimitsOf(context.snapshot->server()))),
      idle_(context.loop.deadlines(), &H2Session::OnIdle, this),
      head_(context.loop.deadlines(), &H2Session::OnHeadLate, this),
      unsettled_(context.loop.deadlines(), &H2Session::OnUnsettled, this),
      sweep_(context.loop.deadlines(), &H2Session::OnSweep, this),
      leave_(context.loop.deadlines(), &H2Session::OnLeave, this) {
  writer_.AtEnd(this, &H2Session::OnEndOfTurn);
  stream_->SetReceiver(this);
  codec_->SetNow(context_.loop.now());
  writer_.out();                        // Our settings are due.
  BeginIdle();
  WatchHead();
  unsettled_.Set(context_.loop.now() + ToMicros(context_.snapshot->server().request_headers_timeout));
  stream_->Resume();
}

H2Session::~H2Session() = default;

H2Session::Message* H2Session::Find(MessageId id) {
  const auto at = std::lower_bound(messages_.begin(), messages_.end(), id,
                                   [](const Message& one, MessageId wanted) { return one.id < wanted; });
  return at == messages_.end() || at->id != id ? nullptr : &*at;
}

Exchange* H2Session::ExchangeOf(MessageId id) {
  Message* const message = Find(id);
  return message == nullptr ? nullptr : message->exchange.get();
}

void H2Session::WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) {
  codec_->WriteResponse(writer_.out(), id, head, extra);
}

void H2Session::WriteContinue(MessageId id) { codec_->WriteContinue(writer_.out(), id); }

void H2Session::WriteBody(MessageId id, std::string_view data) {
  // Whole, however long: the codec resets a message that goes on when too much waits.
  codec_->WriteBody(writer_.out(), id, data);
}

void H2Session::WriteEnd(MessageId id, std::span<const Header> trailers) {
  codec_->WriteEnd(writer_.out(), id, trailers);
}

void H2Session::PauseBody(MessageId id) { codec_->PauseBody(id); }
void H2Session::ResumeBody(MessageId id) { codec_->ResumeBody(writer_.out(), id); }

// What waits for this message's own window says whether its client takes anything;
// otherwise what waits for the connection does.
size_t H2Session::unsent(MessageId id) const {
  const size_t waiting = codec_->unsent(id);
  return waiting > 0 ? waiting : writer_.pending();
}

bool H2Session::above_mark(MessageId id) {
  if (codec_->unsent(id) > Codec::kUnsentMark) return true;
  if (writer_.pending() <= stream_->high_mark()) return false;
  writer_.Flush();  // What the kernel takes at once is no reason to wait.
  writer_.out();    // This turn has an end all the same.
  return stream_->above_mark();
}

void H2Session::Cut(MessageId id, bool at_once) {
  if (at_once) codec_->WriteReset(writer_.out(), id, kCancel);
  context_.metrics.AddReset(at_once ? H2Reset::kStalled : H2Reset::kCut);
  Let(id, !at_once);
}

void H2Session::ExchangeDone(MessageId id, bool request_complete) {
  if (!request_complete) codec_->PauseBody(id);  // Nobody reads the rest.
  Let(id, false);
  if (ending()) AnnounceAndLeave(H2GoAway::kDrain);
}

// The exchange is over; the message stays while bytes of its answer wait.
void H2Session::Let(MessageId id, bool cut) {
  Message* const message = Find(id);
  if (message == nullptr) return;       // Its connection is closing.
  message->patience = idle_time();
  if (message->exchange != nullptr) {
    message->patience = message->exchange->patience().value_or(message->patience);
    context_.Recycle(std::move(message->exchange));
  }
  message->cut = cut;
  message->unsent = codec_->unsent(id);
  message->moved = context_.loop.now();
  writer_.out();
  if (message->unsent > 0) {
    if (!sweep_.armed()) sweep_.Set(context_.loop.now() + kSweepTime);
    return;
  }
  if (cut) codec_->WriteReset(writer_.out(), id, kInternalError);
  Forget(id);
}

void H2Session::Forget(MessageId id) {
  Message* const message = Find(id);
  if (message == nullptr) return;
  messages_.erase(messages_.begin() + (message - messages_.data()));
  if (messages_.empty()) BeginIdle();
}

// The client wants no answer any more.
void H2Session::GiveUp(std::unique_ptr<Exchange> exchange) {
  given_up_.push_back(context_.loop.now() + kGivenUpTime);
  exchange->OnClientGone(std::move(exchange));
}

// Of the connection's streams, those that a client gave up a moment ago count.
bool H2Session::HasRoom() {
  const MonoTime now = context_.loop.now();
  std::erase_if(given_up_, [now](MonoTime until) { return until <= now; });
  return messages_.size() + given_up_.size() <
         context_.snapshot->server().limits.streams_per_connection;
}

void H2Session::OnData(std::string_view data) {
  Turn::Scope scope(context_.turn);
  if (state_ != State::kOpen || failed_) return;  // Lingering: late bytes are thrown away.
  codec_->SetNow(context_.loop.now());
  writer_.out();
  codec_->Feed(data);
  if (failed_) return;
  WatchHead();
  // A client that does not read what it causes does not go on causing it.
  if (writer_.pending() > stream_->high_mark()) {
    writer_.Flush();
    writer_.out();
    if (stream_->above_mark()) {
      reading_ = false;
      head_.Clear();   // What is not read cannot be late.
      stream_->Pause();
    }
  }
}

void H2Session::OnWritable() {
  Turn::Scope scope(context_.turn);
  if (state_ != State::kOpen) return;
  if (!std::exchange(reading_, true)) {
    WatchHead();
    stream_->Resume();
  }
  writer_.out();
  WakeAll();
}

void H2Session::OnRequest(MessageId id, RequestHead& head) {
  if (!HasRoom()) {
    context_.metrics.AddReset(H2Reset::kRefused);
    return codec_->WriteReset(writer_.out(), id, kRefusedStream);
  }
  idle_.Clear();
  CHECK(messages_.empty() || messages_.back().id < id);
  Message& message = messages_.emplace_back();
  message.id = id;
  message.exchange = context_.TakeExchange();
  message.exchange->Start(*this, id, head);  // May be over already.
}

void H2Session::OnBody(MessageId id, std::string_view data) {
  if (Exchange* const exchange = ExchangeOf(id)) exchange->OnRequestBody(data);
}

void H2Session::OnMessageEnd(MessageId id, std::span<Header> trailers) {
  if (Exchange* const exchange = ExchangeOf(id)) exchange->OnRequestEnd(trailers);
}

void H2Session::OnMessageReset(MessageId id, uint32_t) {
  Message* const message = Find(id);
  if (message == nullptr) return;
  context_.metrics.AddReset(H2Reset::kByClient);
  std::unique_ptr<Exchange> exchange = std::move(message->exchange);
  Forget(id);
  if (exchange != nullptr) GiveUp(std::move(exchange));
}

void H2Session::OnMessageRefused(MessageId id, const ProtocolError& error) {
  idle_.Clear();
  messages_.emplace_back().id = id;
  Refuse(*codec_, id, error);
  Let(id, false);
}

// The codec may be in the middle of writing, so whoever waits is woken after it.
void H2Session::OnMessageWritable(MessageId id) { writable_.push_back(id); }

bool H2Session::WakeWritable() {
  bool woken = false;
  while (!writable_.empty() && state_ == State::kOpen) {
    const MessageId id = writable_.back();
    writable_.pop_back();
    if (stream_->above_mark()) continue;  // OnWritable wakes everybody.
    Exchange* const exchange = ExchangeOf(id);
    if (exchange == nullptr) continue;
    exchange->OnClientWritable();
    woken = true;
  }
  return woken;
}

// The connection has room again. Another one is first each time, so that nobody is
// always too late; whoever waits for its own window goes on waiting.
void H2Session::WakeAll() {
  MessageId last = woken_last_;
  for (size_t left = messages_.size(); left > 0 && !messages_.empty(); --left) {
    if (stream_->above_mark()) return;
    auto next = std::find_if(messages_.begin(), messages_.end(),
                             [last](const Message& message) { return message.id > last; });
    if (next == messages_.end()) next = messages_.begin();
    last = next->id;
    if (next->exchange == nullptr || codec_->unsent(last) > Codec::kUnsentMark) continue;
    woken_last_ = last;
    next->exchange->OnClientWritable();
    if (state_ != State::kOpen) return;
  }
}

// True: there is something more to write.
bool H2Session::CutWhatIsSent() {
  bool cut = false;
  for (size_t i = messages_.size(); i-- > 0;) {
    const Message& message = messages_[i];
    if (message.exchange != nullptr || codec_->unsent(message.id) > 0) continue;
    const MessageId id = message.id;
    if (message.cut) codec_->WriteReset(writer_.out(), id, kInternalError);
    cut |= message.cut;
    Forget(id);
  }
  return cut;
}

void H2Session::OnSweep(void* self) {
  auto& session = *static_cast<H2Session*>(self);
  Turn::Scope scope(session.context_.turn);
  if (session.state_ != State::kOpen) return;
  const MonoTime now = session.context_.loop.now();
  bool waiting = false;
  session.writer_.out();
  for (size_t i = session.messages_.size(); i-- > 0;) {
    Message& message = session.messages_[i];
    if (message.exchange != nullptr) continue;
    const size_t unsent = session.codec_->unsent(message.id);
    if (std::exchange(message.unsent, unsent) != unsent) message.moved = now;
    if (now - message.moved < message.patience) {
      waiting = true;
      continue;
    }
    const MessageId id = message.id;
    session.context_.metrics.AddReset(H2Reset::kStalled);
    session.codec_->WriteReset(session.writer_.out(), id, kCancel);
    session.Forget(id);
  }
  if (waiting) session.sweep_.Set(now + kSweepTime);
}

}  // namespace penstock
