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
namespace {

// Who waits for a dial hears of its failure before its own time is over.
constexpr MonoTime kGrace = 2 * DeadlineWheel::kTick;

// What is offered where the backend speaks TLS, best first.
std::vector<std::string> AlpnOf(config::Protocol protocol) {
  switch (protocol) {
    case config::Protocol::kHttp1: return {"http/1.1"};
    case config::Protocol::kHttp2: return {"h2"};
    case config::Protocol::kAuto: return {"h2", "http/1.1"};
  }
  return {};
}

}  // namespace

ConnPoolLimits LimitsOf(const config::Connections& settings, uint32_t worker, bool tls) {
  ConnPoolLimits limits;
  limits.tls = tls;
  limits.idle_timeout = ToMicros(settings.idle_timeout);
  limits.worker = worker;
  limits.protocol = settings.protocol;
  limits.codec.h2.concurrent_streams = settings.max_streams;
  limits.connections = settings.max_connections;
  limits.ping_interval = ToMicros(settings.ping_interval);
  limits.ping_timeout = ToMicros(settings.ping_timeout);
  return limits;
}

ConnPool::ConnPool(std::shared_ptr<Backend> backend, Dialer& dialer, DeadlineWheel& wheel,
                   Turn& turn, const ConnPoolLimits& limits)
    : backend_(std::move(backend)),
      dialer_(*backend_, dialer, wheel),
      http1_dialer_(*backend_, dialer, wheel),
      wheel_(wheel),
      turn_(turn),
      limits_(limits),
      place_(backend_->moves()),
      sweep_(wheel, &ConnPool::OnSweep, this) {
  SetLimits(limits);
}

ConnPool::~ConnPool() {
  cells().connections[0].Add(-static_cast<int64_t>(h1_.size()));
  cells().connections[1].Add(-static_cast<int64_t>(h2_.size()));
}

void ConnPool::SetLimits(const ConnPoolLimits& limits) {
  const bool changed = limits.protocol != limits_.protocol || limits.tls != limits_.tls ||
                       speaks_ == Speaks::kUnknown;
  limits_ = limits;
  dialer_.SetAlpn(AlpnOf(limits.protocol));
  streams_hint_ = std::max<size_t>(1, limits.codec.h2.concurrent_streams);
  if (!changed) return;
  switch (limits.protocol) {
    case config::Protocol::kHttp1: speaks_ = Speaks::kHttp1; break;
    case config::Protocol::kHttp2: speaks_ = Speaks::kHttp2; break;
    case config::Protocol::kAuto: speaks_ = limits.tls ? Speaks::kUnknown : Speaks::kHttp1; break;
  }
}

size_t ConnPool::idle() const {
  return idle_.size() + static_cast<size_t>(std::ranges::count_if(
                            h2_, [](const auto& conn) { return conn->calls() == 0; }));
}

bool ConnPool::in_use() const {
  return open() > idle() || !dialing_.empty() || !waiting_.empty();
}

BackendCall* ConnPool::Acquire(BackendCall::User& user, MonoTime connect_timeout, bool fresh,
                               bool only_http1) {
  if (moved(place_)) {
    FollowBackend();
    SettleSoon();
  }
  if (speaks_ == Speaks::kHttp1 || only_http1) {
    if (!fresh && !idle_.empty()) {
      H1Conn* const conn = idle_.back();
      idle_.pop_back();
      conn->user_ = &user;
      conn->reused_ = true;
      return conn;
    }
    Dial(&user, connect_timeout, only_http1);
    return nullptr;
  }
  if (waiting_.empty()) {
    if (H2Conn* const conn = WithRoom()) return &conn->Begin(user);
  }
  waiting_.emplace_back(*this, user).deadline.Set(wheel_.now() + connect_timeout + kGrace);
  DialForWaiting();
  return nullptr;
}

void ConnPool::Cancel(BackendCall::User& user) {
  const auto wait = std::ranges::find(waiting_, &user, [](const Waiting& w) { return &w.user; });
  if (wait != waiting_.end()) {
    waiting_.erase(wait);
    return;
  }
  const auto dial = std::ranges::find(dialing_, &user, &Dialing::user);
  if (dial != dialing_.end()) dialing_.erase(dial);
}

// What Settle() closes of HTTP/2 it is told by moved_.
void ConnPool::FollowBackend() {
  place_ = backend_->moves();
  while (!idle_.empty()) idle_.back()->Close();
  for (const auto& conn : h2_) conn->moved_ = conn->place_ != place_;
}

H2Conn* ConnPool::WithRoom() {
  for (const auto& conn : h2_) {
    if (conn->room() > 0) return conn.get();
  }
  return nullptr;
}

void ConnPool::Dial(BackendCall::User* user, MonoTime timeout, bool only_http1) {
  dialing_.push_front({user, only_http1, backend_->moves(), nullptr});
  const auto dialing = dialing_.begin();
  dialing->pending = (only_http1 ? http1_dialer_ : dialer_).Dial(
      backend_->address(), timeout, [this, dialing](absl::StatusOr<std::unique_ptr<Stream>> stream) {
        OnDialed(dialing, std::move(stream));
      });
}

