// An engine that we may send to, the pool that it belongs to, and the fleet of
// all pools. Identity and settings are fixed; what changes (load, latency,
// health, breaker) is in atomic words that workers and the control thread share.
//
// A fleet is an immutable snapshot made from one policy file; a backend with the
// same pool, name, address and TLS settings is carried over to the next snapshot,
// state and all; its other settings (weight, limits) are the pool's and may differ
// between snapshots.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "lb-policies/policy.h"
#include "proxy/backends/backend_state.h"
#include "proxy/base/time.h"
#include "proxy/net/address.h"
#include "proxy/net/tls_client_context.h"

namespace penstock {

struct Backend {
  Backend(lb::BackendId id, std::string_view pool, const config::Backend& settings);

  const lb::BackendId id;
  const std::string pool;
  const std::string name;
  const std::string authority;    // HOST:PORT as the policy file spells it.

  // Where to dial: fixed for IP addresses, refreshed by the control thread for
  // names. Empty text: not resolved yet. Any thread.
  Address address() const;
  void SetAddress(const Address& address);
  // How often it has moved: what was connected at another count leads to where it was.
  // Whoever reads it before address() holds a count that is never too new. Any thread.
  uint32_t moves() const { return moves_.load(std::memory_order_acquire); }

  // How to speak TLS there; null: not at all. Replaced when files change. Any thread.
  std::shared_ptr<const TlsTarget> tls() const;
  void SetTls(std::shared_ptr<const TlsTarget> target) const;

  // Why it was last found to be unwell, in the words of the log; empty: it is well, or
  // nobody has asked. Any thread.
  std::string trouble() const;
  void SetTrouble(std::string_view why);

  mutable BackendState state;     // Shared, atomic: see backend_state.h.

 private:
  mutable std::mutex mutex_;      // Guards the three below.
  Address address_;
  std::string trouble_;
  mutable std::shared_ptr<const TlsTarget> tls_;
  std::atomic<uint32_t> moves_{0};
};

// PoolState::weights when the ready backends report different weights: answers
// of one must not be taken for answers of another.
inline constexpr uint64_t kWeightsDisagree = ~uint64_t{0};

struct PoolState {
  config::Pool settings;                           // backends[i] holds the settings of ...
  std::vector<std::shared_ptr<Backend>> backends;  // ... backends[i] here.
  // Hash of the weights that the ready backends report; 0: none is known; or kWeightsDisagree.
  mutable std::atomic<uint64_t> weights{0};
  // Held from asking MayEject() to opening a breaker, so that two threads do not
  // both take the last place. Around a reload the old and the new snapshot may each
  // let one go; counting breakers afresh each time keeps that from adding up.
  mutable std::mutex eject_mutex;

  // Requests of all workers that wait for a backend with room.
  mutable std::atomic<uint32_t> queued{0};

  bool Drained() const;           // All of it, by operators.
  // Breakers that are not closed.
  size_t Ejected() const;
  // Whether one more may be: at most max(1, max_ejection of the pool).
  bool MayEject() const;
};

// Whether an engine says that it serves what its pool does not list: somebody has put it
// into the wrong pool, or started it with the wrong weights.
bool WrongModel(const config::Pool& pool, const LoadReport& report);

struct Fleet {
  std::shared_ptr<const config::Config> config;
  std::vector<std::shared_ptr<const PoolState>> pools;  // In the order of the file.
  lb::BackendId next_id = 1;                            // For the first new backend of the next one.
};

// Builds the fleet of `config`, carrying over what `previous` (may be null) has
// in common with it. Backend ids are never reused in a process.
std::shared_ptr<const Fleet> MakeFleet(std::shared_ptr<const config::Config> config,
                                       const Fleet* previous);

}  // namespace penstock
