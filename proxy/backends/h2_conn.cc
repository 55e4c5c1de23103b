// The codec pumps once a turn, at its end and into the same write (Writer::AtEnd).
//
// A call that is left while bytes are being read is reset only after them: the
// rest of a short answer (429, say) may be among them, and backends count resets.
#include "proxy/backends/h2_conn.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/backends/conn_pool.h"
#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

// What a backend says by resetting one message (RFC 9113 7).
struct ResetInfo {
  uint32_t code;
  std::string_view word;
  ConnFailure::Kind kind;
};
constexpr ResetInfo kResets[] = {
    {0x0, "NO_ERROR", ConnFailure::Kind::kReset},
    {0x1, "PROTOCOL_ERROR", ConnFailure::Kind::kBadAnswer},
    {0x2, "INTERNAL_ERROR", ConnFailure::Kind::kReset},
    {0x3, "FLOW_CONTROL_ERROR", ConnFailure::Kind::kBadAnswer},
    {0x5, "STREAM_CLOSED", ConnFailure::Kind::kBadAnswer},
    {0x6, "FRAME_SIZE_ERROR", ConnFailure::Kind::kBadAnswer},
    {kRefusedStream, "REFUSED_STREAM", ConnFailure::Kind::kRefused},
    {kCancel, "CANCEL", ConnFailure::Kind::kReset},
    {kEnhanceYourCalm, "ENHANCE_YOUR_CALM", ConnFailure::Kind::kBusy},
    {0xd, "HTTP_1_1_REQUIRED", ConnFailure::Kind::kReset},
};
constexpr ResetInfo kUnknownReset = {0, "an unknown error", ConnFailure::Kind::kReset};

const ResetInfo& InfoOfReset(uint32_t code) {
  const auto found = std::ranges::find(kResets, code, &ResetInfo::code);
  return found == std::end(kResets) ? kUnknownReset : *found;
}

}  // namespace

void H2Call::WriteRequest(const RequestHead& head, std::span<const Header> extra) {
  RequestHead own = head;
  own.scheme = conn_.stream_->tls() == nullptr ? "http" : "https";
  id_ = conn_.codec_->WriteRequest(conn_.writer_.out(), own, extra);
  conn_.by_id_[id_] = this;
}

void H2Call::WriteBody(std::string_view data) {
  conn_.codec_->WriteBody(conn_.writer_.out(), id_, data);
}

void H2Call::WriteKept(std::string_view body) {
  kept_ = body;
  Continue();
}

// As much of a kept body as the backend's window takes, and a little more.
void H2Call::Continue() {
  while (!kept_.empty() && conn_.codec_->unsent(id_) <= Codec::kUnsentMark) {
    const std::string_view piece = kept_.substr(0, Codec::kUnsentMark);
    kept_.remove_prefix(piece.size());
    conn_.codec_->WriteBody(conn_.writer_.out(), id_, piece);
  }
}

// A kept body has a length, which is its end.
void H2Call::WriteEnd(std::span<const Header> trailers) {
  if (kept_.empty()) conn_.codec_->WriteEnd(conn_.writer_.out(), id_, trailers);
}

// Once it is true it stays so until the user is told: what drains meanwhile, but not far
// enough to tell anybody, leaves a user waiting.
bool H2Call::above_mark() {
  blocked_ = blocked_ || conn_.codec_->unsent(id_) > Codec::kUnsentMark;
  if (!blocked_ && conn_.writer_.pending() > conn_.stream_->high_mark()) {
    conn_.writer_.Flush();  // What the kernel takes at once is no reason to wait.
    conn_.writer_.out();    // The codec pumps at the end of this turn all the same.
    blocked_ = conn_.stream_->above_mark();
  }
  return blocked_;
}

void H2Call::PauseAnswer() { conn_.codec_->PauseBody(id_); }

void H2Call::ResumeAnswer() { conn_.codec_->ResumeBody(conn_.writer_.out(), id_); }

void H2Call::Leave() { conn_.Leave(*this); }

H2Conn::H2Conn(ConnPool& pool, std::unique_ptr<Stream> stream, uint32_t place)
    : pool_(pool),
      place_(place),
      stream_(std::move(stream)),
      codec_(MakeH2Codec(CodecRole::kClient, *this, pool.limits_.codec)),
      writer_(pool.turn_),
      ping_(pool.wheel_, &H2Conn::OnPing, this) {
  writer_.Attach(*stream_);
  writer_.AtEnd(this, [](void* self, Gather& out) { static_cast<H2Conn*>(self)->Pump(out); });
  codec_->SetNow(pool.wheel_.now());
  writer_.out();
  stream_->SetReceiver(this);
  stream_->Resume();
  idle_since_ = pool_.wheel_.now();
  SetPing();
}

