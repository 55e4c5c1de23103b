#include "config/validate.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "proxy/base/ip.h"
#include "proxy/base/suggest.h"

namespace penstock::config {
namespace {

struct HostPort {
  std::string_view host;
  std::string_view port;
};

HostPort Split(std::string_view address) {
  const size_t colon = address.rfind(':');
  return {address.substr(0, colon), address.substr(colon + 1)};
}

bool IsEveryAddress(std::string_view host) { return host == "0.0.0.0" || host == "[::]"; }

bool IsLoopback(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host.substr(0, 4) == "127.";
}

// Whether a connection to `address` arrives at `listener`, as far as the text tells.
bool Reaches(const HostPort& address, const HostPort& listener) {
  if (address.port != listener.port || listener.port == "0") return false;
  return address.host == listener.host ||
         (IsEveryAddress(listener.host) &&
          (IsLoopback(address.host) || IsEveryAddress(address.host))) ||
         (address.host == "localhost" && IsLoopback(listener.host));
}

// RFC 9110 5.6.2, without what only makes names hard to read.
bool IsToken(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_';
  });
}

class Validator {
 public:
  Validator(const Config& config, const Locations& where, std::vector<Diagnostic>& diagnostics)
      : config_(config), where_(where), diagnostics_(diagnostics) {}

  void Check() {
    CheckServer();
    CheckNames("server.listeners", config_.server.listeners);
    CheckNames("pools", config_.pools);
    CheckNames("routes", config_.routes);
    CheckNames("caches", config_.caches);
    if (config_.pools.empty()) Error("pools", "is empty; a proxy needs a pool to send requests to");
    for (size_t i = 0; i < config_.pools.size(); ++i) {
      CheckPool(config_.pools[i], fmt::format("pools[{}]", i));
    }
    CheckModels();
    for (size_t i = 0; i < config_.routes.size(); ++i) CheckRoute(i);
    CheckUse();
    for (size_t i = 0; i < config_.caches.size(); ++i) {
      const Cache& cache = config_.caches[i];
      if (cache.max_entry_bytes > cache.max_bytes) {
        Error(fmt::format("caches[{}].max_entry_bytes", i), "is more than max_bytes");
      }
    }
  }

 private:
  void Say(const std::string& path, std::string message, bool warning) {
    Add(diagnostics_, {.where = Find(where_, path),
                       .path = path,
                       .message = std::move(message),
                       .warning = warning});
  }
  void Error(const std::string& path, std::string message) { Say(path, std::move(message), false); }
  void Warn(const std::string& path, std::string message) { Say(path, std::move(message), true); }

  int LineOf(const std::string& path) const { return Find(where_, path).line; }

  template <typename Named>
  void CheckNames(const std::string& list, const std::vector<Named>& named) {
    absl::flat_hash_map<std::string, size_t> seen;
    for (size_t i = 0; i < named.size(); ++i) {
      const auto [first, is_new] = seen.emplace(named[i].name, i);
      if (is_new) continue;
      Error(fmt::format("{}[{}].name", list, i),
            fmt::format("\"{}\" is taken by {}[{}] on line {}", named[i].name, list, first->second,
                        LineOf(fmt::format("{}[{}]", list, first->second))));
    }
  }

  void CheckProtocols(const std::vector<std::string>& protocols, const std::string& path) {
    if (protocols.empty()) Error(path, "is empty; http1 or http2, or both");
    for (size_t i = 0; i < protocols.size(); ++i) {
      const std::string& name = protocols[i];
      if (name != "http1" && name != "http2") {
        Error(fmt::format("{}[{}]", path, i),
              fmt::format("unknown protocol \"{}\"; http1 or http2", name));
      } else if (std::find(protocols.begin(), protocols.begin() + static_cast<long>(i), name) !=
                 protocols.begin() + static_cast<long>(i)) {
        Error(fmt::format("{}[{}]", path, i), fmt::format("\"{}\" stands there twice", name));
      }
    }
  }

