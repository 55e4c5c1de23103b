#include "proxy/server.h"

#include <malloc.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "config/file.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/descriptors.h"
#include "proxy/memory_use.h"
#include "proxy/net/port.h"
#include "proxy/policy_file.h"
#include "proxy/systemd.h"

namespace penstock {
namespace {

constexpr MonoTime kWarmTick = 20 * kMillisecond;
// A process that takes over begins when it knows its backends, or after this.
constexpr MonoTime kWarmTime = 3 * kSecond;

uint32_t WorkerCount(const config::Config& config) {
  const uint32_t wanted = config.server.workers > 0 ? config.server.workers
                                                    : std::thread::hardware_concurrency();
  return std::clamp<uint32_t>(wanted, 1, kMaxWorkers);
}

}  // namespace

ServerSeams RealSeams() {
  return {.make_loop = Loop::Create,
          .open_socket = [](const Address& address, bool first) -> absl::StatusOr<ListeningSocket> {
            // Workers share the port with each other, but not with another program.
            if (first) RETURN_IF_ERROR(CheckPortFree(address));
            return ListeningSocket::Open(address);
          },
          .read_file = [](const std::string& path) { return config::ReadFileText(path); },
          .open_log = [](const std::string& target) { return AccessLog::Open(target); },
          .memory_used = ResidentBytes,
          .memory_limit = [] { return MemoryLimit(); }};
}

Server::Server(ServeOptions options, uint64_t seed, ServerSeams seams)
    : options_(std::move(options)),
      seams_(std::move(seams)),
      random_(seed),
      loop_(seams_.make_loop()),
      tls_(seams_.read_file, ticket_keys_),
      overload_(*loop_, totals_,
                {.used = seams_.memory_used,
                 .limit = seams_.memory_limit,
                 .empty_caches =
                     [this] {
                       for (const auto& [name, cache] : caches_) cache->Flush();
                     },
                 // Beside the loop: it takes a while, and locks each arena in turn.
                 .give_back = [this] { loop_->Offload([] { malloc_trim(0); }, [] {}); }}) {}

Server::~Server() {
  signals_.clear();
  offer_watch_.reset();
  heir_watch_.reset();
  file_timer_.Cancel();
  look_timer_.Cancel();
  named_timer_.Cancel();
  reload_timer_.Cancel();
  warm_timer_.Cancel();
  drain_timer_.Cancel();
  admin_.reset();
  control_.reset();
  // All threads end before the first worker goes: they post to each other.
  for (auto& worker : workers_) worker->Stop();
  for (auto& worker : workers_) worker->Join();
  workers_.clear();
}

absl::Status Server::Run() {
  RETURN_IF_ERROR(Begin());
  loop_->Run();
  Loop::IgnoreFromNowOn(std::array{SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2});
  signals_.clear();
  for (auto& worker : workers_) worker->Stop();
  LogInfo("stopped");
  return absl::OkStatus();
}

absl::Status Server::Begin() {
  WatchSignals();
  absl::StatusOr<config::ParseResult> parsed = FirstPolicy();
  if (!parsed.ok()) return parsed.status();
  for (const config::Diagnostic& warning : parsed->diagnostics) LogWarn("{}", config::ToString(warning));
  RETURN_IF_ERROR(Start(*std::move(parsed->config), parsed->where));
  if (start_error_.empty()) {
    KeepCopy();
  } else {
    policy_.last_reload_ok = false;
    policy_.last_error = start_error_;
  }
  return absl::OkStatus();
}

// They are heard once the loop runs; until then they wait.
void Server::WatchSignals() {
  for (const int signal : {SIGTERM, SIGINT}) {
    signals_.push_back(loop_->OnSignal(signal, [this] { OnTerminate(); }));
  }
  signals_.push_back(loop_->OnSignal(SIGHUP, [this] { AskForReload("SIGHUP"); }));
  signals_.push_back(loop_->OnSignal(SIGUSR1, [this] {
    if (access_log_ != nullptr) access_log_->Reopen();
  }));
  signals_.push_back(loop_->OnSignal(SIGUSR2, [this] { SpawnHeir(); }));
}

absl::Status Server::Start(config::Config config, const config::Locations& where) {
  descriptors_ = RaiseDescriptorLimit();
  RETURN_IF_ERROR(Inherit());
  absl::StatusOr<std::shared_ptr<AccessLog>> log = AccessLogFor(config, where);
  if (!log.ok()) return log.status();
  UseAccessLog(*std::move(log));
  MakeWorkers(config);
  control_ = Control::Create(*loop_, random_.Next());
  absl::StatusOr<ListenerPlan> plan = PlanListeners(config, where);
  if (!plan.ok()) return plan.status();
  RETURN_IF_ERROR(tls_.Use(config, loop_->wall_now()));
  auto shared = std::make_shared<const config::Config>(std::move(config));
  Install(shared);
  TakeOperatorWords();
  policy_.accepted = 0;  // The first file is no reload.
  Carry(*std::move(plan), *shared);
  inherited_.clear();    // What this file has no use for.
  warm_until_ = loop_->now() + (predecessor_.open() ? kWarmTime : 0);
  Warm();
  return absl::OkStatus();
}

void Server::MakeWorkers(const config::Config& config) {
  const uint32_t count = WorkerCount(config);
  for (uint32_t i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<Worker>(seams_.make_loop(), i, random_.Next(), totals_,
                                                (config.observability.decisions + count - 1) / count));
  }
}

bool Server::BackendsKnown() const {
  for (const auto& pool : fleet_->pools) {
    for (const auto& backend : pool->backends) {
      if (backend->address().text.empty()) return false;
      if (pool->settings.health_check.enabled && backend->state.health() == Health::kUnknown) return false;
    }
  }
  return true;
}

void Server::Warm() {
  if (loop_->now() >= warm_until_ || BackendsKnown()) return GoLive();
  warm_timer_ = loop_->timers().After(kWarmTick, [this] { Warm(); });
}

void Server::GoLive() {
  live_ = true;
  absl::StatusOr<ListeningSocket> admin = admin_socket_->Duplicate();
  if (admin.ok()) {
    admin_ = Admin::Listen(*loop_, *std::move(admin), Sources());
    LogInfo("admin on http://{}", admin_->address().text);
  } else {
    LogError("{}", S(admin.status().message()));
  }
  for (auto& worker : workers_) seams_.threads ? worker->Start() : worker->StartHere();
  WatchFile();
  OfferTakeover();
  LogInfo("ready: {} workers, {} pools", workers_.size(), fleet_->pools.size());
  Notify("READY=1");
  if (predecessor_.open() && !predecessor_.Send(fmt::format("ready {}", getpid()))) {
    LogWarn("takeover: the process before has ended by itself");
  }
  predecessor_.Close();
}

}  // namespace penstock
