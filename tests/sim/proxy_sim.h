// The whole proxy in simulated time: the real server, its control loop and its workers,
// between clients and backends that do by chance whatever such peers do, while
// connections break, policies change, memory runs short, an operator interferes and, at
// last, the work is finished or the process is told to end. One thread, one seed: the
// same seed is the same run. Checked after each step and at the end; see docs/testing.md.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "proxy/http/client.h"
#include "proxy/server.h"
#include "tests/sim/backend.h"
#include "tests/sim/client.h"
#include "tests/sim/policy.h"

namespace penstock::sim {

class ProxySim {
 public:
  explicit ProxySim(uint64_t seed);
  ~ProxySim();

  void Run();
  uint64_t digest() const { return ledger_.digest(); }
  size_t asked() const { return ledger_.asked(); }

 private:
  // proxy_sim.cc: what happens
  ServerSeams Seams();
  void Step();
  void AskOne();
  void Connect(Asked& asked, const Sending& sending, const std::string& door);
  void Interfere();
  void BreakSomething();
  void Reload();
  void Advance(MonoTime time);
  template <typename T>
  T& Any(std::vector<T>& of) { return of[random_.Below(static_cast<uint32_t>(of.size()))]; }
  void OverEvery(const std::function<void(Client&)>& what);
  void Fetch(std::string method, std::string target, std::function<void(std::string)> done);
  std::string Metrics();

  // proxy_sim_end.cc: what must hold
  void CheckStep();
  void Finish();
  void Terminate();
  void Calm();
  void CheckServes();
  void CheckAtRest();
  void CheckDecisions();
  void CheckNothingLeft();

  Random random_;
  MemoryNetwork network_;
  ManualLoop loop_{network_};         // Of everybody but the proxy.
  Ledger ledger_;
  Outside outside_{network_, loop_, ledger_, random_};
  Policy policy_;
  std::string text_;                  // What the policy file says.
  uint64_t memory_used_ = 0;
  std::vector<ManualLoop*> loops_;    // The proxy's: the control loop, then the workers'.
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::list<std::unique_ptr<Dialer::Pending>> dials_;
  std::list<std::unique_ptr<penstock::Fetch>> fetches_;
  std::unique_ptr<Server> server_;
  bool forced_ = false;               // An operator has held a breaker.
};

inline constexpr const char* kPublic = "127.0.0.1:8080";
inline constexpr const char* kSide = "127.0.0.1:8081";
inline constexpr const char* kAdmin = "127.0.0.1:9901";

}  // namespace penstock::sim
