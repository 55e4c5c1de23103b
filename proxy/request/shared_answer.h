// What a request has to do with answers that are kept or shared: see exchange_cache.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "proxy/base/time.h"
#include "proxy/cache/flight.h"

namespace penstock {

enum class CacheUse : uint8_t { kNone, kHit, kJoined, kLead, kBypass };

struct SharedAnswer {
  CacheUse use = CacheUse::kNone;
  std::string_view detail;                // Why it was passed by, or what led to asking a backend.
  std::shared_ptr<Flight> flight;         // That this request leads.
  std::unique_ptr<FlightReader> reader;   // Of one that it follows.
  MonoTime age = 0, ttl = 0;              // Of a hit.
};

}  // namespace penstock
