// Active health checks of one backend: a GET at every interval (or a call of gRPC's
// health service, if the path is its), and what its results mean.
//
//   unknown    decided by the first check
//   healthy    `unhealthy_threshold` failures in a row make it unhealthy
//   unhealthy  `healthy_threshold` passes in a row make it healthy
//   down       a refused connection says for certain that nothing listens there, so
//              one is enough; the first other failure makes it unhealthy, passes
//              count as for unhealthy
//
// While a backend is not healthy, and while failures of a healthy one are being
// counted, checks follow each other at a quarter of the interval. CheckNow()
// asks for one at once: a load stream broke or began, or a request met a fault. So a
// killed engine (its stream ends, the check is refused) is out within milliseconds,
// and a stopped one (silent stream, checks time out) within seconds.
//
// A failed check makes a backend a suspect until one passes: it is used last.
//
// Threads: the control loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "config/config.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/backend_dialer.h"
#include "proxy/backends/watch_seams.h"
#include "proxy/http/client.h"

namespace penstock {

enum class CheckResult : uint8_t {
  kPassed,
  kFailed,     // Another status than 200 to 299, or no HTTP.
  kTimedOut,
  kRefused,    // Nothing listens there.
};
inline constexpr size_t kCheckResults = 4;
std::string_view Name(CheckResult result);

// The counting, without the clock or the network.
class HealthCount {
 public:
  explicit HealthCount(const config::HealthCheck& settings);

  // What the backend's health is after one more result.
  Health After(Health health, CheckResult result);
  // A change is under way, and the next result should come soon.
  bool counting() const { return counting_; }

 private:
  uint32_t unhealthy_threshold_;
  uint32_t healthy_threshold_;
  uint32_t failures_ = 0;
  uint32_t passes_ = 0;
  bool counting_ = false;
};

// Checks while it lives. With checks disabled it does nothing.
class HealthChecker {
 public:
  static constexpr MonoTime kSoonest = 100 * kMillisecond;  // Between two checks.

  HealthChecker(const WatchSeams& seams, Backend& backend, const config::HealthCheck& settings,
                config::Protocol protocol = config::Protocol::kAuto);

  // The address is known, or is another one: what was found so far is void.
  void Restart();
  // One check now, unless one is under way or the last began within kSoonest.
  void CheckNow();

 private:
  void Begin();
  void Finish(CheckResult result, std::string_view reason);
  void Schedule();

  const WatchSeams seams_;
  Backend& backend_;
  BackendDialer dialer_;
  const config::HealthCheck settings_;
  const config::Protocol protocol_;
  HealthCount count_;
  MonoTime begun_ = 0;
  TimerQueue::Timer timer_;
  std::unique_ptr<Fetch> fetch_;
};

// What a failed fetch says about its backend.
CheckResult ResultOf(const absl::Status& status);

}  // namespace penstock
