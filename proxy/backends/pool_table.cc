#include "proxy/backends/pool_table.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"

namespace penstock {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

float Seconds(MonoTime time) { return static_cast<float>(time) / kSecond; }

// The engine itself says that it takes no requests now.
bool TakesNone(EngineState state) {
  return state == EngineState::kLoading || state == EngineState::kDraining ||
         state == EngineState::kAsleep || state == EngineState::kFailed;
}

}  // namespace

// One backend as this worker last saw it, and what the worker did there since.
struct PoolTable::Row {
  std::shared_ptr<Backend> backend;
  lb::BackendId id = 0;                 // backend->id, without touching the backend.
  float weight = 1;
  uint32_t max_requests = 0;

  // --- as of the last refresh ---
  LoadReport report;
  lb::Rung rung = lb::Rung::kOwn;
  Latency latency;
  float reported_ttft = -1;             // Seconds, as the engine says,
  MonoTime reported_since = 0;          // and since when the same.
  float ttft_s = -1;                    // latency, drifted towards the pool's median.
  uint32_t in_flight = 0;
  uint64_t sent_since = 0;
  MonoTime oldest_wait = kNever;
  MonoTime rest_until = 0;
  MonoTime ramp_from = kNever;
  Breaker::View breaker;
  Health health = Health::kUnknown;
  bool drained = false;
  bool suspect = false;

  // --- own changes since then, which the shared figures have too ---
  int32_t in_flight_change = 0;
  uint32_t sent_change = 0;

  // --- own attempts without a first token, oldest first ---
  Attempt* first_waiting = nullptr;
  Attempt* last_waiting = nullptr;

  uint32_t in_flight_now() const {
    return static_cast<uint32_t>(
        std::max(int64_t{0}, static_cast<int64_t>(in_flight) + in_flight_change));
  }
  bool healthy() const {
    if (health == Health::kUnhealthy || health == Health::kDown) return false;
    return rung == lb::Rung::kOwn || !TakesNone(report.state);
  }
};

Attempt::~Attempt() {
  // Nothing is learnt from such an end, so its time does not matter.
  if (begun()) table_->End(*this, Outcome::kClientLeft, sent_);
}

PoolTable::PoolTable(std::shared_ptr<const PoolState> pool, uint32_t worker, uint64_t seed)
    : pool_(std::move(pool)), worker_(worker), breaker_(pool_->settings.circuit_breaker),
      tau_(ToMicros(pool_->settings.load_balancing.decay)),
      slow_start_(ToMicros(pool_->settings.load_balancing.slow_start)),
      stale_(ToMicros(pool_->settings.load_reports.stale)),
      poll_(PollInterval(pool_->settings.load_reports)),
      random_(seed ^ (uint64_t{worker} << 32)) {
  CHECK(worker < kMaxWorkers);
  CHECK(pool_->backends.size() == pool_->settings.backends.size());
  rows_.resize(pool_->backends.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].backend = pool_->backends[i];
    rows_[i].backend->state.AddWorker(worker);
    rows_[i].id = rows_[i].backend->id;
    rows_[i].weight = static_cast<float>(pool_->settings.backends[i].weight);
    rows_[i].max_requests = pool_->settings.backends[i].max_requests;
  }
  candidates_.reserve(rows_.size());
  scratch_.reserve(rows_.size());
}

PoolTable::~PoolTable() { CHECK(active_ == 0, "an attempt outlives its pool table"); }

void PoolTable::Refresh(MonoTime now) {
  refreshed_ = now;
  for (Row& row : rows_) RefreshRow(row, now);
  FillLatencies();
  panic_ = InPanic(now);
}

void PoolTable::RefreshRow(Row& row, MonoTime now) const {
  const BackendState& state = row.backend->state;
  // Own changes are dropped before the shared figures are read, which have them:
  // this thread is the only one that makes them.
  row.in_flight_change = 0;
  row.sent_change = 0;
  row.in_flight = state.in_flight();
  state.ReadReport(row.report);
  row.rung = RungAt(row.report, now, stale_, poll_);
  row.sent_since = row.report.known() ? state.sent_since(row.report) : 0;
  row.latency = state.ttft(now);
  TakeReportedTtft(row, now);
  row.oldest_wait = state.oldest_wait();
  row.rest_until = state.rest_until();
  row.ramp_from = state.ramp_from.load(kRelaxed);
  row.breaker = state.breaker.view();
  row.health = state.health();
  row.drained = state.drained.load(kRelaxed);
  row.suspect = state.suspect.load(kRelaxed);
}

