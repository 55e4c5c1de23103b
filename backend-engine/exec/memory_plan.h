// What a GPU's memory is for, decided once at start: weights, the memory of the
// largest step, buffers of communication and of graphs; the KV cache gets the
// rest. Nothing is allocated afterwards, so nothing runs out of memory later.
// Plain arithmetic; told what is free, and testable without a GPU.
#pragma once

#include <cstdint>
#include <string>

namespace penstock::engine {

struct MemoryNeeds {
  std::string gpu;              // For messages: "GPU 0 (NVIDIA H200)".
  int64_t free_bytes = 0;       // Of the GPU, before anything is allocated.
  int64_t total_bytes = 0;
  int32_t ranks = 1;            // That share this GPU equally.
  int64_t weights = 0;          // Of each rank, as all below.
  int64_t step = 0;
  int64_t workspace = 0;        // Of the matrix library.
  bool graphs = false;
  bool peers = false;           // Talks to other ranks.
  int64_t block_bytes = 0;      // Of one KV block, keys and values of all layers.
  int32_t blocks_useful = 0;    // More could never be in use.
  int32_t blocks_asked = 0;     // Exactly so many; 0: as many as there is room for.
};

struct MemoryPlan {
  int64_t share = 0;       // Of the GPU's free memory, this rank's.
  int64_t weights = 0, step = 0, workspace = 0;
  int64_t peers = 0;       // 5 % of the share, where ranks talk: NCCL's buffers.
  int64_t graphs = 0;
  int64_t reserve = 0;     // Kernels' code, the driver's own.
  int64_t kv = 0;
  int32_t block_count = 0;  // One more is allocated: padding writes there.

  int64_t unused() const {
    return share - weights - step - workspace - peers - graphs - reserve - kv;
  }
};

// False: `error` is one line with the arithmetic in it. The KV cache must get at
// least kKvShareMin of the share, or all that is useful.
inline constexpr double kKvShareMin = 0.15;
bool PlanMemory(const MemoryNeeds& needs, MemoryPlan& plan, std::string& error);

// "GPU 0 (...): 139.1 GiB free = weights 15.0 + step 1.2 + ... + KV 118.4 (61,000 blocks)"
std::string Text(const MemoryNeeds& needs, const MemoryPlan& plan);

}  // namespace penstock::engine