// As many dials as those who wait will need by what is known. A connection that
// takes nothing although nothing runs on it says that more of them would not help.
void ConnPool::DialForWaiting() {
  const auto full = [](const auto& conn) {
    return conn->reusable() && conn->calls() == 0 && conn->room() == 0;
  };
  if (waiting_.empty() || std::ranges::any_of(h2_, full)) return;
  const size_t each = speaks_ == Speaks::kUnknown ? waiting_.size() : streams_hint_;
  size_t alive = static_cast<size_t>(
      std::ranges::count_if(h2_, [](const auto& conn) { return conn->reusable(); }));
  // What has not said its settings yet is as good as being dialled.
  const auto silent = static_cast<size_t>(std::ranges::count_if(
      h2_, [](const auto& conn) { return conn->reusable() && conn->heard_ == 0; }));
  for (alive += shared_dials_; alive < limits_.connections; ++alive) {
    const size_t coming = (shared_dials_ + silent) * each;
    if (coming >= waiting_.size()) return;
    // The one who waits longest of those that nothing is under way for.
    const auto next = std::next(waiting_.begin(), static_cast<ptrdiff_t>(coming));
    const MonoTime left = next->deadline.when() - kGrace - wheel_.now();
    if (left <= 0) return;
    ++shared_dials_;
    Dial(nullptr, left);
  }
}

void ConnPool::OnDialed(std::list<Dialing>::iterator dialing,
                        absl::StatusOr<std::unique_ptr<Stream>> stream) {
  Turn::Scope scope(turn_);
  BackendCall::User* const user = dialing->user;
  const bool only_http1 = dialing->only_http1;
  const uint32_t place = dialing->place;
  turn_.Bury(std::move(dialing->pending));
  dialing_.erase(dialing);
  if (user == nullptr) --shared_dials_;
  // Those who wait get a connection to where the backend is now.
  if (user == nullptr && moved(place)) return DialForWaiting();
  if (!stream.ok()) return OnDialFailed(user, stream.status());
  if (only_http1) return AddH1(*std::move(stream), place, user);   // It says nothing of the others.
  speaks_ = SpeaksOf(**stream);
  if (speaks_ == Speaks::kHttp2) {
    AddH2(*std::move(stream), place, user);
  } else {
    AddH1(*std::move(stream), place, user);
  }
}

ConnPool::Speaks ConnPool::SpeaksOf(const Stream& stream) const {
  const bool http2 = limits_.protocol == config::Protocol::kHttp2 ||
                     (limits_.protocol == config::Protocol::kAuto && stream.alpn() == "h2");
  return http2 ? Speaks::kHttp2 : Speaks::kHttp1;
}

void ConnPool::OnDialFailed(BackendCall::User* user, const absl::Status& status) {
  const bool late = absl::IsDeadlineExceeded(status);
  const bool ours = absl::IsResourceExhausted(status);
  const bool tls = absl::IsUnauthenticated(status);
  const auto kind = late   ? ConnFailure::Kind::kConnectTimeout
                    : ours ? ConnFailure::Kind::kNoSocket
                    : tls  ? ConnFailure::Kind::kTls
                           : ConnFailure::Kind::kConnect;
  if (!ours) {
    cells().AddConnectFailure(late  ? ConnectFailure::kTimeout
                              : tls ? ConnectFailure::kTls
                                    : ConnectFailure::kRefused);
  }
  const std::string message = fmt::format("backend {}: {}", backend_->name, S(status.message()));
  if (user != nullptr) return user->OnConnFailed({.kind = kind, .message = message});
  // While another connection lives or is dialled, those who wait may still be served.
  const bool hope = shared_dials_ > 0 ||
                    std::ranges::any_of(h2_, [](const auto& conn) { return conn->reusable(); });
  if (!hope) FailWaiting(kind, message);
}

// One event, one fault: the first is told as the backend's failure, the others as sharing it.
void ConnPool::FailWaiting(ConnFailure::Kind kind, const std::string& message) {
  bool shared = false;
  for (size_t left = waiting_.size(); left > 0 && !waiting_.empty(); --left) {
    BackendCall::User& user = waiting_.front().user;
    waiting_.pop_front();
    user.OnConnFailed(
        {.kind = kind, .shared = std::exchange(shared, true), .message = message});
  }
}

void ConnPool::OnWaited(void* waiting) {
  auto& late = *static_cast<Waiting*>(waiting);
  ConnPool& pool = late.pool;
  Turn::Scope scope(pool.turn_);
  BackendCall::User& user = late.user;
  const bool connected =
      std::ranges::any_of(pool.h2_, [](const auto& conn) { return conn->reusable(); });
  pool.Cancel(user);
  user.OnConnFailed(
      {.kind = connected ? ConnFailure::Kind::kNoStream : ConnFailure::Kind::kConnectTimeout,
       .shared = !connected,
       .message = fmt::format("backend {}: {}", pool.backend_->name,
                              connected ? "no stream was free in time" : "not connected in time")});
}

