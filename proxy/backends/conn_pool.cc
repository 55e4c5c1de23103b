// An idle connection keeps reading, so that the backend's close is seen at once
// and a dead connection is not handed out. What cannot be seen in time (the close
// crosses our request on the wire) is told apart by `reused`: such a request is
// retried for free.
#include "proxy/backends/conn_pool.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {

BackendConn::BackendConn(ConnPool& pool, std::unique_ptr<Stream> stream)
    : pool_(pool),
      stream_(std::move(stream)),
      codec_(MakeH1Codec(CodecRole::kClient, *this, pool.limits_.codec)),
      writer_(pool.turn_) {
  writer_.Attach(*stream_);
  stream_->SetReceiver(this);
  stream_->Resume();
}

void BackendConn::WriteRequest(const RequestHead& head, std::span<const Header> extra) {
  answer_begun_ = false;
  request_ended_ = false;
  message_ = codec_->WriteRequest(writer_.out(), head, extra);
}

void BackendConn::WriteBody(std::string_view data) {
  codec_->WriteBody(writer_.out(), message_, data);
}

void BackendConn::WriteEnd() {
  request_ended_ = true;
  codec_->WriteEnd(writer_.out(), message_);
}

bool BackendConn::above_mark() {
  if (writer_.pending() <= stream_->high_mark()) return false;
  writer_.Flush();  // What the kernel takes at once is no reason to wait.
  return stream_->above_mark();
}

void BackendConn::PauseAnswer() { stream_->Pause(); }
void BackendConn::ResumeAnswer() { stream_->Resume(); }

void BackendConn::Leave() {
  user_ = nullptr;
  // While bytes are being read the rest of a short answer (429, say) may be among
  // them; OnData looks again.
  if (!closed_ && !feeding_) Close();
}

void BackendConn::OnData(std::string_view data) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  if (codec_->idle()) return Close();  // Bytes that nobody asked for.
  answer_begun_ = true;
  feeding_ = true;
  codec_->Feed(data);
  feeding_ = false;
  if (user_ == nullptr && !closed_ && !codec_->idle()) Close();
}

void BackendConn::OnStreamEnd(const absl::Status& status) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  ended_ = true;
  if (status.ok() && !codec_->idle()) codec_->FeedEnd();  // May end an until-close answer.
  if (closed_) return;
  Fail(ConnFailure::Kind::kReset,
       fmt::format("backend {}: {}", pool_.backend_->name,
                   status.ok() ? "closed the connection" : S(status.message())));
}

void BackendConn::OnWritable() {
  Turn::Scope scope(pool_.turn_);
  if (user_ != nullptr) user_->OnConnWritable();
}

void BackendConn::OnResponse(MessageId, ResponseHead& head) {
  if (user_ != nullptr) user_->OnAnswerHead(head);
}

void BackendConn::OnInterim(MessageId, ResponseHead& head) {
  if (user_ != nullptr) user_->OnAnswerInterim(head);
}

void BackendConn::OnBody(MessageId, std::string_view data) {
  if (user_ != nullptr) user_->OnAnswerBody(data);
}

void BackendConn::OnMessageEnd(MessageId, std::span<Header> trailers) {
  if (closed_) return;
  User* const user = std::exchange(user_, nullptr);
  // An answer that came before the request was sent whole leaves the connection dirty.
  if (request_ended_ && codec_->reusable()) {
    pool_.PutBack(*this);
  } else {
    Close();
  }
  if (user != nullptr) user->OnAnswerEnd(trailers);
}

void BackendConn::OnProtocolError(const ProtocolError& error) {
  // An answer that ends too early is a backend that is gone, not one that talks nonsense.
  if (closed_ || ended_) return;
  Fail(ConnFailure::Kind::kBadAnswer,
       fmt::format("backend {}: {}", pool_.backend_->name, error.message));
}

void BackendConn::Fail(ConnFailure::Kind kind, std::string message) {
  User* const user = std::exchange(user_, nullptr);
  ConnFailure failure{kind, reused_, answer_begun_, std::move(message)};
  Close();
  if (user != nullptr) user->OnConnFailed(failure);
}

