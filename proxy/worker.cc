#include "proxy/worker.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"

namespace penstock {
namespace {

constexpr MonoTime kBusyTick = 20 * kMillisecond;
constexpr MonoTime kWatchTick = 250 * kMillisecond;

}  // namespace

Worker::Worker(std::unique_ptr<Loop> loop, uint32_t index, uint64_t seed, ProcessTotals& totals,
               uint32_t decisions)
    : index_(index),
      loop_(std::move(loop)),
      context_(std::make_unique<WorkerContext>(*loop_, index, seed, totals, metrics_, nullptr,
                                               decisions)),
      sessions_(std::make_unique<SessionSet>(*context_)) {}

Worker::~Worker() {
  Stop();
  Join();
  entries_.clear();
  sessions_.reset();
  busy_timer_.Cancel();
  watch_timer_.Cancel();
  pace_timer_.Cancel();
  context_.reset();
}

void Worker::Run(Loop::Task task) {
  if (!started_) return task();
  loop_->Post(std::move(task));
}

void Worker::Listen(uint32_t id, const config::Listener& settings,
                    std::vector<ListeningSocket> sockets,
                    std::shared_ptr<const TlsServerContext> tls) {
  auto entrance = std::make_shared<Entrance>(EntranceOf(settings));
  Run([this, id, entrance, sockets = std::move(sockets), tls = std::move(tls)]() mutable {
    Furnish(*entrance, std::move(tls));
    Entry entry{id, entrance, {}};
    for (ListeningSocket& socket : sockets) {
      entry.listeners.push_back(
          loop_->Listen(std::move(socket), [this, entrance](std::unique_ptr<Stream> stream) {
            Accept(std::move(stream), entrance);
          }));
      if (paced_ || stopped_) entry.listeners.back()->Pause();
    }
    entries_.push_back(std::move(entry));
  });
}

void Worker::Change(uint32_t id, const config::Listener& settings) {
  Run([this, id, next = EntranceOf(settings)]() mutable {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    if (found == entries_.end()) return;
    Entrance& entrance = *found->entrance;
    // Handshakes that have begun look for it when they end; the name may be a new one.
    if (entrance.door != nullptr) {
      next.door = std::make_unique<TlsDoor>(metrics_.listeners.Of(next.name));
      next.door->SetContext(entrance.door->context());
    }
    entrance = std::move(next);
  });
}

void Worker::SetTls(uint32_t id, std::shared_ptr<const TlsServerContext> context) {
  Run([this, id, context = std::move(context)]() mutable {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    if (found != entries_.end()) Furnish(*found->entrance, std::move(context));
  });
}

// One that never spoke TLS has no door.
void Worker::Furnish(Entrance& entrance, std::shared_ptr<const TlsServerContext> context) {
  if (entrance.door == nullptr) {
    if (context == nullptr) return;
    entrance.door = std::make_unique<TlsDoor>(metrics_.listeners.Of(entrance.name));
  }
  entrance.door->SetContext(std::move(context));
}

void Worker::CloseListener(uint32_t id) {
  Run([this, id] {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    if (found == entries_.end()) return;
    Close(*found);
    found->entrance->gone = true;
    leaving_.push_back({found->entrance, loop_->now()});
    entries_.erase(found);
  });
}

// What came before it was told to close is not turned away.
void Worker::Close(Entry& entry) {
  for (const auto& listener : entry.listeners) listener->AcceptWaiting();
  entry.listeners.clear();
}

void Worker::Accept(std::unique_ptr<Stream> stream, const std::shared_ptr<Entrance>& entrance) {
  sessions_->Accept(std::move(stream), entrance);
  const MonoTime now = loop_->now();
  pace_.Take(now);
  const MonoTime next = pace_.NextAt(now);
  if (next <= now || paced_) return;
  paced_ = true;
  metrics_.pauses_for_rate.Add();
  UpdateAccepting();
  pace_timer_ = loop_->timers().At(next, [this] {
    paced_ = false;
    UpdateAccepting();
  });
}

void Worker::UpdateAccepting() {
  for (const Entry& entry : entries_) {
    for (const auto& listener : entry.listeners) {
      paced_ || stopped_ ? listener->Pause() : listener->Resume();
    }
  }
}

void Worker::Start() {
  started_ = true;
  thread_ = std::thread([this] {
    Watch();
    loop_->Run();
    LetGo();  // On the thread that it belongs to.
  });
}

void Worker::StartHere() {
  started_ = true;
  Watch();
}

void Worker::LetGo() {
  entries_.clear();
  sessions_->CloseAll();
}

void Worker::SetSnapshot(std::shared_ptr<Snapshot> snapshot, std::shared_ptr<AccessLog> access_log,
                         uint32_t worker_count) {
  Run([this, worker_count, log = std::move(access_log), next = std::move(snapshot)]() mutable {
    context_->access_log = std::move(log);
    context_->DropConnectionsOutside(*next->fleet);
    context_->snapshot = std::move(next);
    const double rate = context_->snapshot->server().limits.accepts_per_second;
    pace_.SetRate(rate / worker_count);
  });
}

void Worker::Drain(bool take_waiting) {
  busy_.store(1, std::memory_order_relaxed);  // Until the worker has looked.
  loop_->Post([this, take_waiting] {
    if (take_waiting) std::ranges::for_each(entries_, [this](Entry& entry) { Close(entry); });
    context_->draining = true;
    drain_began_ = loop_->now();
    entries_.clear();
    WatchBusy();
  });
}

void Worker::EndWhole() {
  loop_->Post([this] { sessions_->EndWhole(); });
}

// Connections that were in a request go on until it ends, which is looked at now and
// then.
void Worker::WatchBusy() {
  sessions_->Drain(GraceSince(drain_began_));
  busy_.store(static_cast<uint32_t>(sessions_->size() + context_->orphans.size()),
              std::memory_order_relaxed);
  busy_timer_ = loop_->timers().After(kBusyTick, [this] { WatchBusy(); });
}

// How late a timer fires is how long a turn kept everybody else waiting.
void Worker::Watch() {
  const MonoTime due = loop_->now() + kWatchTick;
  watch_timer_ = loop_->timers().At(due, [this, due] {
    const MonoTime late = std::max<MonoTime>(loop_->ReadClock() - due, 0);
    metrics_.loop_delay.Observe(late);
    const config::Server& server = context_->snapshot->server();
    delay_.Add(late);
    context_->shed_chance = ShedChance(delay_.median(), ToMicros(server.overload.loop_delay_from),
                                       ToMicros(server.overload.loop_delay_full));
    const Pressure pressure = context_->pressure();
    if (pressure >= Pressure::kShorten) {
      const double share = context_->totals.idle_share.load(std::memory_order_relaxed);
      const auto keep = static_cast<double>(ToMicros(server.keep_alive_timeout)) * share;
      sessions_->CloseIdle(std::max(static_cast<MonoTime>(keep), kIdleGrace));
    }
    const bool stop = pressure >= Pressure::kStop;
    if (stop && !stopped_) metrics_.pauses_for_memory.Add();
    if (std::exchange(stopped_, stop) != stop) UpdateAccepting();
    DrainLeaving();
    context_->DropStrays();
    Watch();
  });
}

// For how long connections must have been idle to be closed, if that began at `began`.
MonoTime Worker::GraceSince(MonoTime began) const {
  return loop_->now() < began + kIdleGrace ? kNever : kIdleGrace;
}

void Worker::DrainLeaving() {
  for (const auto& [entrance, since] : leaving_) {
    sessions_->Drain(GraceSince(since), entrance.get());
  }
  // Its sessions hold it too; when they are gone, nobody has to be looked for.
  std::erase_if(leaving_, [](const auto& left) { return left.first.use_count() == 1; });
}

void Worker::Stop() { loop_->Stop(); }

void Worker::Join() {
  if (thread_.joinable()) return thread_.join();
  if (started_) LetGo();
}

bool Worker::Post(absl::AnyInvocable<void(WorkerContext&)> task) {
  return loop_->Post([this, task = std::move(task)]() mutable { task(*context_); });
}

}  // namespace penstock