// What the engine says of its first tokens stands in where no streamed answer of ours
// has told for a while. A word that stays the same ages like a sample, so that an engine
// that was slow once and gets nothing since is tried again.
void PoolTable::TakeReportedTtft(Row& row, MonoTime now) const {
  if (row.rung == lb::Rung::kOwn || row.report.ttft_ms_p50 <= 0) return;
  const float seconds = row.report.ttft_ms_p50 / 1000;
  if (seconds != row.reported_ttft) row.reported_since = now;
  row.reported_ttft = seconds;
  const MonoTime same = now - row.reported_since;
  if (row.latency.seconds < 0 || (row.latency.idle > tau_ && same < row.latency.idle)) {
    row.latency = {seconds, same};
  }
}

void PoolTable::FillLatencies() {
  scratch_.clear();
  for (const Row& row : rows_) {
    if (row.latency.seconds >= 0) scratch_.push_back(row.latency.seconds);
  }
  float median = 0;
  if (!scratch_.empty()) {
    const auto middle = scratch_.begin() + static_cast<ptrdiff_t>(scratch_.size() / 2);
    std::nth_element(scratch_.begin(), middle, scratch_.end());
    median = *middle;
    if (scratch_.size() % 2 == 0) {
      median = (median + *std::max_element(scratch_.begin(), middle)) / 2;
    }
  }
  for (Row& row : rows_) row.ttft_s = row.latency.Towards(median, tau_);
}

bool PoolTable::InPanic(MonoTime now) const {
  size_t counted = 0;
  size_t healthy = 0;
  for (const Row& row : rows_) {
    if (row.drained || row.breaker.force == BreakerForce::kOpen) continue;
    ++counted;
    if (row.healthy() && (row.breaker.state == BreakerState::kHalfOpen ||
                          row.breaker.Admits(breaker_, now))) {
      ++healthy;
    }
  }
  const double threshold = pool_->settings.circuit_breaker.panic_threshold;
  return static_cast<double>(healthy) < threshold * static_cast<double>(counted);
}

PoolTable::Fitness PoolTable::FitnessOf(const Row& row, MonoTime now) const {
  if (row.drained || row.health == Health::kDown) return Fitness::kOut;
  if (row.breaker.force == BreakerForce::kOpen) return Fitness::kOut;
  if (!panic_ && !row.healthy()) return Fitness::kOut;
  if (!panic_ && !row.breaker.Admits(breaker_, now)) {
    row.backend->state.worker(worker_).rejected_breaker.Add();
    return Fitness::kOut;
  }
  if (now < row.rest_until) return Fitness::kResting;
  if (row.in_flight_now() >= row.max_requests) {
    row.backend->state.worker(worker_).rejected_full.Add();
    return Fitness::kFull;
  }
  return row.suspect ? Fitness::kSuspect : Fitness::kUsable;
}

lb::Candidate PoolTable::CandidateOf(const Row& row, MonoTime now) const {
  lb::Candidate candidate;
  candidate.id = row.id;
  candidate.weight = row.weight;
  candidate.slow_start = SlowStartAt(row.ramp_from, now, slow_start_);
  // The faults that opened its breaker would keep the probes away that may close it.
  candidate.ttft_s = row.breaker.state == BreakerState::kHalfOpen ? -1 : row.ttft_s;
  if (row.latency.seconds >= 0) candidate.ttft_age_s = Seconds(row.latency.idle + now - refreshed_);
  MonoTime oldest = row.oldest_wait;
  // Own waits are exact: the shared figure is as old as the refresh.
  if (row.first_waiting != nullptr) oldest = std::min(oldest, row.first_waiting->sent_);
  if (oldest < now) candidate.oldest_wait_s = Seconds(now - oldest);
  candidate.inflight = static_cast<float>(row.in_flight_now());
  candidate.rung = row.rung;
  if (row.report.known()) {
    candidate.report_age_s = Seconds(std::max(now - row.report.made, MonoTime{0}));
  }
  if (row.rung == lb::Rung::kOwn) return candidate;
  candidate.sent_since = static_cast<float>(row.sent_since + row.sent_change);
  candidate.reported_total = TotalAt(row.report, candidate.inflight, candidate.sent_since);
  candidate.max_running = std::max(row.report.max_running, 0.0f);
  candidate.kv_used = row.report.kv_used();
  return candidate;
}