size_t H2Conn::room() const {
  if (!reusable()) return 0;
  // Until its settings arrive nobody knows how many it takes, and some backends end the
  // connection over one too many.
  if (heard_ == 0) return calls_.empty() ? 1 : 0;
  const size_t unwritten = calls_.size() - by_id_.size();
  return codec_->room() - std::min(codec_->room(), unwritten);
}

BackendCall& H2Conn::Begin(BackendCall::User& user) {
  CHECK(room() > 0);
  if (spare_.empty()) spare_.push_back(std::make_unique<H2Call>(*this));
  calls_.push_back(std::move(spare_.back()));
  spare_.pop_back();
  H2Call& call = *calls_.back();
  call.user_ = &user;
  call.id_ = 0;
  call.reused_ = answers_ > 0;
  call.kept_ = {};
  call.answer_begun_ = call.blocked_ = false;
  call.index_ = calls_.size() - 1;
  pool_.cells().streams.Add(+1);
  return call;
}

H2Call* H2Conn::Find(MessageId id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

void H2Conn::Forget(H2Call& call) {
  const size_t index = call.index_;
  CHECK(calls_[index].get() == &call);
  if (call.id_ != 0) by_id_.erase(call.id_);
  spare_.push_back(std::move(calls_[index]));
  if (index + 1 != calls_.size()) {
    calls_[index] = std::move(calls_.back());
    calls_[index]->index_ = index;
  }
  calls_.pop_back();
  pool_.cells().streams.Add(-1);
}

void H2Conn::Leave(H2Call& call) {
  call.user_ = nullptr;
  call.kept_ = {};
  if (closed_) return;  // Fail() owns it.
  if (feeding_ && call.id_ != 0) {
    left_ = true;
    return;
  }
  if (call.id_ != 0) codec_->WriteReset(writer_.out(), call.id_, kCancel);
  Forget(call);
  if (calls_.empty()) idle_since_ = pool_.wheel_.now();
  pool_.SettleSoon();
}

void H2Conn::DropLeft() {
  left_ = false;
  for (size_t i = calls_.size(); i > 0; --i) {
    H2Call& call = *calls_[i - 1];  // The ones after it have been looked at.
    if (call.user_ != nullptr) continue;
    codec_->WriteReset(writer_.out(), call.id_, kCancel);
    Forget(call);
  }
}

void H2Conn::OnData(std::string_view data) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  heard_ = pool_.wheel_.now();
  pinged_ = 0;
  // A backend that makes us answer must read our answers.
  if (stream_->above_mark()) stream_->Pause();
  const bool was_busy = !calls_.empty();
  codec_->SetNow(heard_);
  feeding_ = true;
  codec_->Feed(data);
  feeding_ = false;
  writer_.out();
  if (broken_) return;  // Pump() ends it.
  if (left_) DropLeft();
  if (std::exchange(near_flood_, false)) codec_->StartClosing(writer_.out());
  if (was_busy && calls_.empty()) idle_since_ = heard_;
  pool_.Settle();
}

void H2Conn::Pump(Gather& out) {
  codec_->Pump(out);
  if (!broken_ || closed_) return;
  writer_.Flush();  // The GOAWAY that says why.
  pool_.cells().http2_errors.Add();
  Fail(ConnFailure::Kind::kBadAnswer, *broken_);
}

void H2Conn::OnStreamEnd(const absl::Status& status) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  Fail(ConnFailure::Kind::kReset,
       fmt::format("backend {}: {}", pool_.backend_->name,
                   status.ok() ? "closed the connection" : S(status.message())));
}

void H2Conn::OnWritable() {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  stream_->Resume();
  std::vector<MessageId> blocked;  // A user may end calls, its own or others.
  for (const auto& call : calls_) {
    if (call->blocked_) blocked.push_back(call->id_);
  }
  for (const MessageId id : blocked) {
    H2Call* const call = Find(id);
    if (call != nullptr && codec_->unsent(id) <= Codec::kUnsentMark) TellWritable(*call);
  }
}

void H2Conn::OnMessageWritable(MessageId id) {
  if (H2Call* const call = Find(id)) TellWritable(*call);
}