void BackendConn::Close() {
  if (closed_) return;
  closed_ = true;
  user_ = nullptr;
  writer_.Drop();
  pool_.Remove(*this);
}

ConnPool::ConnPool(std::shared_ptr<Backend> backend, Dialer& dialer, DeadlineWheel& wheel,
                   Turn& turn, const ConnPoolLimits& limits)
    : backend_(std::move(backend)),
      dialer_(dialer),
      wheel_(wheel),
      turn_(turn),
      limits_(limits),
      sweep_(wheel, &ConnPool::OnSweep, this) {}

ConnPool::~ConnPool() {
  backend_->state.worker(limits_.worker).connections.Add(-static_cast<int64_t>(conns_.size()));
}

BackendConn* ConnPool::Acquire(BackendConn::User& user, MonoTime connect_timeout, bool fresh) {
  if (!fresh && !idle_.empty()) {
    BackendConn* const conn = idle_.back();
    idle_.pop_back();
    conn->user_ = &user;
    conn->reused_ = true;
    return conn;
  }
  dialing_.push_front({&user, nullptr});
  const auto dialing = dialing_.begin();
  dialing->pending = dialer_.Dial(
      backend_->address(), connect_timeout,
      [this, dialing](absl::StatusOr<std::unique_ptr<Stream>> stream) {
        OnDialed(dialing, std::move(stream));
      });
  return nullptr;
}

void ConnPool::Cancel(BackendConn::User& user) {
  for (auto it = dialing_.begin(); it != dialing_.end(); ++it) {
    if (it->user == &user) {
      dialing_.erase(it);
      return;
    }
  }
}

void ConnPool::OnDialed(std::list<Dialing>::iterator dialing,
                        absl::StatusOr<std::unique_ptr<Stream>> stream) {
  Turn::Scope scope(turn_);
  BackendConn::User& user = *dialing->user;
  turn_.Bury(std::move(dialing->pending));
  dialing_.erase(dialing);
  if (!stream.ok()) {
    const bool late = absl::IsDeadlineExceeded(stream.status());
    const bool ours = absl::IsResourceExhausted(stream.status());
    user.OnConnFailed({late   ? ConnFailure::Kind::kConnectTimeout
                       : ours ? ConnFailure::Kind::kNoSocket
                              : ConnFailure::Kind::kConnect,
                       false, false,
                       fmt::format("backend {}: {}", backend_->name, S(stream.status().message()))});
    return;
  }
  conns_.push_back(std::make_unique<BackendConn>(*this, *std::move(stream)));
  BackendConn& conn = *conns_.back();
  conn.index_ = conns_.size() - 1;
  backend_->state.worker(limits_.worker).connections.Add(+1);
  conn.user_ = &user;
  user.OnConnReady(conn);
}

void ConnPool::PutBack(BackendConn& conn) {
  if (idle_.size() >= limits_.idle) return conn.Close();
  conn.idle_since_ = wheel_.now();
  conn.stream_->Resume();
  idle_.push_back(&conn);
  if (!sweep_.armed()) sweep_.Set(wheel_.now() + limits_.idle_timeout);
}

void ConnPool::Remove(BackendConn& conn) {
  if (const auto it = std::find(idle_.rbegin(), idle_.rend(), &conn); it != idle_.rend()) {
    idle_.erase(std::next(it).base());
  }
  const size_t index = conn.index_;
  CHECK(conns_[index].get() == &conn);
  turn_.Bury(std::move(conns_[index]));
  backend_->state.worker(limits_.worker).connections.Add(-1);
  if (index + 1 != conns_.size()) {
    conns_[index] = std::move(conns_.back());
    conns_[index]->index_ = index;
  }
  conns_.pop_back();
}

void ConnPool::OnSweep(void* self) {
  auto& pool = *static_cast<ConnPool*>(self);
  Turn::Scope scope(pool.turn_);
  const MonoTime oldest = pool.wheel_.now() - pool.limits_.idle_timeout;
  while (!pool.idle_.empty() && pool.idle_.front()->idle_since_ <= oldest) {
    pool.idle_.front()->Close();
  }
  if (!pool.idle_.empty()) {
    pool.sweep_.Set(pool.idle_.front()->idle_since_ + pool.limits_.idle_timeout);
  }
}

}  // namespace penstock
