// A packed step on its way from the process that planned it to the others, whose
// ranks compute it, too: what the model needs of it, and nothing of what chooses
// tokens, which rank 0 alone does.
//
// Whoever reads one trusts no number in it: a step that is not within the limits of
// its own layout is refused before a GPU sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend-engine/model/gpu_step.h"

namespace penstock::engine {

// Of the largest step.
size_t StepWireBytesMax(const GpuStepLayout& layout);

// Appends the step that lies packed at `memory`.
void WriteStep(const GpuStepLayout& layout, const GpuStepShape& shape, std::byte* memory,
               std::vector<std::byte>& to);

// False: `error` says what is wrong with it, and `memory` means nothing.
bool ReadStep(const GpuStepLayout& layout, std::span<const std::byte> from, std::byte* memory,
              GpuStepShape& shape, std::string& error);

}  // namespace penstock::engine