  void CheckServer() {
    const Server& server = config_.server;
    std::vector<std::pair<std::string, HostPort>> taken;
    taken.emplace_back("server.admin.address", Split(server.admin_address));
    for (size_t i = 0; i < server.listeners.size(); ++i) {
      const std::string path = fmt::format("server.listeners[{}].address", i);
      const HostPort address = Split(server.listeners[i].address);
      for (const auto& [other, other_address] : taken) {
        if (!Reaches(address, other_address) && !Reaches(other_address, address)) continue;
        Error(path, fmt::format("\"{}\" is already listened on by {}", server.listeners[i].address,
                                other));
      }
      taken.emplace_back(path, address);
      CheckProtocols(server.listeners[i].protocols, fmt::format("server.listeners[{}].protocols", i));
    }
    for (size_t i = 0; i < server.listeners.size(); ++i) {
      CheckListenerTls(server.listeners[i].tls, fmt::format("server.listeners[{}].tls", i));
    }
    for (size_t i = 0; i < server.listeners.size(); ++i) CheckProxyProtocol(i);
    CheckForwarding();
    CheckOverload(server.overload);
    const Limits& limits = server.limits;
    if (limits.request_line_bytes > limits.header_bytes) {
      Error("server.limits.request_line_bytes",
            "is more than header_bytes, which the request line counts towards");
    }
    if (limits.request_body > limits.buffered_bytes) {
      Error("server.limits.request_body", "is more than buffered_bytes, so no such body would fit");
    }
    if (server.drain_stream_timeout < server.drain_timeout) {
      Error("server.timeouts.drain_streams",
            "is less than drain; everything is cut then, whole answers too, which have until drain");
    }
  }

  void CheckListenerTls(const ListenerTls& tls, const std::string& path) {
    const bool asks = tls.client_certificates != ClientCertificateMode::kOff;
    if (!tls.enabled() && where_.contains(path)) Error(path + ".certificates", "is empty; TLS needs a certificate");
    if (asks && tls.client_ca_file.empty()) {
      Error(path + ".client_certificates", "needs client_ca_file: who signs the certificates of clients?");
    }
    if (!asks && !tls.client_ca_file.empty()) {
      Error(path + ".client_ca_file",
            "is only used with client_certificates: optional or required; without it every client is let in");
    }
  }

  void CheckBackendTls(const BackendTls& tls, const std::string& path) {
    const auto at = [&](std::string_view field) { return Origin(path, fmt::format(".tls.{}", field)); };
    if (tls.cert_file.empty() != tls.key_file.empty()) {
      Once(at(tls.cert_file.empty() ? "key_file" : "cert_file"),
           "cert_file and key_file belong together; give both", false);
    }
    const bool told = where_.contains(path + ".tls.enabled") || where_.contains("defaults.tls.enabled");
    if (!tls.enabled && !told && tls != BackendTls{}) {
      Once(Origin(path, ".tls"), "has settings, but TLS is off; add enabled: true", false);
    }
    if (tls.enabled && tls.insecure_skip_verify) {
      Once(at("insecure_skip_verify"),
           "whoever answers at a backend's address is believed and reads every prompt; give ca_file instead",
           true);
    }
  }

