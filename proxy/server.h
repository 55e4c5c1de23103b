// The proxy as a whole: reads the policy file, owns the workers and the control
// loop, reloads, hands over, drains and stops. Run() is called on the main thread,
// which becomes the control thread.
//
//   server.cc            start, signals, stop        server_policy.cc    policy files
//   server_listeners.cc  sockets                     server_drain.cc     the end
//   server_takeover.cc   one process after another   server_admin.cc     what admin pages see
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "config/config.h"
#include "proxy/admin/admin.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/control.h"
#include "proxy/cache/result_cache.h"
#include "proxy/net/loop.h"
#include "proxy/overload_watch.h"
#include "proxy/policy_file.h"
#include "proxy/request/access_log.h"
#include "proxy/server_seams.h"
#include "proxy/takeover.h"
#include "proxy/tls_files.h"
#include "proxy/worker.h"

namespace penstock {

struct ServeOptions {
  std::string policy_file;
  std::string last_good;            // Where a copy of the last good policy file is kept; empty: nowhere.
  std::string takeover;             // Unix socket over which a new process takes over; empty: none.
  std::vector<std::string> command; // Our own, for SIGUSR2; empty: no such thing.
};

class Server {
 public:
  Server(ServeOptions options, uint64_t seed, ServerSeams seams = RealSeams());
  ~Server();

  // Binds, starts, serves until SIGTERM or SIGINT and a drain. The error is for
  // the start: what could not be done, where, and what to do.
  absl::Status Run();
  // The start alone, for whoever runs the loops.
  absl::Status Begin();

  // What is in force and in progress; on the control thread.
  std::shared_ptr<const Fleet> fleet() const { return fleet_; }
  const ProcessTotals& totals() const { return totals_; }

 private:
  // A listener of the policy file in force. These descriptors accept nothing: each
  // worker has its own; they are what a new process is given.
  struct OpenListener {
    uint32_t id = 0;
    config::Listener settings;
    std::vector<ListeningSocket> sockets;
  };
  // What a policy file changes about listeners, its sockets made: it can be taken.
  struct ListenerPlan {
    std::vector<OpenListener> fresh;
    std::vector<size_t> kept;                // Places in the new file ...
    std::vector<size_t> kept_as;             // ... of these in listeners_.
    std::optional<ListeningSocket> admin;    // None: it stays where it is.
  };

  // server.cc
  absl::Status Start(config::Config config, const config::Locations& where);
  void MakeWorkers(const config::Config& config);
  bool BackendsKnown() const;
  void Warm();
  void GoLive();
  void WatchSignals();

  // server_listeners.cc
  absl::StatusOr<ListenerPlan> PlanListeners(const config::Config& config, const config::Locations& where);
  absl::StatusOr<std::vector<ListeningSocket>> OpenSockets(const std::string& address, size_t count);
  bool HoldsPort(uint16_t port) const;
  void Carry(ListenerPlan plan, const config::Config& config);
  void GiveToWorkers(const OpenListener& listener);
  void LimitConnections(const config::Config& config);
  void PublishTls();

  // server_policy.cc
  void Install(std::shared_ptr<const config::Config> config);
  std::shared_ptr<Snapshot> MakeSnapshot(uint32_t worker);
  void UpdateCaches(const config::Config& config);
  absl::StatusOr<config::ParseResult> FirstPolicy();
  void KeepCopy();
  void WatchFile();
  void LookAtFile(bool again);
  void LookAtNamedFiles(size_t seen);
  void AskForReload(const char* why);
  void TryReload(const char* why);
  void SayWhatNeedsARestart(const config::Config& next) const;
  absl::StatusOr<std::shared_ptr<AccessLog>> AccessLogFor(const config::Config& config,
                                                          const config::Locations& where) const;
  void UseAccessLog(std::shared_ptr<AccessLog> next);
  void DropOldLogs();

  // server_drain.cc
  void OnTerminate();
  void BeginDrain();
  void StopAccepting(bool handed_over);
  void WatchDrain();

  // server_takeover.cc
  absl::Status Inherit();
  void OfferTakeover();
  void OnTakeoverAsked();
  void SpawnHeir();
  void ServeHeir(TakeoverChannel channel);
  void OnHeirSpoke();
  bool SendKeys();
  void SendOperatorWords();
  void TakeOperatorWords();
  void HandOver();

  // server_admin.cc
  AdminSources Sources();
  TlsStatus TlsNow() const;
  uint64_t GenerationsAlive();
  uint64_t AccessLinesDropped() const;
  void GatherDecisions(std::string_view request_id, AdminSources::Jsons done);

  const ServeOptions options_;
  const ServerSeams seams_;
  Random random_;
  ProcessTotals totals_;
  const std::unique_ptr<Loop> loop_;  // The control thread's.
  std::shared_ptr<AccessLog> access_log_;
  std::vector<std::shared_ptr<AccessLog>> old_logs_;  // Until no worker writes there any more.
  uint64_t lines_dropped_ = 0;        // Of logs that are gone.
  TlsTicketKeys ticket_keys_;         // Outlives every worker's connections.
  TlsFiles tls_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::shared_ptr<const Fleet> fleet_;
  std::map<std::string, std::shared_ptr<ResultCache>> caches_;
  std::unique_ptr<Control> control_;
  OverloadWatch overload_;
  std::unique_ptr<Admin> admin_;
  PolicyStatus policy_;
  std::optional<std::string> policy_text_;  // Of the file that was last read; none: it cannot be.
  std::optional<std::string> looked_at_;    // Of one that may be about to change.
  NamedFiles key_files_;              // Of the one that was last read.
  NamedFiles certificate_files_;      // Likewise.
  std::string start_error_;           // Not empty: why the start was that of the last good copy.
  std::vector<std::weak_ptr<const config::Config>> generations_;
  MonoTime last_reload_ = 0;

  std::vector<OpenListener> listeners_;
  uint32_t next_listener_ = 0;
  std::optional<ListeningSocket> admin_socket_;
  uint64_t descriptors_ = 0;          // That may be open.

  bool live_ = false;                 // Accepts connections.
  MonoTime warm_until_ = 0;
  bool leaving_ = false;              // Not ready: told to end, or handed over.
  bool draining_ = false;             // Accepts no more.
  int terminations_ = 0;
  bool whole_ended_ = false;          // While draining: the time of whole answers is over.
  MonoTime drain_began_ = 0;
  MonoTime drain_told_ = 0;

  // Of the process before: sockets by the address that its policy file calls them by.
  std::map<std::string, std::vector<ListeningSocket>> inherited_;
  std::vector<OperatorWord> inherited_words_;
  TakeoverChannel predecessor_;       // Told once we are live.
  TakeoverChannel offer_;             // Where the next process may ask.
  TakeoverChannel heir_;              // The one that has asked.
  bool heir_fed_ = false;

  TimerQueue::Timer file_timer_, look_timer_, named_timer_, reload_timer_, warm_timer_, drain_timer_;
  std::unique_ptr<Loop::ReadableWatch> offer_watch_, heir_watch_;
  std::vector<std::unique_ptr<Loop::SignalWatch>> signals_;
};

}  // namespace penstock
