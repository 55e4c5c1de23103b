// The result cache of one policy-file cache: exact, LRU by bytes, with a TTL, and
// the table of flights that identical requests in progress join.
//
// Threads: any; sharded by key, each shard under a mutex held for a lookup.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/time.h"
#include "proxy/cache/flight.h"

namespace penstock {

struct ResultCacheSettings {
  std::string name;
  uint64_t max_bytes = 256ull << 20;
  uint64_t max_entry_bytes = 1 << 20;
  MonoTime ttl = 600 * kSecond;
  bool coalesce = true;
  uint32_t flights_max = 4096;         // Joinable answers in progress; more are not joined.
  uint32_t readers_max = 1024;         // Joined readers of one flight; more are not joined.
  uint64_t seed = 0;                   // Of the process: keys cannot be made to collide from outside.
};

// What makes two requests the same. Views; see design notes in cache_key.cc.
struct CacheKeyParts {
  std::string_view tenant;             // The credential as sent, or empty; only its hash is kept.
  std::string_view pool;
  std::string_view path;
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
  };
  struct Stats {
    uint64_t hits = 0, misses = 0, joins = 0, bypasses = 0, stale = 0;
    uint64_t evictions_size = 0, evictions_ttl = 0, flushed = 0, rejected_too_large = 0;
    uint64_t entries = 0, bytes = 0, max_bytes = 0, flights = 0;
  };

  static std::unique_ptr<ResultCache> Create(const ResultCacheSettings& settings);
  virtual ~ResultCache() = default;

  virtual Ticket Open(const CacheKeyParts& key, MonoTime now) = 0;
  // The leader's last word on a flight that it got by kLead (or was promoted to):
  // complete ones of status 200 are kept, anything else is forgotten.
  virtual void Close(const std::shared_ptr<Flight>& flight, MonoTime now) = 0;
  virtual void Flush() = 0;
  virtual Stats stats() const = 0;
};

}  // namespace penstock
