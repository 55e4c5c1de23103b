// What the admin pages are told of the server: views and posted questions, no
// locks. The answers of several workers are put together on the control thread.
#include <algorithm>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/show.h"
#include "proxy/server.h"

namespace penstock {
namespace {

constexpr size_t kNewestDecisions = 50;

// One question to all workers; the last answer calls `done` on the control loop.
struct Gathering {
  AdminSources::Jsons done;
  std::vector<std::string> found;
  size_t missing = 0;
};

// Oldest first, by the time that each record carries.
void SortByTime(std::vector<std::string>& records) {
  std::vector<std::pair<std::string, std::string>> keyed;
  for (std::string& record : records) {
    const auto parsed = nlohmann::json::parse(record, nullptr, false);
    keyed.emplace_back(parsed.is_object() ? parsed.value("time", "") : "", std::move(record));
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  records.clear();
  for (auto& [time, record] : keyed) records.push_back(std::move(record));
}

}  // namespace

void Server::GatherDecisions(std::string_view request_id, AdminSources::Jsons done) {
  auto gathering = std::make_shared<Gathering>();
  gathering->done = std::move(done);
  gathering->missing = workers_.size();
  const auto answer = [gathering](std::vector<std::string> found) {
    for (std::string& record : found) gathering->found.push_back(std::move(record));
    if (--gathering->missing > 0) return;
    SortByTime(gathering->found);
    gathering->done(std::move(gathering->found));
  };
  for (const auto& worker : workers_) {
    const bool asked = worker->Post([this, answer, id = std::string(request_id)](WorkerContext& context) {
      std::vector<std::string> found;
      if (id.empty()) {
        context.decisions.Newest(kNewestDecisions, found);
      } else {
        context.decisions.Find(id, found);
      }
      loop_->Post([answer, found = std::move(found)]() mutable { answer(std::move(found)); });
    });
    if (!asked) answer({});
  }
}

uint64_t Server::AccessLinesDropped() const {
  uint64_t dropped = lines_dropped_ + (access_log_ != nullptr ? access_log_->dropped() : 0);
  for (const auto& log : old_logs_) dropped += log->dropped();
  return dropped;
}

uint64_t Server::GenerationsAlive() {
  std::erase_if(generations_, [](const auto& generation) { return generation.expired(); });
  return generations_.size();
}

TlsStatus Server::TlsNow() const {
  return {.certificates = tls_.expiries(),
          .accepted = tls_.accepted(),
          .rejected = tls_.rejected(),
          .last_ok = tls_.last_ok()};
}

AdminSources Server::Sources() {
  AdminSources sources;
  sources.fleet = [this] { return fleet_; };
  sources.workers = [this] {
    std::vector<const WorkerMetrics*> out;
    for (const auto& worker : workers_) out.push_back(&worker->metrics());
    return out;
  };
  sources.caches = [this] {
    std::vector<std::shared_ptr<ResultCache>> out;
    for (const auto& [name, cache] : caches_) out.push_back(cache);
    return out;
  };
  sources.policy = [this] {
    PolicyStatus status = policy_;
    status.alive = GenerationsAlive();
    return status;
  };
  sources.tls = [this] { return TlsNow(); };
  sources.overload = [this] {
    OverloadStatus status = overload_.status();
    status.access_lines_dropped = AccessLinesDropped();
    return status;
  };
  sources.config_text = [this] { return config::Show(*fleet_->config); };
  sources.not_ready = [this] { return leaving_ ? std::string("draining") : std::string(); };
  sources.decisions = [this](std::string_view id, AdminSources::Jsons done) {
    GatherDecisions(id, std::move(done));
  };
  return sources;
}

}  // namespace penstock
