#include <algorithm>
#include <utility>

#include "proxy/backends/backend.h"

namespace penstock {
namespace {

// Under other TLS settings it is another backend: what was found out about the old one,
// and connections to it, are nothing to go by.
std::shared_ptr<Backend> FindBackend(const Fleet& fleet, const config::Pool& pool,
                                     const config::Backend& settings) {
  for (const auto& candidate : fleet.pools) {
    if (candidate->settings.name != pool.name || candidate->settings.tls != pool.tls) continue;
    for (const auto& backend : candidate->backends) {
      if (backend->name == settings.name && backend->authority == settings.address) return backend;
    }
  }
  return nullptr;
}

const PoolState* FindPool(const Fleet& fleet, std::string_view name) {
  for (const auto& pool : fleet.pools) {
    if (pool->settings.name == name) return pool.get();
  }
  return nullptr;
}

}  // namespace

Backend::Backend(lb::BackendId id, std::string_view pool, const config::Backend& settings)
    : id(id), pool(pool), name(settings.name.empty() ? settings.address : settings.name),
      authority(settings.address) {
  if (auto address = Address::Parse(authority); address.ok()) address_ = *std::move(address);
}

Address Backend::address() const {
  const std::lock_guard lock(mutex_);
  return address_;
}

void Backend::SetAddress(const Address& address) {
  const std::lock_guard lock(mutex_);
  address_ = address;
  moves_.fetch_add(1, std::memory_order_release);
}

std::string Backend::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

void Backend::SetTrouble(std::string_view why) {
  const std::lock_guard lock(mutex_);
  trouble_ = why;
}

std::shared_ptr<const TlsTarget> Backend::tls() const {
  const std::lock_guard lock(mutex_);
  return tls_;
}

void Backend::SetTls(std::shared_ptr<const TlsTarget> target) const {
  const std::lock_guard lock(mutex_);
  tls_.swap(target);
}

bool PoolState::Drained() const {
  return std::ranges::all_of(backends, [](const auto& backend) { return backend->state.drained.load(); });
}

size_t PoolState::Ejected() const {
  return static_cast<size_t>(std::ranges::count_if(backends, [](const auto& backend) {
    return backend->state.breaker.view().state != BreakerState::kClosed;
  }));
}

bool PoolState::MayEject() const {
  const double share = settings.circuit_breaker.max_ejection;
  const auto most = static_cast<size_t>(share * static_cast<double>(backends.size()) + 1e-9);
  return Ejected() < std::max<size_t>(1, most);
}

bool WrongModel(const config::Pool& pool, const LoadReport& report) {
  const std::string_view said = report.model;
  if (!report.known() || said.empty() || pool.models.empty()) return false;
  const auto is = [&](const std::string& name) {
    return std::string_view(name).substr(0, LoadReport::kModelBytes - 1) == said;
  };
  return std::ranges::none_of(pool.models, [&](const config::Model& model) {
    return is(model.name) || std::ranges::any_of(model.aliases, is);
  });
}

std::shared_ptr<const Fleet> MakeFleet(std::shared_ptr<const config::Config> config,
                                       const Fleet* previous) {
  auto fleet = std::make_shared<Fleet>();
  fleet->config = std::move(config);
  if (previous != nullptr) fleet->next_id = previous->next_id;
  for (const config::Pool& settings : fleet->config->pools) {
    auto pool = std::make_shared<PoolState>();
    pool->settings = settings;
    if (previous != nullptr) {
      if (const PoolState* before = FindPool(*previous, settings.name)) {
        pool->weights.store(before->weights.load());
      }
    }
    for (const config::Backend& backend : settings.backends) {
      std::shared_ptr<Backend> carried;
      if (previous != nullptr) carried = FindBackend(*previous, settings, backend);
      if (!carried) carried = std::make_shared<Backend>(fleet->next_id++, settings.name, backend);
      pool->backends.push_back(std::move(carried));
    }
    fleet->pools.push_back(std::move(pool));
  }
  return fleet;
}

}  // namespace penstock
