// Policy files: what changes when one is taken, and what becomes of those that are
// not.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "proxy/base/check.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/last_good.h"
#include "proxy/policy_file.h"
#include "proxy/server.h"
#include "proxy/systemd.h"

namespace penstock {
namespace {

constexpr MonoTime kFileTick = kSecond;
constexpr MonoTime kFileSettles = 200 * kMillisecond;
// However often a reload is asked for, one follows the other after this.
constexpr MonoTime kReloadEvery = 100 * kMillisecond;

void WarnOfMemory(const config::Config& config, uint64_t limit) {
  uint64_t most = config.server.limits.buffered_bytes;
  for (const config::Cache& cache : config.caches) most += cache.max_bytes;
  if (limit == 0 || most < limit) return;
  LogWarn("caches[].max_bytes and server.limits.buffered_bytes come to {} MiB, of {} MiB that there are; "
          "requests will be refused before those are full",
          most >> 20, limit >> 20);
}

// A log line is one line, whatever it has to tell.
std::string InOneLine(std::string_view messages) {
  return absl::StrReplaceAll(absl::StripTrailingAsciiWhitespace(A(messages)), {{"\n", "; "}});
}

}  // namespace

void Server::Install(std::shared_ptr<const config::Config> config) {
  fleet_ = MakeFleet(config, fleet_.get());
  tls_.GiveTo(*fleet_);  // Before anybody connects to a backend.
  UpdateCaches(*config);
  control_->SetFleet(fleet_);
  const auto count = static_cast<uint32_t>(workers_.size());
  for (uint32_t i = 0; i < count; ++i) workers_[i]->SetSnapshot(MakeSnapshot(i), access_log_, count);
  overload_.SetSettings(config->server.overload);
  LimitConnections(*config);
  WarnOfMemory(*config, overload_.status().memory_limit);
  generations_.push_back(config);
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
    snapshot->pools.push_back(std::make_unique<PoolContext>(
        pool, worker, random_.Next(), workers_[worker]->metrics(), *std::move(policy),
        std::move(cache), i));
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
// A file that is being written is not read in the middle: it has to say the same twice.
void Server::WatchFile() {
  file_timer_ = loop_->timers().After(kFileTick, [this] {
    LookAtFile(false);
    LookAtNamedFiles(0);
    DropOldLogs();
    ticket_keys_.RotateAt(loop_->now());
    if (tls_.Look(loop_->wall_now())) PublishTls();
    WatchFile();
  });
}

// One that cannot be read has text that no other is like.
void Server::LookAtFile(bool again) {
  absl::StatusOr<std::string> text = seams_.read_file(options_.policy_file);
  const std::optional<std::string> now = text.ok() ? std::optional(*std::move(text)) : std::nullopt;
  // Without descriptors nobody knows what it says.
  if (now == policy_text_ || leaving_ || absl::IsResourceExhausted(text.status())) return;
  if (again && now == looked_at_) return AskForReload(now ? "the file changed" : "the file cannot be read any more");
  looked_at_ = now;
  look_timer_ = loop_->timers().After(kFileSettles, [this] { LookAtFile(true); });
}

// Files of keys are part of the policy. Certificates have their own watch (TlsFiles),
// but a policy file that was refused because of one is worth another look.
void Server::LookAtNamedFiles(size_t seen) {
  if (leaving_) return;
  const bool changed = key_files_.Changed();
  if (!changed && (policy_.last_reload_ok || !certificate_files_.Changed())) return;
  const size_t now = key_files_.Now();
  if (!changed || now == seen) return AskForReload("a file that it names changed");
  named_timer_ = loop_->timers().After(kFileSettles, [this, now] { LookAtNamedFiles(now); });
}

void Server::AskForReload(const char* why) {
  if (leaving_ || reload_timer_.armed()) return;
  const MonoTime soonest = last_reload_ + kReloadEvery;
  if (loop_->now() >= soonest) return TryReload(why);
  reload_timer_ = loop_->timers().At(soonest, [this, why] { TryReload(why); });
}

void Server::TryReload(const char* why) {
  if (leaving_) return;
  last_reload_ = loop_->now();
  if (live_) Notify(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", loop_->ReadClock()));
  const auto refuse = [&](const std::string& error) {
    policy_.last_reload_ok = false;
    policy_.last_error = error;
    ++policy_.rejected;
    LogError("policy reload ({}) rejected, the last good policy stays: {}", why, InOneLine(error));
    if (live_) Notify("READY=1");
  };
  // None of a file that is not there is worth another look.
  key_files_.Clear(), certificate_files_.Clear();
  absl::StatusOr<std::string> text = seams_.read_file(options_.policy_file);
  policy_text_ = text.ok() ? std::optional(*text) : std::nullopt;
  if (!text.ok()) return refuse(std::string(S(text.status().message())));
  config::ParseResult parsed =
      ParsePolicyText(*text, options_.policy_file, key_files_.Watch(), certificate_files_.Watch());
  if (!parsed.ok()) return refuse(parsed.Messages());
  // Whatever can fail comes first: a file is taken whole or not at all.
  absl::StatusOr<ListenerPlan> plan = PlanListeners(*parsed.config, parsed.where);
  if (!plan.ok()) return refuse(std::string(S(plan.status().message())));
  absl::StatusOr<std::shared_ptr<AccessLog>> log = AccessLogFor(*parsed.config, parsed.where);
  if (!log.ok()) return refuse(std::string(S(log.status().message())));
  if (const absl::Status made = tls_.Use(*parsed.config, loop_->wall_now()); !made.ok()) {
    return refuse(std::string(S(made.message())));
  }
  UseAccessLog(*std::move(log));
  for (const config::Diagnostic& warning : parsed.diagnostics) LogWarn("{}", config::ToString(warning));
  SayWhatNeedsARestart(*parsed.config);
  auto shared = std::make_shared<const config::Config>(*std::move(parsed.config));
  Install(shared);
  Carry(*std::move(plan), *shared);
  KeepCopy();
  LogInfo("policy reload ({}): generation {} is in force", why, policy_.generation);
  if (live_) Notify("READY=1");
}

void Server::KeepCopy() {
  if (options_.last_good.empty()) return;
  const absl::Status kept = KeepLastGood(options_.last_good, *policy_text_);
  if (!kept.ok()) LogWarn("no copy of the policy file was kept: {}", S(kept.message()));
}

// The policy file as it is or, where that cannot be served and there is one, the copy of
// the last one that could.
absl::StatusOr<config::ParseResult> Server::FirstPolicy() {
  absl::StatusOr<std::string> text = seams_.read_file(options_.policy_file);
  config::ParseResult parsed;
  if (text.ok()) {
    policy_text_ = *text;
    parsed = ParsePolicyText(*text, options_.policy_file, key_files_.Watch(), certificate_files_.Watch());
    if (parsed.ok()) return parsed;
  }
  const std::string why = text.ok() ? parsed.Messages() : std::string(S(text.status().message()));
  const absl::Status refused = text.ok() ? absl::InvalidArgumentError(why) : text.status();
  if (options_.last_good.empty()) return refused;
  absl::StatusOr<std::string> copy = seams_.read_file(options_.last_good);
  if (!copy.ok()) return refused;
  // Under the file's own name: what it names lies beside it.
  parsed = ParsePolicyText(*copy, options_.policy_file);
  if (!parsed.ok()) return refused;
  LogError("the policy file cannot be served, and the last good copy of it ({}) is served in its place until it "
           "is mended: {}", options_.last_good, InOneLine(why));
  start_error_ = why;
  return parsed;
}

void Server::SayWhatNeedsARestart(const config::Config& next) const {
  const config::Config& now = *fleet_->config;
  const auto say = [](std::string_view field) {
    LogWarn("policy reload: {} changes with a restart only; a new process can take over (SIGUSR2)", field);
  };
  if (next.server.workers != now.server.workers) say("server.workers");
  if (next.observability.decisions != now.observability.decisions) say("observability.decisions");
}

// The log in use, if it is the one that is asked for.
absl::StatusOr<std::shared_ptr<AccessLog>> Server::AccessLogFor(const config::Config& config,
                                                                const config::Locations& where) const {
  const std::string& target = config.observability.access_log;
  const bool first = fleet_ == nullptr;
  if (!first && target == fleet_->config->observability.access_log) return access_log_;
  if (target == "off") return nullptr;
  auto log = seams_.open_log(target);
  if (!log.ok()) return At(config, where, "observability.access_log", log.status());
  return std::shared_ptr<AccessLog>(*std::move(log));
}

void Server::UseAccessLog(std::shared_ptr<AccessLog> next) {
  if (next == access_log_) {
    if (access_log_ != nullptr) access_log_->Reopen();
    return;
  }
  if (access_log_ != nullptr) old_logs_.push_back(std::move(access_log_));
  access_log_ = std::move(next);
}

// The last one to hold a log waits for its thread, which no worker should.
void Server::DropOldLogs() {
  std::erase_if(old_logs_, [this](const auto& log) {
    if (log.use_count() > 1) return false;
    lines_dropped_ += log->dropped();
    return true;
  });
}

}  // namespace penstock
