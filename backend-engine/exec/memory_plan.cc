#include "backend-engine/exec/memory_plan.h"

#include <algorithm>
#include <cstdio>
#include <limits>

namespace penstock::engine {
namespace {

constexpr int64_t kGraphsBytes = int64_t{256} << 20;
constexpr int64_t kReserveBytes = int64_t{512} << 20;  // At most; of small GPUs a fiftieth.

std::string GiB(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", static_cast<double>(bytes) / (1 << 30));
  return text;
}

std::string Sum(const MemoryPlan& plan) {
  return "weights " + GiB(plan.weights) + " + step " + GiB(plan.step) + " + matrix library " +
         GiB(plan.workspace) + " + communication " + GiB(plan.peers) + " + graphs " +
         GiB(plan.graphs) + " + reserve " + GiB(plan.reserve);
}

std::string Free(const MemoryNeeds& needs, const MemoryPlan& plan) {
  std::string text = needs.gpu + ": " + GiB(needs.free_bytes) + " of " + GiB(needs.total_bytes) +
                     " GiB free";
  if (needs.ranks > 1) {
    text += ", " + GiB(plan.share) + " for each of " + std::to_string(needs.ranks) + " ranks";
  }
  return text;
}

}  // namespace

bool PlanMemory(const MemoryNeeds& needs, MemoryPlan& plan, std::string& error) {
  plan = {};
  plan.share = needs.free_bytes / std::max(needs.ranks, 1);
  plan.weights = needs.weights;
  plan.step = needs.step;
  plan.workspace = needs.workspace;
  plan.peers = needs.peers ? plan.share / 20 : 0;
  // A graph costs tens of kilobytes a kernel; small GPUs and models have few.
  plan.graphs = needs.graphs ? std::min(kGraphsBytes, plan.share / 50) : 0;
  plan.reserve = std::min(kReserveBytes, plan.share / 50);
  const int64_t rest = plan.share - plan.weights - plan.step - plan.workspace - plan.peers -
                       plan.graphs - plan.reserve;
  const int64_t useful = std::max(needs.blocks_useful, 1);
  const int64_t room =
      std::min<int64_t>(rest / needs.block_bytes - 1, std::numeric_limits<int32_t>::max() - 1);
  if (needs.blocks_asked > 0) {
    if (room >= needs.blocks_asked) {
      plan.block_count = needs.blocks_asked;
      plan.kv = (int64_t{plan.block_count} + 1) * needs.block_bytes;
      return true;
    }
    error = Free(needs, plan) + "; " + Sum(plan) + " leaves " + GiB(rest) + " GiB, and " +
            std::to_string(needs.blocks_asked) + " KV blocks need " +
            GiB((int64_t{needs.blocks_asked} + 1) * needs.block_bytes) +
            "; lower --kv-blocks, or split the model over more GPUs (--tensor-parallel)";
    return false;
  }
  const auto least = static_cast<int64_t>(kKvShareMin * static_cast<double>(plan.share));
  if (room < 1 || (rest < least && room < useful)) {
    error = Free(needs, plan) + "; " + Sum(plan) + " leaves " + GiB(std::max<int64_t>(rest, 0)) +
            " GiB for the KV cache, which needs at least 15 % (" + GiB(least) +
            "); lower --step-tokens or --max-running, or split the model over more GPUs "
            "(--tensor-parallel)";
    return false;
  }
  plan.block_count = static_cast<int32_t>(std::min(room, useful));
  plan.kv = (int64_t{plan.block_count} + 1) * needs.block_bytes;
  return true;
}

std::string Text(const MemoryNeeds& needs, const MemoryPlan& plan) {
  return Free(needs, plan) + " = " + Sum(plan) + " + KV " + GiB(plan.kv) + " (" +
         std::to_string(plan.block_count) + " blocks) + unused " +
         GiB(plan.unused());
}

}  // namespace penstock::engine
