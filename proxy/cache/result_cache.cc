#include "proxy/cache/result_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace penstock {
namespace {

constexpr size_t kShardsMax = 16;
constexpr size_t kEntryOverhead = 256;  // List and table nodes, the flight itself.

}  // namespace

struct ResultCache::Shard {
  struct Entry {
    std::string key;
    std::shared_ptr<Flight> flight;
    MonoTime stored = 0;
    size_t bytes = 0;
  };
  struct KeyHash {
    uint64_t seed = 0;
    size_t operator()(std::string_view key) const {
      return XXH3_128bits_withSeed(key.data(), key.size(), seed).low64;
    }
  };
  using Lru = std::list<Entry>;  // Most recently used first.

  explicit Shard(uint64_t seed, uint64_t bytes_max_in)
      : bytes_max(bytes_max_in), entries(16, KeyHash{seed}), flights(16, KeyHash{seed}) {}

  void Erase(Lru::iterator entry) {
    counts.bytes -= entry->bytes;
    --counts.entries;
    entries.erase(entry->key);
    lru.erase(entry);
  }
  void ForgetFlight(const std::shared_ptr<Flight>& flight) {
    const auto key = flight_keys.find(flight.get());
    if (key == flight_keys.end()) return;
    flights.erase(key->second);
    flight_keys.erase(key);
  }
  void DropFailedFlights() {
    std::vector<std::shared_ptr<Flight>> failed;
    for (const auto& [key, flight] : flights) {
      if (flight->state() == Flight::State::kFailed) failed.push_back(flight);
    }
    for (const auto& flight : failed) ForgetFlight(flight);
  }

  const uint64_t bytes_max;
  mutable std::mutex mutex;  // Guards everything below.
  Lru lru;
  // Keys are views of Entry::key, and of flight_keys' strings.
  absl::flat_hash_map<std::string_view, Lru::iterator, KeyHash> entries;
  absl::flat_hash_map<std::string, std::shared_ptr<Flight>, KeyHash> flights;
  absl::flat_hash_map<const Flight*, std::string> flight_keys;
  Stats counts;
};

ResultCache::ResultCache(const ResultCacheSettings& settings) : settings_(settings) {
  const uint64_t room = settings.max_bytes / std::max<uint64_t>(8 * settings.max_entry_bytes, 1);
  const size_t count = std::clamp<uint64_t>(room, 1, kShardsMax);
  for (size_t i = 0; i < count; ++i) {
    shards_.push_back(std::make_unique<Shard>(settings.seed, settings.max_bytes / count));
  }
}

ResultCache::~ResultCache() = default;

// The parts, each with its length before it, so that no two keys spell the same.
std::string ResultCache::KeyText(const CacheKeyParts& key) const {
  std::string out;
  out.reserve(64 + key.pool.size() + key.target.size() + key.canonical_body.size());
  const auto put_word = [&out](uint64_t word) {
    char bytes[sizeof word];
    std::memcpy(bytes, &word, sizeof word);
    out.append(bytes, sizeof bytes);
  };
  const XXH128_hash_t tenant =
      XXH3_128bits_withSeed(key.tenant.data(), key.tenant.size(), settings_.seed);
  put_word(tenant.low64);
  put_word(tenant.high64);
  put_word(key.weights);
  for (const std::string_view part : {key.pool, key.target, key.canonical_body}) {
    put_word(part.size());
    out += part;
  }
  return out;
}

ResultCache::Shard& ResultCache::ShardOf(uint64_t hash) const {
  return *shards_[(hash >> 48) % shards_.size()];
}

