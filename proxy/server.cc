#include "proxy/server.h"

#include <signal.h>

#include <algorithm>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "config/file.h"
#include "proxy/base/log.h"
#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/net/port.h"
#include "proxy/policy_file.h"

namespace penstock {
namespace {

constexpr MonoTime kFileTick = kSecond;
constexpr MonoTime kDrainTick = 50 * kMillisecond;

uint32_t WorkerCount(const config::Config& config) {
  const uint32_t wanted = config.server.workers > 0 ? config.server.workers
                                                    : std::thread::hardware_concurrency();
  return std::clamp<uint32_t>(wanted, 1, kMaxWorkers);
}

}  // namespace

Server::Server(std::string policy_file, uint64_t seed)
    : policy_file_(std::move(policy_file)),
      random_(seed),
      loop_(Loop::Create()),
      tls_([](const std::string& path) { return config::ReadFileText(path); }, ticket_keys_) {}

Server::~Server() {
  signals_.clear();
  file_timer_.Cancel();
  drain_timer_.Cancel();
  admin_.reset();
  control_.reset();
  // All threads end before the first worker goes: they post to each other.
  for (auto& worker : workers_) worker->Stop();
  for (auto& worker : workers_) worker->Join();
  workers_.clear();
}

absl::Status Server::Run() {
  absl::StatusOr<std::string> text = config::ReadFileText(policy_file_);
  if (!text.ok()) return text.status();
  policy_text_ = *text;
  config::ParseResult parsed = ParsePolicyText(*text, policy_file_);
  if (!parsed.ok()) return absl::InvalidArgumentError(parsed.Messages());
  for (const config::Diagnostic& warning : parsed.diagnostics) LogWarn("{}", config::ToString(warning));
  RETURN_IF_ERROR(Start(*std::move(parsed.config)));
  loop_->Run();
  for (auto& worker : workers_) worker->Stop();
  LogInfo("stopped");
  return absl::OkStatus();
}

absl::Status Server::Start(config::Config config) {
  const uint32_t count = WorkerCount(config);
  if (config.observability.access_log != "off") {
    absl::StatusOr<std::unique_ptr<AccessLog>> log = AccessLog::Open(config.observability.access_log);
    if (!log.ok()) return log.status();
    access_log_ = *std::move(log);
  }
  for (uint32_t i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<Worker>(i, random_.Next(), totals_, access_log_.get(),
                                                config.observability.decisions / count));
  }
  absl::StatusOr<Address> admin_address = Address::Parse(config.server.admin_address);
  if (!admin_address.ok()) return admin_address.status();
  RETURN_IF_ERROR(tls_.Use(config, loop_->wall_now()));
  control_ = Control::Create(*loop_, random_.Next());
  auto shared = std::make_shared<const config::Config>(std::move(config));
  Install(shared);
  policy_.accepted = 0;  // The first file is no reload.
  RETURN_IF_ERROR(Bind(*shared));
  RETURN_IF_ERROR(CheckPortFree(*admin_address));
  absl::StatusOr<std::unique_ptr<Admin>> admin = Admin::Listen(*loop_, *admin_address, Sources());
  if (!admin.ok()) return admin.status();
  admin_ = *std::move(admin);
  LogInfo("admin on http://{}", admin_->address().text);
  for (auto& worker : workers_) worker->Start();
  for (const int signal : {SIGTERM, SIGINT}) {
    signals_.push_back(loop_->OnSignal(signal, [this] { BeginDrain(); }));
  }
  signals_.push_back(loop_->OnSignal(SIGHUP, [this] { TryReload("SIGHUP"); }));
  WatchFile();
  LogInfo("ready: {} workers, {} pools", count, fleet_->pools.size());
  return absl::OkStatus();
}

absl::Status Server::Bind(const config::Config& config) {
  for (const config::Listener& listener : config.server.listeners) {
    absl::StatusOr<Address> address = Address::Parse(listener.address);
    if (!address.ok()) return address.status();
    // Workers share the port with each other, but not with another program.
    RETURN_IF_ERROR(CheckPortFree(*address));
    const auto entrance = std::make_shared<const Entrance>(EntranceOf(listener, listeners_.size()));
    for (auto& worker : workers_) {
      address = worker->Listen(*address, listener.name, entrance);
      if (!address.ok()) return address.status();
    }
    listeners_.push_back(listener.address);
    LogInfo("listener {} on {}://{}", listener.name, listener.tls.enabled() ? "https" : "http",
            address->text);
  }
  PublishTls();
  return absl::OkStatus();
}

// To new connections: those of clients, and those to backends.
void Server::PublishTls() {
  tls_.GiveTo(*fleet_);
  for (size_t i = 0; i < listeners_.size(); ++i) {
    for (auto& worker : workers_) worker->SetTls(i, tls_.OfListener(listeners_[i]));
  }
}

void Server::Install(std::shared_ptr<const config::Config> config) {
  fleet_ = MakeFleet(config, fleet_.get());
  PublishTls();
  UpdateCaches(*config);
  control_->SetFleet(fleet_);
  for (uint32_t i = 0; i < workers_.size(); ++i) workers_[i]->SetSnapshot(MakeSnapshot(i));
  policy_.hash = config->hash;
  ++policy_.generation;
  ++policy_.accepted;
  policy_.last_reload_ok = true;
  policy_.last_error.clear();
  policy_.accepted_at = loop_->wall_now();
}

