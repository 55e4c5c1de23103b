// The whole engine, with random weights of the right shapes.
#pragma once

#include "tests/gpu/speed.h"

namespace penstock::engine {

// From nothing to the first token; decode steps of several batches, made as the engine makes
// them (the next is queued while one runs); what a step takes beyond its GPU's time; a
// long prompt.
void MeasureEngine(const SpeedSizes& sizes, const SpeedSizes::Model& model, Report& report);

// What the ways of summing over ranks take, as the engine measures them at its start: of
// virtual ranks on one GPU, and of all GPUs where there are several.
void MeasureSums(const SpeedSizes& sizes, int gpus, Report& report);

}  // namespace penstock::engine