PoolTable::View PoolTable::Usable(MonoTime now, std::span<const lb::BackendId> tried) {
  if (now - refreshed_ >= kRefresh) Refresh(now);
  View view;
  view.panic = panic_;
  candidates_.clear();
  bool suspects = false;
  bool busy = false;
  for (const Row& row : rows_) {
    if (std::ranges::find(tried, row.id) != tried.end()) continue;
    switch (FitnessOf(row, now)) {
      case Fitness::kUsable:
        candidates_.push_back(CandidateOf(row, now));
        break;
      case Fitness::kSuspect:
        suspects = true;
        break;
      case Fitness::kResting:
        busy = true;
        view.retry_at = std::min(view.retry_at, row.rest_until);
        break;
      case Fitness::kFull:
        busy = true;
        break;
      case Fitness::kOut:
        break;
    }
  }
  if (candidates_.empty() && suspects) {
    for (const Row& row : rows_) {
      if (std::ranges::find(tried, row.id) != tried.end()) continue;
      if (FitnessOf(row, now) == Fitness::kSuspect) candidates_.push_back(CandidateOf(row, now));
    }
  }
  view.candidates = candidates_;
  if (!candidates_.empty()) return view;
  view.shortage = busy ? Shortage::kBusy : Shortage::kUnhealthy;
  if (busy) return view;
  for (const Row& row : rows_) {
    if (row.breaker.state == BreakerState::kOpen && row.breaker.force == BreakerForce::kAuto) {
      view.retry_at = std::min(view.retry_at, row.breaker.until);
    }
  }
  return view;
}

Backend* PoolTable::Begin(Attempt& attempt, lb::BackendId id, bool streams, MonoTime now) {
  CHECK(!attempt.begun());
  const auto found = std::ranges::find(rows_, id, &Row::id);
  CHECK(found != rows_.end(), "no such backend in this pool");
  Row& row = *found;
  BackendState& state = row.backend->state;
  Breaker::Pass pass = state.breaker.Enter(breaker_, now);
  if (!pass.admitted && !panic_) {
    RefreshRow(row, now);
    return nullptr;
  }
  if (pass.probe != 0) row.breaker = state.breaker.view();
  attempt.table_ = this;
  attempt.backend_ = row.backend.get();
  attempt.sent_ = now;
  attempt.probe_ = pass.probe;
  attempt.probe_told_ = attempt.fine_ = false;
  if (streams) StartWaiting(attempt, row);
  state.Sent(now);
  ++row.in_flight_change;
  ++row.sent_change;
  ++active_;
  return attempt.backend_;
}

PoolTable::Row& PoolTable::RowOf(const Backend& backend) {
  const auto row =
      std::ranges::find(rows_, &backend, [](const Row& row) { return row.backend.get(); });
  CHECK(row != rows_.end());
  return *row;
}

void PoolTable::StartWaiting(Attempt& attempt, Row& row) {
  attempt.waiting_ = true;
  attempt.next_ = nullptr;
  attempt.previous_ = row.last_waiting;
  (row.last_waiting ? row.last_waiting->next_ : row.first_waiting) = &attempt;
  row.last_waiting = &attempt;
  if (row.first_waiting == &attempt) {
    row.backend->state.worker(worker_).oldest_wait.store(attempt.sent_, kRelaxed);
  }
}

void PoolTable::StopWaiting(Attempt& attempt, Row& row) {
  if (!attempt.waiting_) return;
  attempt.waiting_ = false;
  const bool was_oldest = row.first_waiting == &attempt;
  (attempt.previous_ ? attempt.previous_->next_ : row.first_waiting) = attempt.next_;
  (attempt.next_ ? attempt.next_->previous_ : row.last_waiting) = attempt.previous_;
  if (!was_oldest) return;
  const MonoTime oldest = row.first_waiting ? row.first_waiting->sent_ : kNever;
  row.backend->state.worker(worker_).oldest_wait.store(oldest, kRelaxed);
  // The refreshed figure may be this very attempt; another worker's older one
  // shows again at the next refresh.
  if (row.oldest_wait == attempt.sent_) row.oldest_wait = kNever;
}