std::shared_ptr<Snapshot> Server::MakeSnapshot(uint32_t worker) {
  auto snapshot = std::make_shared<Snapshot>(fleet_);
  for (uint32_t i = 0; i < fleet_->pools.size(); ++i) {
    const std::shared_ptr<const PoolState>& pool = fleet_->pools[i];
    const config::LoadBalancing& balancing = pool->settings.load_balancing;
    lb::Params params;
    for (const auto& param : balancing.params) params.emplace_back(param.key, param.value);
    // The policy file was checked: the algorithm and its settings are known to be good.
    auto policy = lb::MakePolicy(balancing.algorithm, params);
    CHECK(policy.ok());
    std::shared_ptr<ResultCache> cache;
    bool only_deterministic = true;
    if (const auto found = caches_.find(pool->settings.cache); found != caches_.end()) {
      cache = found->second;
      for (const config::Cache& settings : fleet_->config->caches) {
        if (settings.name == pool->settings.cache) only_deterministic = settings.only_deterministic;
      }
    }
    const size_t queue_max = (pool->settings.queue.max + workers_.size() - 1) / workers_.size();
    snapshot->pools.push_back(std::make_unique<PoolContext>(
        pool, worker, random_.Next(), workers_[worker]->metrics(), *std::move(policy),
        std::move(cache), i, queue_max));
    snapshot->pools.back()->cache_only_deterministic = only_deterministic;
  }
  return snapshot;
}

// A cache whose settings stay the same keeps its entries over a reload.
void Server::UpdateCaches(const config::Config& config) {
  std::map<std::string, std::shared_ptr<ResultCache>> next;
  for (const config::Cache& cache : config.caches) {
    ResultCacheSettings settings;
    settings.name = cache.name;
    settings.max_bytes = cache.max_bytes;
    settings.max_entry_bytes = cache.max_entry_bytes;
    settings.ttl = ToMicros(cache.ttl);
    settings.coalesce = cache.coalesce;
    settings.seed = random_.Next();
    const auto before = caches_.find(cache.name);
    next[cache.name] = before != caches_.end() && before->second->SameSettings(settings)
                           ? before->second
                           : std::make_shared<ResultCache>(settings);
  }
  caches_ = std::move(next);
}

// Looks at the contents, not at the file's identity: a ConfigMap swaps a symbolic
// link above the file, an editor replaces it, and both look like new text.
void Server::WatchFile() {
  file_timer_ = loop_->timers().After(kFileTick, [this] {
    const absl::StatusOr<std::string> text = config::ReadFileText(policy_file_);
    if (text.ok() && *text != policy_text_) TryReload("the file changed");
    ticket_keys_.RotateAt(loop_->now());
    if (tls_.Look(loop_->wall_now())) PublishTls();
    WatchFile();
  });
}

void Server::TryReload(const char* why) {
  if (draining_) return;
  const auto refuse = [&](const std::string& error) {
    policy_.last_reload_ok = false;
    policy_.last_error = error;
    ++policy_.rejected;
    LogError("policy reload ({}) rejected, the last good policy stays: {}", why, error);
  };
  absl::StatusOr<std::string> text = config::ReadFileText(policy_file_);
  if (!text.ok()) return refuse(std::string(S(text.status().message())));
  policy_text_ = *text;
  config::ParseResult parsed = ParsePolicyText(*text, policy_file_);
  if (!parsed.ok()) return refuse(parsed.Messages());
  if (const absl::Status made = tls_.Use(*parsed.config, loop_->wall_now()); !made.ok()) {
    return refuse(std::string(S(made.message())));
  }
  for (const config::Diagnostic& warning : parsed.diagnostics) LogWarn("{}", config::ToString(warning));
  const config::Config& now = *fleet_->config;
  const auto addresses = [](const config::Config& config) {
    std::vector<std::string> out{config.server.admin_address};
    for (const auto& listener : config.server.listeners) out.push_back(listener.address);
    return out;
  };
  if (addresses(*parsed.config) != addresses(now)) {
    LogWarn("policy reload: addresses of listeners change with a restart only");
  }
  Install(std::make_shared<const config::Config>(*std::move(parsed.config)));
  LogInfo("policy reload ({}): generation {} is in force", why, policy_.generation);
}

void Server::BeginDrain() {
  if (draining_) {
    LogWarn("stopping at once");
    loop_->Stop();
    return;
  }
  draining_ = true;
  drain_began_ = loop_->now();
  LogInfo("draining: no new connections, {} requests in progress",
          totals_.requests.load(std::memory_order_relaxed));
  for (auto& worker : workers_) worker->Drain();
  WatchDrain();
}

void Server::WatchDrain() {
  drain_timer_ = loop_->timers().After(kDrainTick, [this] {
    const config::Server& settings = fleet_->config->server;
    const MonoTime passed = loop_->now() - drain_began_;
    const uint32_t requests = totals_.requests.load(std::memory_order_relaxed);
    // Answers that are done may still be on their way to slow clients.
    const bool idle = requests == 0 && std::all_of(workers_.begin(), workers_.end(),
                                                   [](const auto& worker) { return worker->busy() == 0; });
    if (idle || passed >= ToMicros(settings.drain_stream_timeout)) {
      if (!idle) LogWarn("drain: {} requests are cut after {}", requests,
                         absl::FormatDuration(settings.drain_stream_timeout));
      loop_->Stop();
      return;
    }
    if (!whole_ended_ && passed >= ToMicros(settings.drain_timeout)) {
      whole_ended_ = true;
      for (auto& worker : workers_) worker->EndWhole();
    }
    WatchDrain();
  });
}

}  // namespace penstock
