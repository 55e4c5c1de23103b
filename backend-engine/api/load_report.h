// What this node says about its load, in the ways it says it: one JSON line
// (GET /load, and each line of the pushed stream) and ORCA's
// endpoint-load-metrics field on answers. All counts are totals of the node.
//
// Plain functions over plain values: who sends them when is load_watch.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backend-engine/exec/engine.h"

namespace penstock::engine {

struct LoadReport {
  uint64_t epoch = 0;     // Changes when the process restarts.
  uint64_t seq = 0;       // Grows with every report made, whoever it is for.
  int64_t age_us = 0;     // Since the figures were read; 0 for a report made of what it reads now.
  std::string model;
  std::string weights;    // Identity of the weights in hexadecimal; empty: not known yet.
  EngineLoad figures;
};

std::string_view Name(NodeState state);

// One line with its end. Figures that were not measured yet are left out: a
// missing figure is not zero.
std::string LoadLine(const LoadReport& report);

enum class OrcaFormat { kText, kJson };

// What the client asks for in endpoint-load-metrics-format: "JSON" in any case, or TEXT.
OrcaFormat OrcaFormatFrom(std::string_view asked);

// The value of endpoint-load-metrics.
std::string OrcaValue(const LoadReport& report, OrcaFormat format);

// True where a reader would choose otherwise for it: more than what time alone changes.
bool WorthTelling(const EngineLoad& told, const EngineLoad& now);

}  // namespace penstock::engine