  void CheckRanges(const std::string& path, const std::vector<std::string>& ranges) {
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (ParseIpRange(ranges[i])) continue;
      Error(fmt::format("{}[{}]", path, i),
            fmt::format("\"{}\" is no address and no range of them; write 10.0.0.7, 10.0.0.0/8 or "
                        "fd00::/8, with no bits set beyond the prefix", ranges[i]));
    }
  }

  void CheckProxyProtocol(size_t index) {
    const Listener& listener = config_.server.listeners[index];
    const std::string path = fmt::format("server.listeners[{}].proxy_protocol_from", index);
    CheckRanges(path, listener.proxy_protocol_from);
    if (listener.proxy_protocol == ProxyProtocol::kOff && !listener.proxy_protocol_from.empty()) {
      Error(path, "is only used with proxy_protocol: required");
    }
  }

  void CheckForwarding() {
    const Forwarding& forwarding = config_.server.forwarding;
    const std::string path = "server.forwarding";
    CheckRanges(path + ".xff_trusted_cidrs", forwarding.xff_trusted_cidrs);
    if (!forwarding.xff_trusted_cidrs.empty() && forwarding.xff_num_trusted_hops > 0) {
      Error(path + ".xff_num_trusted_hops",
            "and xff_trusted_cidrs are two ways to say whom to trust; leave one out");
    }
    if (!forwarding.xff_trusted_cidrs.empty() && !forwarding.use_remote_address) {
      Error(path + ".use_remote_address", "false trusts every peer, yet xff_trusted_cidrs names some");
    }
    if (!IsToken(forwarding.via)) {
      Error(path + ".via", fmt::format("\"{}\" is no name; write letters, digits, - and .", forwarding.via));
    }
    for (size_t i = 0; i < forwarding.internal_only_headers.size(); ++i) {
      std::string_view name = forwarding.internal_only_headers[i];
      if (!name.empty() && name.back() == '*') name.remove_suffix(1);
      if (!name.empty() && IsToken(name)) continue;
      Error(fmt::format("{}.internal_only_headers[{}]", path, i),
            fmt::format("\"{}\" is neither a field's name nor the beginning of one and *", name));
    }
  }

  void CheckUpgrades(const Pool& pool, const std::string& path) {
    if (!pool.upgrades.empty() && pool.connections.protocol == Protocol::kHttp2) {
      Error(path + ".upgrades", "need HTTP/1 to the backends, yet connections.protocol is http2");
    }
    for (size_t i = 0; i < pool.upgrades.size(); ++i) {
      if (pool.upgrades[i] == "websocket") continue;
      Error(fmt::format("{}.upgrades[{}]", path, i),
            fmt::format("\"{}\" cannot be passed on; the only protocol to change to is websocket",
                        pool.upgrades[i]));
    }
  }

  // Each step is more than the one before: what costs clients most comes last.
  void CheckOverload(const Overload& overload) {
    const std::pair<std::string_view, double> steps[] = {
        {"shorten_idle", overload.shorten_idle},
        {"close_after_answer", overload.close_after_answer},
        {"reject_requests", overload.reject_requests},
        {"stop_accepting", overload.stop_accepting}};
    for (size_t i = 1; i < std::size(steps); ++i) {
      if (steps[i].second >= steps[i - 1].second) continue;
      Error(fmt::format("server.overload.{}", steps[i].first),
            fmt::format("is less than {}, which costs clients less and comes first", steps[i - 1].first));
    }
    if (overload.loop_delay_full < overload.loop_delay_from) {
      Error("server.overload.loop_delay_full", "is less than loop_delay_from");
    }
  }

  void CheckPool(const Pool& pool, const std::string& path) {
    CheckUpgrades(pool, path);
    if (pool.backends.empty()) Error(path + ".backends", "is empty; a pool needs a backend");
    CheckNames(path + ".backends", pool.backends);
    absl::flat_hash_map<std::string, size_t> addresses;
    for (size_t i = 0; i < pool.backends.size(); ++i) {
      const Backend& backend = pool.backends[i];
      const std::string at = fmt::format("{}.backends[{}].address", path, i);
      const auto [first, is_new] = addresses.emplace(backend.address, i);
      // A backend without a name is named after its address: that is said above.
      if (!is_new && backend.name != pool.backends[first->second].name) {
        Error(at, fmt::format("\"{}\" is taken by {}.backends[{}]", backend.address, path,
                              first->second));
      }
      CheckIsNotOurs(Split(backend.address), at);
    }
    if (!pool.cache.empty()) CheckExists(path + ".cache", "cache", pool.cache, config_.caches);
    CheckTimes(pool, path);
    CheckBackendTls(pool.tls, path);
    CheckAuth(pool.auth, path + ".auth");
  }

  void CheckIsNotOurs(const HostPort& address, const std::string& path) {
    const auto complain = [&](std::string_view listener) {
      Error(path,
            fmt::format("\"{}:{}\" is this proxy itself ({}); requests would go round for ever",
                        address.host, address.port, listener));
    };
    for (const Listener& listener : config_.server.listeners) {
      if (Reaches(address, Split(listener.address))) complain(listener.name);
    }
    if (Reaches(address, Split(config_.server.admin_address))) complain("admin");
  }

  // Pool fields may stand in `defaults`; the message goes where the value stands.
  std::string Origin(const std::string& pool, const std::string& field) const {
    if (where_.contains(pool + field) || !where_.contains("defaults" + field)) return pool + field;
    return "defaults" + field;
  }

  void CheckTimes(const Pool& pool, const std::string& path) {
    const HealthCheck& health = pool.health_check;
    if (health.enabled && health.timeout > health.interval) {
      Once(Origin(path, ".health_check.timeout"), "is more than the interval; checks would overlap",
           false);
    }
    const CircuitBreaker& breaker = pool.circuit_breaker;
    if (breaker.open_base > breaker.open_max) {
      Once(Origin(path, ".circuit_breaker.open_base"), "is more than open_max", false);
    }
    if (pool.load_reports.push && pool.load_reports.stale < absl::Milliseconds(500)) {
      Once(
          Origin(path, ".load_reports.stale"),
          "is below 500ms, the slowest beat of an engine's reports; idle engines would seem silent",
          true);
    }
  }

  void Once(const std::string& path, std::string message, bool warning) {
    if (said_.insert(path).second) Say(path, std::move(message), warning);
  }

  void CheckAuth(const Auth& auth, const std::string& path) {
    if (auth.mode == AuthMode::kReplace && auth.key.empty()) {
      Error(path, "mode replace needs a key; give key_file, or key: ${NAME}");
    }
    if (auth.mode == AuthMode::kRequire && auth.keys.empty()) {
      Error(path, "mode require needs keys; give keys_file");
    }
    if (auth.mode != AuthMode::kReplace && !auth.key.empty()) {
      Error(path, "a key is only sent with mode: replace");
    }
    if (auth.mode != AuthMode::kRequire && !auth.keys.empty()) {
      Error(path, "keys_file is only used with mode: require");
    }
  }

  template <typename Named>
  void CheckExists(const std::string& path, std::string_view what, const std::string& name,
                   const std::vector<Named>& named) {
    std::vector<std::string_view> names;
    for (const Named& one : named) names.push_back(one.name);
    if (std::find(names.begin(), names.end(), name) != names.end()) return;
    const std::string_view nearest = Nearest(name, names);
    std::string cure =
        names.empty() ? "there is none" : fmt::format("known: {}", fmt::join(names, ", "));
    if (!nearest.empty()) cure = fmt::format("did you mean \"{}\"?", nearest);
    Error(path, fmt::format("no {} is named \"{}\"; {}", what, name, cure));
  }

  void CheckModels() {
    for (size_t p = 0; p < config_.pools.size(); ++p) {
      for (size_t m = 0; m < config_.pools[p].models.size(); ++m) {
        const Model& model = config_.pools[p].models[m];
        const std::string path = fmt::format("pools[{}].models[{}]", p, m);
        CheckModelName(path + ".name", model.name);
        for (size_t a = 0; a < model.aliases.size(); ++a) {
          CheckModelName(fmt::format("{}.aliases[{}]", path, a), model.aliases[a]);
        }
      }
    }
  }

  void CheckModelName(const std::string& path, const std::string& name) {
    const auto [first, is_new] = models_.emplace(name, path);
    if (is_new) return;
    Error(path,
          fmt::format("model \"{}\" is already served by {} on line {}; one model has one pool",
                      name, first->second, LineOf(first->second)));
  }

  void CheckRoute(size_t index) {
    const Route& route = config_.routes[index];
    const std::string path = fmt::format("routes[{}]", index);
    if (!route.path.empty() && !route.path_prefix.empty()) {
      Error(path + ".match", "has both path and path_prefix; leave one out");
    }
    if (!route.pool.empty()) CheckExists(path + ".pool", "pool", route.pool, config_.pools);
    if (route.pool.empty() && !route.model.empty() && !models_.contains(route.model)) {
      std::vector<std::string_view> names;
      for (const auto& [name, at] : models_) names.push_back(name);
      const std::string_view nearest = Nearest(route.model, names);
      Error(path + ".match.model",
            fmt::format("no pool serves the model \"{}\"{}", route.model,
                        nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest)));
    }
    for (size_t earlier = 0; earlier < index; ++earlier) {
      if (!Shadows(config_.routes[earlier], route)) continue;
      Warn(path,
           fmt::format("is never reached: routes[{}] ({}, line {}) takes all its requests", earlier,
                       config_.routes[earlier].name, LineOf(fmt::format("routes[{}]", earlier))));
      break;
    }
  }

  void CheckUse() {
    absl::flat_hash_set<std::string> pools;
    absl::flat_hash_set<std::string> caches;
    for (const Route& route : config_.routes) pools.insert(route.pool);
    for (size_t i = 0; i < config_.pools.size(); ++i) {
      const Pool& pool = config_.pools[i];
      caches.insert(pool.cache);
      const bool first = i == 0 && config_.routes.empty();
      if (!first && pool.models.empty() && !pools.contains(pool.name)) {
        Warn(fmt::format("pools[{}]", i),
             fmt::format("no request reaches \"{}\": no route names it and it has no models",
                         pool.name));
      }
    }
    for (size_t i = 0; i < config_.caches.size(); ++i) {
      if (caches.contains(config_.caches[i].name)) continue;
      Warn(fmt::format("caches[{}]", i),
           fmt::format("no pool uses the cache \"{}\"", config_.caches[i].name));
    }
  }

  const Config& config_;
  const Locations& where_;
  std::vector<Diagnostic>& diagnostics_;
  std::map<std::string, std::string> models_;  // Name: where it was first given.
  std::set<std::string> said_;
};

}  // namespace

bool Shadows(const Route& earlier, const Route& later) {
  if (!earlier.model.empty() && earlier.model != later.model) return false;
  // By model: requests for no known model go on to the next route.
  if (earlier.pool.empty() && earlier.model.empty() && !later.pool.empty()) return false;
  if (!earlier.path.empty()) return earlier.path == later.path;
  if (earlier.path_prefix.empty()) return true;
  const std::string& path = later.path.empty() ? later.path_prefix : later.path;
  return path.compare(0, earlier.path_prefix.size(), earlier.path_prefix) == 0;
}

void Validate(const Config& config, const Locations& where, std::vector<Diagnostic>& diagnostics) {
  Validator(config, where, diagnostics).Check();
}

}  // namespace penstock::config