void PoolTable::FirstToken(Attempt& attempt, MonoTime now) {
  CHECK(attempt.begun());
  if (!attempt.waiting_) return;
  Row& row = RowOf(*attempt.backend_);
  StopWaiting(attempt, row);
  attempt.backend_->state.ObserveTtft(now - attempt.sent_, now, tau_);
}

bool PoolTable::Suspect(const Backend& backend) {
  const Health health = backend.state.health();
  return health == Health::kUnhealthy || health == Health::kDown ||
         backend.state.suspect.load(kRelaxed);
}

void PoolTable::OnFault(Attempt& attempt, Row& row, MonoTime now) {
  BackendState& state = attempt.backend_->state;
  state.ObserveTtft(BackendState::kFaultLatency, now, tau_);
  state.check_wanted.store(true, kRelaxed);
  const uint64_t random = random_.Next();
  // A probe that was told as a success may have closed the breaker: then it is a request
  // like any other.
  const bool probe = !attempt.probe_told_ || state.breaker.view().state != BreakerState::kClosed;
  if (const auto cause = state.breaker.Fault(breaker_, probe ? attempt.probe_ : 0, now, random)) {
    const std::lock_guard lock(pool_->eject_mutex);
    if (pool_->MayEject()) {
      state.breaker.Open(breaker_, *cause, now, random);
    } else {
      state.breaker.Spare();
    }
  }
  row.breaker = state.breaker.view();
}

void PoolTable::End(Attempt& attempt, Outcome outcome, MonoTime now, MonoTime retry_after) {
  CHECK(attempt.begun());
  Row& row = RowOf(*attempt.backend_);
  BackendState& state = attempt.backend_->state;
  StopWaiting(attempt, row);
  state.Ended();
  --row.in_flight_change;
  --active_;
  switch (outcome) {
    case Outcome::kOk:
      if (attempt.probe_ != 0) {
        ProbeSucceeded(attempt, row, now);
      } else {
        state.breaker.Success(breaker_, 0, now);
      }
      break;
    case Outcome::kBusy:
      state.Rest(now, retry_after);
      row.rest_until = state.rest_until();
      [[fallthrough]];
    case Outcome::kClientLeft:
      if (attempt.probe_told_) break;
      state.breaker.Neutral(attempt.probe_);
      if (attempt.probe_ != 0) row.breaker = state.breaker.view();
      break;
    case Outcome::kFault:
      OnFault(attempt, row, now);
      break;
  }
  attempt.table_ = nullptr;
  attempt.backend_ = nullptr;
  attempt.probe_ = 0;
}

void PoolTable::ProbeSucceeded(Attempt& attempt, Row& row, MonoTime now) {
  if (std::exchange(attempt.probe_told_, true)) return;
  BackendState& state = row.backend->state;
  state.breaker.Success(breaker_, attempt.probe_, now);
  row.breaker = state.breaker.view();
  if (row.breaker.state != BreakerState::kClosed) return;
  state.ramp_from.store(now, kRelaxed);
  state.ForgetTtft();
}

void PoolTable::Promoted(Attempt& attempt, MonoTime now) {
  CHECK(attempt.begun());
  if (attempt.probe_ != 0 && attempt.fine_) ProbeSucceeded(attempt, RowOf(*attempt.backend_), now);
}

void PoolTable::Answered(Attempt& attempt, unsigned status) {
  CHECK(attempt.begun());
  attempt.fine_ = status < 500;
  attempt.backend_->state.worker(worker_).answers[CodeIndex(status)].Add();
}

void PoolTable::Report(Backend& backend, std::string_view field, MonoTime now) {
  if (!pool_->settings.load_reports.orca) return;
  const auto report = ParseOrca(field, now);
  if (!report.ok()) {
    backend.state.reports_invalid.fetch_add(1, kRelaxed);
    return;
  }
  // Not waiting for another publisher: its report is as new as this one.
  backend.state.PublishReport(*report, stale_, false);
}

}  // namespace penstock
