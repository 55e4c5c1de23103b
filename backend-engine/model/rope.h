// Rotary position embedding: the angles by which pairs of a head's dimensions
// are turned, as tables of cosines and sines.
#pragma once

#include <cstdint>
#include <vector>

#include "backend-engine/model/model_config.h"

namespace penstock::engine {

struct RopeTable {
  std::vector<float> cosines;  // [position][head_dim / 2], times the kind's factor.
  std::vector<float> sines;
};

// Radians a position for each pair. `length`: the longest sequence there will
// be, which the dynamic kind asks for.
std::vector<float> RopeFrequencies(const ModelConfig& config, int64_t length);

// What cosines and sines are multiplied by (yarn; else 1).
double RopeFactor(const RopeConfig& rope);

RopeTable MakeRopeTable(const ModelConfig& config, int64_t positions);

}  // namespace penstock::engine
