#include "proxy/worker.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"

namespace penstock {
namespace {

constexpr MonoTime kBusyTick = 20 * kMillisecond;
constexpr MonoTime kDelayTick = 250 * kMillisecond;

}  // namespace

Worker::Worker(uint32_t index, uint64_t seed, ProcessTotals& totals, AccessLog* access_log,
               uint32_t decisions)
    : index_(index),
      loop_(Loop::Create()),
      context_(std::make_unique<WorkerContext>(*loop_, index, seed, totals, metrics_, access_log,
                                               decisions)),
      sessions_(std::make_unique<SessionSet>(*context_)) {}

Worker::~Worker() {
  Stop();
  Join();
  listeners_.clear();
  sessions_.reset();
  busy_timer_.Cancel();
  delay_timer_.Cancel();
  context_.reset();
}

absl::StatusOr<Address> Worker::Listen(const Address& address, std::string_view name,
                                       std::shared_ptr<const Entrance> entrance) {
  CHECK(entrance->listener == listeners_.size());
  sessions_->AddDoor(name);
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      loop_->Listen(address, [this, entrance = std::move(entrance)](std::unique_ptr<Stream> stream) {
        sessions_->Accept(std::move(stream), entrance);
      });
  if (!listener.ok()) return listener.status();
  Address real = (*listener)->address();
  listeners_.push_back(*std::move(listener));
  return real;
}

void Worker::SetTls(size_t listener, std::shared_ptr<const TlsServerContext> context) {
  if (!thread_.joinable()) return sessions_->SetTls(listener, std::move(context));
  loop_->Post([this, listener, context = std::move(context)]() mutable {
    sessions_->SetTls(listener, std::move(context));
  });
}

void Worker::Start() {
  WatchDelay();
  thread_ = std::thread([this] {
    loop_->Run();
    // What is left goes on the thread that it belongs to.
    listeners_.clear();
    sessions_->CloseAll();
  });
}

void Worker::SetSnapshot(std::shared_ptr<Snapshot> snapshot) {
  auto install = [this](std::shared_ptr<Snapshot> next) {
    context_->DropConnectionsOutside(*next->fleet);
    context_->snapshot = std::move(next);
  };
  if (!thread_.joinable()) return install(std::move(snapshot));
  loop_->Post([install, snapshot = std::move(snapshot)]() mutable { install(std::move(snapshot)); });
}

void Worker::Drain() {
  busy_.store(1, std::memory_order_relaxed);  // Until the worker has looked.
  loop_->Post([this] {
    context_->draining = true;
    listeners_.clear();
    sessions_->Drain();
    WatchBusy();
  });
}

void Worker::EndWhole() {
  loop_->Post([this] { sessions_->EndWhole(); });
}

// Idle connections were closed at once; those that were in a request go on until
// it ends, which is looked at now and then.
void Worker::WatchBusy() {
  sessions_->Drain();
  busy_.store(static_cast<uint32_t>(sessions_->size() + context_->orphans.size()),
              std::memory_order_relaxed);
  busy_timer_ = loop_->timers().After(kBusyTick, [this] { WatchBusy(); });
}

// How late a timer fires is how long a turn kept everybody else waiting.
void Worker::WatchDelay() {
  const MonoTime due = loop_->now() + kDelayTick;
  delay_timer_ = loop_->timers().At(due, [this, due] {
    metrics_.loop_delay.Observe(std::max<MonoTime>(loop_->ReadClock() - due, 0));
    WatchDelay();
  });
}

void Worker::Stop() { loop_->Stop(); }

void Worker::Join() {
  if (thread_.joinable()) thread_.join();
}

bool Worker::Post(absl::AnyInvocable<void(WorkerContext&)> task) {
  return loop_->Post([this, task = std::move(task)]() mutable { task(*context_); });
}

}  // namespace penstock