ResultCache::Ticket ResultCache::Open(const CacheKeyParts& parts, MonoTime now) {
  std::string key = KeyText(parts);
  Shard& shard = ShardOf(Shard::KeyHash{settings_.seed}(key));
  std::lock_guard lock(shard.mutex);
  bool stale = false;
  if (const auto found = shard.entries.find(key); found != shard.entries.end()) {
    const auto entry = found->second;
    const MonoTime age = now - entry->stored;
    if (age < settings_.ttl) {
      ++shard.counts.hits;
      shard.lru.splice(shard.lru.begin(), shard.lru, entry);
      return {Outcome::kHit, entry->flight, age, settings_.ttl - age};
    }
    stale = true;
    ++shard.counts.expired;
    shard.Erase(entry);
  }
  if (const auto found = shard.flights.find(key); found != shard.flights.end()) {
    const std::shared_ptr<Flight> flight = found->second;
    if (flight->state() == Flight::State::kFailed) {
      shard.ForgetFlight(flight);
    } else if (settings_.coalesce && !flight->over_limit()) {
      ++shard.counts.joins;
      return {Outcome::kJoined, flight};
    } else {
      ++shard.counts.bypasses;
      return {};
    }
  }
  const size_t flights_max = std::max<size_t>(settings_.flights_max / shards_.size(), 1);
  if (shard.flights.size() >= flights_max) shard.DropFailedFlights();
  if (shard.flights.size() >= flights_max) {
    ++shard.counts.bypasses;
    return {};
  }
  ++(stale ? shard.counts.stale : shard.counts.misses);
  auto flight = std::make_shared<Flight>(settings_.max_entry_bytes, settings_.readers_max);
  shard.flight_keys[flight.get()] = key;
  shard.flights[std::move(key)] = flight;
  return {.outcome = Outcome::kLead, .flight = flight, .stale = stale};
}

void ResultCache::Close(const std::shared_ptr<Flight>& flight, bool keep, MonoTime now) {
  const Flight::State state = flight->state();
  if (state == Flight::State::kWaiting) return;  // A reader was promoted and leads it now.
  std::shared_ptr<Flight> kept;
  const bool too_large = flight->over_limit();
  if (keep && state == Flight::State::kComplete && flight->status() == 200 && !too_large) {
    kept = flight->Compact();
  }
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    const auto found = shard->flight_keys.find(flight.get());
    if (found == shard->flight_keys.end()) continue;
    Shard::Entry entry{found->second, kept, now, 0};
    shard->ForgetFlight(flight);
    shard->counts.too_large += too_large;
    if (kept == nullptr) return;
    entry.bytes = entry.key.size() + kept->bytes() + kEntryOverhead;
    if (entry.bytes > shard->bytes_max) {
      ++shard->counts.too_large;
      return;
    }
    if (const auto old = shard->entries.find(entry.key); old != shard->entries.end()) {
      shard->Erase(old->second);
    }
    shard->counts.bytes += entry.bytes;
    ++shard->counts.entries;
    shard->lru.push_front(std::move(entry));
    shard->entries[shard->lru.front().key] = shard->lru.begin();
    while (shard->counts.bytes > shard->bytes_max) {
      ++shard->counts.evicted;
      shard->Erase(std::prev(shard->lru.end()));
    }
    return;
  }
}

void ResultCache::Flush() {
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    shard->counts.flushed += shard->lru.size();
    while (!shard->lru.empty()) shard->Erase(shard->lru.begin());
    // Answers in progress were asked for before the flush: nobody joins them any more.
    shard->flights.clear();
    shard->flight_keys.clear();
  }
}

bool ResultCache::SameSettings(const ResultCacheSettings& other) const {
  return settings_.name == other.name && settings_.max_bytes == other.max_bytes &&
         settings_.max_entry_bytes == other.max_entry_bytes && settings_.ttl == other.ttl &&
         settings_.coalesce == other.coalesce;
}

ResultCache::Stats ResultCache::stats() const {
  Stats sum;
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    const Stats& counts = shard->counts;
    sum.hits += counts.hits;
    sum.misses += counts.misses;
    sum.joins += counts.joins;
    sum.bypasses += counts.bypasses;
    sum.stale += counts.stale;
    sum.evicted += counts.evicted;
    sum.expired += counts.expired;
    sum.flushed += counts.flushed;
    sum.too_large += counts.too_large;
    sum.entries += counts.entries;
    sum.bytes += counts.bytes;
    sum.flights += shard->flights.size();
  }
  return sum;
}

}  // namespace penstock