void H2Conn::TellWritable(H2Call& call) {
  call.Continue();
  if (!std::exchange(call.blocked_, false) || call.user_ == nullptr) return;
  call.user_->OnConnWritable();
}

void H2Conn::OnResponse(MessageId id, ResponseHead& head) {
  H2Call* const call = Find(id);
  if (call == nullptr) return;
  call->answer_begun_ = true;
  if (call->user_ != nullptr) call->user_->OnAnswerHead(head);
}

void H2Conn::OnInterim(MessageId id, ResponseHead& head) {
  H2Call* const call = Find(id);
  if (call != nullptr && call->user_ != nullptr) call->user_->OnAnswerInterim(head);
}

void H2Conn::OnBody(MessageId id, std::string_view data) {
  H2Call* const call = Find(id);
  if (call != nullptr && call->user_ != nullptr) call->user_->OnAnswerBody(data);
}

void H2Conn::OnMessageEnd(MessageId id, std::span<Header> trailers) {
  H2Call* const call = Find(id);
  if (call == nullptr) return;
  BackendCall::User* const user = std::exchange(call->user_, nullptr);
  ++answers_;
  Forget(*call);
  if (user != nullptr) user->OnAnswerEnd(trailers);
}

void H2Conn::OnMessageReset(MessageId id, uint32_t error_code) {
  H2Call* const call = Find(id);
  if (call == nullptr) return;
  const ResetInfo& info = InfoOfReset(error_code);
  if (info.kind == ConnFailure::Kind::kRefused) pool_.cells().streams_refused.Add();
  BackendCall::User* const user = std::exchange(call->user_, nullptr);
  const ConnFailure failure{
      .kind = info.kind,
      .reused = call->reused_,
      .answer_begun = call->answer_begun_,
      .message = fmt::format("backend {}: reset the stream: {}", pool_.backend_->name, info.word)};
  Forget(*call);
  if (user != nullptr) user->OnConnFailed(failure);
}

void H2Conn::OnGoAway() { pool_.cells().goaways.Add(); }

// What is under way may end, and others get another connection.
void H2Conn::OnNearFlood() { near_flood_ = true; }

void H2Conn::OnProtocolError(const ProtocolError& error) {
  if (!broken_) broken_ = fmt::format("backend {}: {}", pool_.backend_->name, error.message);
}

void H2Conn::Fail(ConnFailure::Kind kind, const std::string& message) {
  std::vector<std::unique_ptr<H2Call>> calls = std::exchange(calls_, {});
  by_id_.clear();
  pool_.cells().streams.Add(-static_cast<int64_t>(calls.size()));
  Close();
  std::ranges::sort(calls, {}, [](const auto& call) { return call->id_; });
  bool shared = false;
  for (const auto& call : calls) {
    BackendCall::User* const user = std::exchange(call->user_, nullptr);
    if (user == nullptr) continue;
    user->OnConnFailed({.kind = kind,
                        .reused = call->reused_,
                        .answer_begun = call->answer_begun_,
                        .shared = std::exchange(shared, true),
                        .message = message});
  }
  pool_.SettleSoon();
}

void H2Conn::CloseIdle() {
  codec_->StartClosing(writer_.out());
  writer_.Flush();
  Close();
}

void H2Conn::Close() {
  if (closed_) return;
  closed_ = true;
  ping_.Clear();
  writer_.Drop();
  pool_.Remove(*this);
}

void H2Conn::SetPing() {
  const MonoTime since = heard_ != 0 ? heard_ : idle_since_;
  if (pool_.limits_.ping_interval > 0) ping_.Set(since + pool_.limits_.ping_interval);
}

// Silence for an interval: asks for a sign of life. Still silent after the timeout:
// the other end has gone without a word.
void H2Conn::OnPing(void* self) {
  auto& conn = *static_cast<H2Conn*>(self);
  Turn::Scope scope(conn.pool_.turn_);
  const ConnPoolLimits& limits = conn.pool_.limits_;
  const MonoTime now = conn.pool_.wheel_.now();
  if (conn.pinged_ != 0) {
    return conn.Fail(ConnFailure::Kind::kReset,
                     fmt::format("backend {}: no answer to a PING within {} ms",
                                 conn.pool_.backend_->name, limits.ping_timeout / kMillisecond));
  }
  if (now < conn.heard_ + limits.ping_interval) return conn.SetPing();
  conn.codec_->WritePing(conn.writer_.out());
  conn.pinged_ = now;
  conn.ping_.Set(now + limits.ping_timeout);
}

}  // namespace penstock