void ConnPool::AddH1(std::unique_ptr<Stream> stream, uint32_t place, BackendCall::User* user) {
  h1_.push_back(std::make_unique<H1Conn>(*this, std::move(stream), place));
  H1Conn& conn = *h1_.back();
  conn.index_ = h1_.size() - 1;
  cells().connections[0].Add(+1);
  if (user == nullptr && !waiting_.empty()) {
    // The first one of an `auto` backend: the others need connections of their own.
    user = &waiting_.front().user;
    waiting_.pop_front();
    while (!waiting_.empty()) {
      Waiting& next = waiting_.front();
      Dial(&next.user, std::max<MonoTime>(1, next.deadline.when() - kGrace - wheel_.now()));
      waiting_.pop_front();
    }
  }
  if (user == nullptr) return PutBack(conn);
  conn.user_ = user;
  user->OnConnReady(conn);
}

void ConnPool::AddH2(std::unique_ptr<Stream> stream, uint32_t place, BackendCall::User* user) {
  h2_.push_back(std::make_unique<H2Conn>(*this, std::move(stream), place));
  H2Conn& conn = *h2_.back();
  cells().connections[1].Add(+1);
  BackendCall* const call = user != nullptr ? &conn.Begin(*user) : nullptr;
  conn.moved_ = moved(place);
  if (call != nullptr) user->OnConnReady(*call);
  Settle();
}

void ConnPool::ServeWaiting() {
  while (!waiting_.empty()) {
    H2Conn* const conn = WithRoom();
    if (conn == nullptr) return DialForWaiting();
    BackendCall::User& user = waiting_.front().user;
    waiting_.pop_front();
    user.OnConnReady(conn->Begin(user));
  }
}

void ConnPool::Settle() {
  if (moved(place_)) FollowBackend();
  bool idle = false;
  for (size_t i = h2_.size(); i > 0; --i) {
    H2Conn& conn = *h2_[i - 1];
    if (conn.reusable()) {
      if (conn.heard_ != 0) streams_hint_ = std::max<size_t>(1, conn.calls() + conn.room());
      idle |= conn.calls() == 0;
    } else if (conn.calls() == 0) {
      conn.CloseIdle();
    }
  }
  if (idle) ArmSweep();
  ServeWaiting();
}

void ConnPool::SettleSoon() {
  if (std::exchange(settle_due_, true)) return;
  turn_.Defer(this, [](void* self) {
    auto& pool = *static_cast<ConnPool*>(self);
    pool.settle_due_ = false;
    pool.Settle();
  });
}

void ConnPool::PutBack(H1Conn& conn) {
  if (idle_.size() >= limits_.idle || moved(conn.place_)) return conn.Close();
  conn.idle_since_ = wheel_.now();
  conn.stream_->Resume();
  idle_.push_back(&conn);
  ArmSweep();
}

void ConnPool::Remove(H1Conn& conn) {
  if (const auto it = std::find(idle_.rbegin(), idle_.rend(), &conn); it != idle_.rend()) {
    idle_.erase(std::next(it).base());
  }
  const size_t index = conn.index_;
  CHECK(h1_[index].get() == &conn);
  turn_.Bury(std::move(h1_[index]));
  cells().connections[0].Add(-1);
  if (index + 1 != h1_.size()) {
    h1_[index] = std::move(h1_.back());
    h1_[index]->index_ = index;
  }
  h1_.pop_back();
}

// Keeps the order: the first connection with room is filled first, so that those
// that are not needed fall idle and are closed.
void ConnPool::Remove(H2Conn& conn) {
  const auto found = std::ranges::find(h2_, &conn, [](const auto& c) { return c.get(); });
  CHECK(found != h2_.end());
  turn_.Bury(std::move(*found));
  h2_.erase(found);
  cells().connections[1].Add(-1);
}

void ConnPool::ArmSweep() {
  if (!sweep_.armed()) sweep_.Set(wheel_.now() + limits_.idle_timeout);
}

void ConnPool::OnSweep(void* self) {
  auto& pool = *static_cast<ConnPool*>(self);
  Turn::Scope scope(pool.turn_);
  const MonoTime oldest = pool.wheel_.now() - pool.limits_.idle_timeout;
  while (!pool.idle_.empty() && pool.idle_.front()->idle_since_ <= oldest) {
    pool.idle_.front()->Close();
  }
  MonoTime next = pool.idle_.empty() ? kNever : pool.idle_.front()->idle_since_;
  for (size_t i = pool.h2_.size(); i > 0; --i) {
    H2Conn& conn = *pool.h2_[i - 1];
    if (conn.calls() > 0) continue;
    if (conn.idle_since() <= oldest) {
      conn.CloseIdle();
    } else {
      next = std::min(next, conn.idle_since());
    }
  }
  if (next != kNever) pool.sweep_.Set(next + pool.limits_.idle_timeout);
}

}  // namespace penstock
