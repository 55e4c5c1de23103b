// The proxy as a whole: reads the policy file, owns the workers and the control
// loop, reloads, drains and stops. Run() is called on the main thread, which
// becomes the control thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "config/config.h"
#include "proxy/admin/admin.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/control.h"
#include "proxy/cache/result_cache.h"
#include "proxy/net/loop.h"
#include "proxy/request/access_log.h"
#include "proxy/tls_files.h"
#include "proxy/worker.h"

namespace penstock {

class Server {
 public:
  Server(std::string policy_file, uint64_t seed);
  ~Server();

  // Binds, starts, serves until SIGTERM or SIGINT and a drain. The error is for
  // the start: what could not be done, where, and what to do.
  absl::Status Run();

 private:
  absl::Status Start(config::Config config);
  absl::Status Bind(const config::Config& config);
  void Install(std::shared_ptr<const config::Config> config);
  void PublishTls();
  TlsStatus TlsNow() const;
  std::shared_ptr<Snapshot> MakeSnapshot(uint32_t worker);
  void UpdateCaches(const config::Config& config);
  void WatchFile();
  void TryReload(const char* why);
  void BeginDrain();
  void WatchDrain();
  AdminSources Sources();
  void GatherDecisions(std::string_view request_id, AdminSources::Jsons done);

  const std::string policy_file_;
  Random random_;
  ProcessTotals totals_;
  const std::unique_ptr<Loop> loop_;  // The control thread's.
  std::unique_ptr<AccessLog> access_log_;
  TlsTicketKeys ticket_keys_;          // Outlives every worker's connections.
  TlsFiles tls_;
  std::vector<std::string> listeners_;  // Their addresses, as the policy file had them at the start.
  std::vector<std::unique_ptr<Worker>> workers_;
  std::shared_ptr<const Fleet> fleet_;
  std::map<std::string, std::shared_ptr<ResultCache>> caches_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<Admin> admin_;
  PolicyStatus policy_;
  std::string policy_text_;           // Of the file that was last looked at.
  bool draining_ = false;
  bool whole_ended_ = false;     // While draining: the time of whole answers is over.
  MonoTime drain_began_ = 0;
  TimerQueue::Timer file_timer_, drain_timer_;
  std::vector<std::unique_ptr<Loop::SignalWatch>> signals_;
};

}  // namespace penstock
