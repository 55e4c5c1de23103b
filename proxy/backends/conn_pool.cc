#include "proxy/backends/conn_pool.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {

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

BackendCall* ConnPool::Acquire(BackendCall::User& user, MonoTime connect_timeout, bool fresh) {
  if (!fresh && !idle_.empty()) {
    H1Conn* const conn = idle_.back();
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

void ConnPool::Cancel(BackendCall::User& user) {
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
  BackendCall::User& user = *dialing->user;
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
  conns_.push_back(std::make_unique<H1Conn>(*this, *std::move(stream)));
  H1Conn& conn = *conns_.back();
  conn.index_ = conns_.size() - 1;
  backend_->state.worker(limits_.worker).connections.Add(+1);
  conn.user_ = &user;
  user.OnConnReady(conn);
}

void ConnPool::PutBack(H1Conn& conn) {
  if (idle_.size() >= limits_.idle) return conn.Close();
  conn.idle_since_ = wheel_.now();
  conn.stream_->Resume();
  idle_.push_back(&conn);
  if (!sweep_.armed()) sweep_.Set(wheel_.now() + limits_.idle_timeout);
}

void ConnPool::Remove(H1Conn& conn) {
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
