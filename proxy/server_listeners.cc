// Listening sockets: made before a policy file is taken, so that one that cannot be
// had refuses it; kept, so that the next process can have them.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/descriptors.h"
#include "proxy/server.h"

namespace penstock {

// `count` sockets of one address: those of the process before, then new ones.
absl::StatusOr<std::vector<ListeningSocket>> Server::OpenSockets(const std::string& text, size_t count) {
  std::vector<ListeningSocket> sockets;
  absl::StatusOr<Address> address = Address::Parse(text);
  if (!address.ok()) return address.status();
  for (const std::string& key : {text, address->text}) {
    if (const auto found = inherited_.find(key); found != inherited_.end()) {
      sockets = std::move(found->second);
      inherited_.erase(found);
      break;
    }
  }
  while (sockets.size() < count) {
    if (!sockets.empty()) address = sockets.front().address();
    // Beside a listener of ours that has the port on another address, and is about to go.
    const bool alone = sockets.empty() && !HoldsPort(address->port());
    absl::StatusOr<ListeningSocket> socket = seams_.open_socket(*address, alone);
    // One that was passed on may share its port with none: its connections are shared.
    if (!socket.ok() && !sockets.empty()) socket = sockets.front().Duplicate();
    if (!socket.ok()) return socket.status();
    sockets.push_back(*std::move(socket));
  }
  return sockets;
}

bool Server::HoldsPort(uint16_t port) const {
  const auto has = [port](const std::vector<ListeningSocket>& sockets) {
    return !sockets.empty() && sockets.front().address().port() == port;
  };
  return std::ranges::any_of(listeners_, [&](const OpenListener& open) { return has(open.sockets); }) ||
         std::ranges::any_of(inherited_, [&](const auto& passed) { return has(passed.second); });
}

absl::StatusOr<Server::ListenerPlan> Server::PlanListeners(const config::Config& config,
                                                           const config::Locations& where) {
  ListenerPlan plan;
  for (size_t i = 0; i < config.server.listeners.size(); ++i) {
    const config::Listener& settings = config.server.listeners[i];
    const auto kept = std::ranges::find_if(listeners_, [&](const OpenListener& open) {
      return open.settings.address == settings.address;
    });
    if (kept != listeners_.end()) {
      plan.kept.push_back(i);
      plan.kept_as.push_back(static_cast<size_t>(kept - listeners_.begin()));
      continue;
    }
    auto sockets = OpenSockets(settings.address, workers_.size());
    if (!sockets.ok()) {
      return At(config, where, fmt::format("server.listeners[{}].address", i), sockets.status());
    }
    plan.fresh.push_back({next_listener_++, settings, *std::move(sockets)});
  }
  const std::string& admin = config.server.admin_address;
  if (fleet_ == nullptr || fleet_->config->server.admin_address != admin) {
    const std::string key = "admin " + admin;
    if (const auto found = inherited_.find(key); found != inherited_.end() && !found->second.empty()) {
      plan.admin = std::move(found->second.front());
      inherited_.erase(found);
    } else {
      auto sockets = OpenSockets(admin, 1);
      if (!sockets.ok()) return At(config, where, "server.admin.address", sockets.status());
      plan.admin = std::move(sockets->front());
    }
  }
  return plan;
}

// REQUIRES: the plan is for this file, which is in force.
void Server::Carry(ListenerPlan plan, const config::Config& config) {
  std::vector<OpenListener> next;
  for (size_t i = 0; i < plan.kept.size(); ++i) {
    OpenListener& open = listeners_[plan.kept_as[i]];
    open.settings = config.server.listeners[plan.kept[i]];
    for (auto& worker : workers_) worker->Change(open.id, open.settings);
    next.push_back({open.id, open.settings, std::move(open.sockets)});
  }
  for (const OpenListener& open : listeners_) {
    if (open.sockets.empty()) continue;  // Kept.
    for (auto& worker : workers_) worker->CloseListener(open.id);
    LogInfo("listener {} on {} is closed; its connections end after their answers", open.settings.name,
            open.settings.address);
  }
  for (OpenListener& fresh : plan.fresh) {
    GiveToWorkers(fresh);
    LogInfo("listener {} on {}://{}", fresh.settings.name,
            fresh.settings.tls.enabled() ? "https" : "http", fresh.sockets.front().address().text);
    next.push_back(std::move(fresh));
  }
  listeners_ = std::move(next);
  PublishTls();
  if (!plan.admin) return;
  admin_socket_ = std::move(plan.admin);
  if (!live_) return;
  if (absl::StatusOr<ListeningSocket> socket = admin_socket_->Duplicate(); socket.ok()) {
    admin_ = Admin::Listen(*loop_, *std::move(socket), Sources());
    LogInfo("admin on http://{}", admin_->address().text);
  }
}

// Each worker gets its own descriptors. One process with fewer workers takes over from
// one with more: the first ones get two sockets, since connections wait in each.
void Server::GiveToWorkers(const OpenListener& listener) {
  for (size_t i = 0; i < workers_.size(); ++i) {
    std::vector<ListeningSocket> own;
    for (size_t k = i; k < listener.sockets.size(); k += workers_.size()) {
      absl::StatusOr<ListeningSocket> socket = listener.sockets[k].Duplicate();
      if (socket.ok()) {
        own.push_back(*std::move(socket));
      } else {
        LogError("listener {}: {}", listener.settings.name, S(socket.status().message()));
      }
    }
    // With its TLS from the first connection on: none may get in without.
    workers_[i]->Listen(listener.id, listener.settings, std::move(own),
                        tls_.OfListener(listener.settings.address));
  }
}

// To new connections: those of clients, and those to backends.
void Server::PublishTls() {
  tls_.GiveTo(*fleet_);
  for (const OpenListener& open : listeners_) {
    for (auto& worker : workers_) worker->SetTls(open.id, tls_.OfListener(open.settings.address));
  }
}

void Server::LimitConnections(const config::Config& config) {
  const uint32_t most = ConnectionsFor(descriptors_, workers_.size());
  const uint32_t wanted = config.server.limits.connections;
  // Nearly enough is enough: not every client has a request at the same moment.
  const bool enough = most >= wanted - wanted / 10;
  totals_.connections_max.store(enough ? wanted : most, std::memory_order_relaxed);
  if (enough) return;
  LogWarn("server.limits.connections is {}, but {} open files allow {} client connections, each with one "
          "to a backend; raise the limit of open files (LimitNOFILE=, ulimit -Hn)",
          wanted, descriptors_, most);
}

}  // namespace penstock
