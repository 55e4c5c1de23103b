// The admin listener: what is happening, since when and why, and the few things
// that an operator may do about it. Not the data path, and not for clients.
//
//   GET  /                              the links below
//   GET  /metrics                       Prometheus text; docs/metrics.md
//   GET  /livez  /readyz                200 or 503, one word or one reason
//   GET  /backends                      health, breaker, load and last score, JSON
//   GET  /cache  /config                the caches' figures; the policy in force
//   GET  /decisions  /decisions/ID      why requests went where they went
//   POST /backends/POOL/NAME/drain      and undrain
//   POST /backends/POOL/NAME/breaker/open   and close, auto
//   POST /cache/flush                   ?cache=NAME for one
//
// A POST is taken from loopback addresses only, and never with an Origin field: a
// web page must not be able to drain a fleet through somebody's browser. Each is
// logged. Names in a path are percent-decoded.
//
// What is not for everybody to know (all but /metrics, /livez and /readyz) is told only
// where Host is an IP address or localhost: under a name of its own a web page could
// have a browser ask us, and read the answer as the page's (DNS rebinding).
//
// Threads: the control loop's thread; metrics are put together beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/worker_metrics.h"
#include "proxy/cache/result_cache.h"
#include "proxy/http/server.h"
#include "proxy/net/loop.h"

namespace penstock {

// What became of the policy file.
struct PolicyStatus {
  uint64_t hash = 0;
  uint64_t generation = 0;        // 1 from the start, one more with each accepted reload.
  bool last_reload_ok = true;
  std::string last_error;         // Of the last rejected file; empty: none.
  absl::Time accepted_at;
  uint64_t alive = 1;             // Generations that something still uses.
  uint64_t accepted = 0;
  uint64_t rejected = 0;
};

struct CertificateExpiry {
  std::string listener;           // Empty: shown to the backends of `pool`.
  std::string pool;
  std::string name;               // The file, as the policy names it.
  absl::Time not_after;
};

// What became of the certificate files.
struct TlsStatus {
  std::vector<CertificateExpiry> certificates;
  uint64_t accepted = 0;          // Changes of files since the start ...
  uint64_t rejected = 0;
  bool last_ok = true;            // ... and whether what lies on disk is in force.
};

// How the proxy itself is.
struct OverloadStatus {
  uint64_t memory_used = 0;
  uint64_t memory_limit = 0;      // 0: nobody says.
  unsigned level = 0;             // 0: well. docs/metrics.md has the others.
  uint64_t changes = 0;           // Of the level.
  uint64_t access_lines_dropped = 0;
};

// What the admin pages tell and do that others own. All are called on the control
// loop's thread; an empty function leaves its page or its figures out.
struct AdminSources {
  using Jsons = absl::AnyInvocable<void(std::vector<std::string>)>;

  std::function<std::shared_ptr<const Fleet>()> fleet;
  std::function<std::vector<const WorkerMetrics*>()> workers;  // They outlive the Admin.
  std::function<std::vector<std::shared_ptr<ResultCache>>()> caches;
  std::function<PolicyStatus()> policy;
  std::function<TlsStatus()> tls;
  std::function<OverloadStatus()> overload;
  std::function<std::string()> config_text;                    // YAML, secrets masked.
  std::function<std::string()> not_ready;                      // Why; empty: ready.
  // The decision records of one request, or the newest ones for an empty id, each a
  // JSON object; gathered from the workers, so the answer comes later.
  std::function<void(std::string_view request_id, Jsons done)> decisions;
  // The terms of a backend's last score as a JSON object; empty: none.
  std::function<std::string(lb::BackendId)> last_score;
  std::string version = "0.1.0";
  std::string revision = "unknown";
};

class Admin {
 public:
  // The error names the address and what to do.
  static absl::StatusOr<std::unique_ptr<Admin>> Listen(Loop& loop, const Address& address,
                                                       AdminSources sources);
  static std::unique_ptr<Admin> Listen(Loop& loop, ListeningSocket socket, AdminSources sources);
  virtual ~Admin() = default;
  virtual const Address& address() const = 0;
};

// What the pages need of the loop, so that a test can answer requests without one.
struct AdminTime {
  std::function<MonoTime()> now;
  std::function<absl::Time()> wall_now;
  std::function<void(Loop::Task work, Loop::Task done)> offload;
};

// Answers requests; what Admin puts behind its listener.
class AdminPages {
 public:
  AdminPages(AdminSources sources, AdminTime time);

  void Handle(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer);

 private:
  using Answer = std::unique_ptr<HttpAnswer>;

  void Get(const HttpRequest& request, Answer answer);
  void Post(const HttpRequest& request, Answer answer);
  void Metrics(Answer answer);
  void Ready(HttpAnswer& answer);
  void Backends(HttpAnswer& answer);
  void Cache(HttpAnswer& answer);
  void Config(HttpAnswer& answer);
  void Decisions(std::string_view request_id, Answer answer);
  void FlushCache(const HttpRequest& request, HttpAnswer& answer);
  void OperateBackend(const HttpRequest& request, HttpAnswer& answer);

  const AdminSources sources_;
  const AdminTime time_;
};

}  // namespace penstock
