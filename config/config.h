// The policy file as plain values: what the file said, defaults applied,
// validated. Immutable after start or reload; shared as shared_ptr<const Config>.
//
// Every field has its unit or type, its default and its effect here, a row in
// docs/policy-file.md and a line in config/example.yaml.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "config/connections.h"
#include "config/forwarding.h"
#include "config/limits.h"
#include "config/listener.h"
#include "config/overload.h"
#include "config/timing.h"
#include "config/tls.h"

namespace penstock::config {

// Where a value stands in the policy file, for messages; line 0: a default.
struct Location {
  int line = 0, column = 0;
};

struct Server {
  std::vector<Listener> listeners;           // At least one; a default one if none is given.
  std::string admin_address = "127.0.0.1:9901";
  uint32_t workers = 0;                      // Event loops; 0 (auto): one per core.
  absl::Duration request_headers_timeout = absl::Seconds(10);
  absl::Duration request_body_idle_timeout = absl::Seconds(30);
  absl::Duration keep_alive_timeout = absl::Seconds(75);   // Idle client connection.
  absl::Duration tls_handshake_timeout = absl::Seconds(10);
  absl::Duration drain_delay = absl::ZeroDuration();       // After SIGTERM: not ready, but serving.
  absl::Duration drain_timeout = absl::Seconds(30);        // After that: whole answers.
  absl::Duration drain_stream_timeout = absl::Seconds(120);  // From the same moment on: streams.
  PathNormalization path_normalization = PathNormalization::kNormalize;
  Forwarding forwarding;
  Limits limits;
  Overload overload;
};

struct LoadBalancing {
  std::string algorithm = "weighted_score";
  // The algorithm's own settings (alpha, beta, ...); checked by the algorithm.
  struct Param {
    std::string key;
    std::string value;
    Location where;
  };
  std::vector<Param> params;
  absl::Duration slow_start = absl::ZeroDuration();  // Ramp of a new or recovered backend.
  absl::Duration decay = absl::Seconds(10);          // tau of the time-to-first-token EWMA.
  Location where;
};

struct HealthCheck {
  bool enabled = true;
  std::string path = "/health";
  absl::Duration interval = absl::Seconds(2);
  absl::Duration timeout = absl::Seconds(1);
  uint32_t unhealthy_threshold = 3;
  uint32_t healthy_threshold = 2;
};

struct CircuitBreaker {
  bool enabled = true;
  uint32_t consecutive_failures = 5;
  double failure_rate_threshold = 0.5;       // Of the last `window`, from minimum_requests on.
  uint32_t minimum_requests = 20;
  absl::Duration window = absl::Seconds(10);
  absl::Duration open_base = absl::Seconds(1);   // Open for open_base * 2^k ...
  absl::Duration open_max = absl::Seconds(30);   // ... up to this, +- 20 %.
  uint32_t half_open_requests = 1;               // Probes side by side.
  uint32_t half_open_successes = 3;              // Successes that close it.
  bool error_events = true;                      // A stream that begins with an error is a failure.
  double max_ejection = 0.3;                     // Share of a pool ejected at most; at least one.
  double panic_threshold = 0.5;                  // Healthy share below which health is ignored.
};

struct Queue {
  uint32_t max = 1024;                       // Requests waiting for a backend with room; 429.
  absl::Duration wait = absl::Seconds(30);   // 429 after that.
};

struct LoadReports {
  bool push = true;                          // Listen to `path` with ?watch=1.
  std::string path = "/load";
  absl::Duration stale = absl::Milliseconds(1500);
  bool orca = true;                          // Read the endpoint-load-metrics header.
  absl::Duration poll = absl::ZeroDuration();  // Poll `path` once an interval; 0: only when push fails.
};

// What happens to a client's Authorization header on the way to a backend.
enum class AuthMode { kPass, kReplace, kRequire };

struct Auth {
  AuthMode mode = AuthMode::kPass;
  std::string key;  // kReplace: sent as "Bearer KEY". From key_file or ${ENV}; never shown.
  std::vector<std::string> keys;  // kRequire: a client must present one of these. From keys_file.
};

struct Backend {
  std::string name;                          // Defaults to the address.
  std::string address;                       // HOST:PORT, [V6]:PORT.
  double weight = 1.0;                       // Above 0.
  uint32_t max_requests = 1024;              // Open there from this proxy; more wait in the queue.
  Location where;
};

struct Model {
  std::string name;
  std::vector<std::string> aliases;
};

struct Pool {
  std::string name;
  std::vector<Model> models;                 // Empty: takes requests by path only.
  std::vector<Backend> backends;
  LoadBalancing load_balancing;
  HealthCheck health_check;
  CircuitBreaker circuit_breaker;
  Timeouts timeouts;
  Retry retry;
  Hedge hedge;
  Queue queue;
  LoadReports load_reports;
  Connections connections;
  BackendTls tls;
  Auth auth;
  std::string cache;                         // Name of a cache; empty: none.
  std::vector<std::string> upgrades;         // Protocols that a client may change to: websocket.
  Location where;
};

// First match wins. Without routes, inference goes by model and everything else
// to the first pool.
struct Route {
  std::string name;
  std::string path;                          // Whole path; empty: path_prefix decides.
  std::string path_prefix;                   // Empty together with `path`: every path.
  std::string model;                         // Empty: any.
  std::string pool;                          // Empty: the pool that has the request's model.
  Location where;
};

struct Cache {
  std::string name;
  uint64_t max_bytes = 256ull * 1024 * 1024;
  uint64_t max_entry_bytes = 1024 * 1024;
  absl::Duration ttl = absl::Minutes(10);
  bool only_deterministic = true;            // Explicit temperature 0 (or top_k 1) and n = 1.
  bool coalesce = true;                      // Join identical requests in flight.
  Location where;
};

struct Observability {
  std::string access_log = "off";            // stdout, off, or a file.
  uint32_t decisions = 4096;                 // Decision records kept, over all workers.
};

struct Config {
  std::string file;                          // As given; for messages.
  uint64_t hash = 0;                         // Of the file's text.
  Server server;
  std::vector<Pool> pools;                   // At least one.
  std::vector<Route> routes;
  std::vector<Cache> caches;
  Observability observability;
};

}  // namespace penstock::config
