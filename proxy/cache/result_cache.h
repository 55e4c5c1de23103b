// The result cache of one policy-file cache: exact, LRU by bytes, with a TTL, and
// the table of flights that identical requests in progress join.
//
// The key is everything that decides an answer: tenant, pool, path with query, the weights'
// identity and the canonical body. It is hashed with XXH3-128 under a seed of the
// process, so that collisions cannot be made from outside, and compared whole.
//
// Threads: any; sharded by key, each shard under a mutex held for a lookup.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/time.h"
#include "proxy/cache/flight.h"

namespace penstock {

struct ResultCacheSettings {
  std::string name;
  uint64_t max_bytes = 256ull << 20;
  uint64_t max_entry_bytes = 1 << 20;  // A longer answer is neither kept nor joined.
  MonoTime ttl = 600 * kSecond;
  bool coalesce = true;
  uint32_t flights_max = 4096;         // Joinable answers in progress; more are not recorded.
  uint32_t readers_max = 1024;         // Joined readers of one flight; more are not joined.
  uint64_t seed = 0;                   // Of the process.
};

struct CacheKeyParts {
  std::string_view tenant;             // All credentials as sent, or empty; only their hash is kept.
  std::string_view pool;
  std::string_view target;             // Path and query.
  uint64_t weights = 0;
  std::string_view canonical_body;
};

class ResultCache {
 public:
  enum class Outcome : uint8_t {
    kHit,      // `flight` is complete.
    kJoined,   // `flight` is in progress under another leader: follow it.
    kLead,     // A miss: send the request and lead `flight`.
    kBypass,   // A table is full: send the request, record nothing.
  };
  struct Ticket {
    Outcome outcome = Outcome::kBypass;
    std::shared_ptr<Flight> flight;
    MonoTime age = 0;                  // For kHit.
    MonoTime ttl = 0;                  // For kHit: what is left of it.
    bool stale = false;                // For kLead: there was an answer, and its time is over.
  };
  struct Stats {
    uint64_t hits = 0, misses = 0, joins = 0, bypasses = 0, stale = 0;
    uint64_t evicted = 0, expired = 0, flushed = 0, too_large = 0;
    uint64_t entries = 0, bytes = 0, flights = 0;
  };

  explicit ResultCache(const ResultCacheSettings& settings);
  ~ResultCache();

  Ticket Open(const CacheKeyParts& key, MonoTime now);
  // The leader's last word on a flight that it got by kLead or was promoted to:
  // complete answers of status 200 are kept if `keep`, anything else is forgotten,
  // unless another reader has just been promoted to lead it.
  void Close(const std::shared_ptr<Flight>& flight, bool keep, MonoTime now);
  void Flush();
  // All but the seed.
  bool SameSettings(const ResultCacheSettings& settings) const;
  const ResultCacheSettings& settings() const { return settings_; }
  Stats stats() const;

 private:
  struct Shard;
  Shard& ShardOf(uint64_t hash) const;
  std::string KeyText(const CacheKeyParts& key) const;

  const ResultCacheSettings settings_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace penstock
