// What the processes of one engine say to each other beside numbers: that they are
// there and alike, how large the KV pool is for all, the ids of their NCCL groups,
// the table of sums, and then each step, from process 0 to the others.
//
// Threads: Meet() and the table, the runner's start; steps, one thread. All else, any.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend-engine/exec/gpu_rank.h"
#include "backend-engine/model/gpu_step.h"
#include "backend-engine/parallel/all_reduce_choice.h"
#include "backend-engine/parallel/rendezvous.h"

namespace penstock::engine {

class GpuLine {
 public:
  // Returns when all processes have come. `options.facts` and `group` must be alike in all.
  // Null with the reason; a wait, and later a send, ends once `stop` is true.
  static std::unique_ptr<GpuLine> Meet(RendezvousOptions options, const GpuGroup& group,
                                       const GpuStepLayout& layout, const std::atomic<bool>& stop,
                                       std::string& error);

  int32_t block_count() const;  // Of the process that has room for the fewest.
  const NcclIds& ids() const { return ids_; }

  // See Rendezvous.
  void OnLost(std::function<void(const std::string&)> lost) { line_->OnLost(std::move(lost)); }
  void Leave(const std::string& why) { line_->Leave(why); }

  // True: somebody is lost, or was within so long; `why` says who.
  bool IsLostWithin(double seconds, std::string& why) const;

  // Gives the table of process 0 to all; a wait ends once `stop` is true. `layout`: the
  // one that steps have from here on.
  bool ShareTable(const GpuStepLayout& layout, const std::atomic<bool>& stop,
                  AllReduceTable& table, std::string& error);

  // Process 0.
  bool SendStep(const GpuStepShape& shape, std::byte* packed, std::string& error);

  // The others: the next step, unpacked at `packed`, waited for at most `seconds`.
  enum class Next { kStep, kNothing, kEnd };
  Next ReceiveStep(double seconds, std::byte* packed, GpuStepShape& shape, std::string& error);

 private:
  GpuLine(int process, std::unique_ptr<Rendezvous> line, NcclIds ids)
      : process_(process), line_(std::move(line)), ids_(std::move(ids)) {}
  bool TakeTable(AllReduceTable& table, std::string& error) const;
  std::string WhyLost() const;

  const int process_;
  const std::unique_ptr<Rendezvous> line_;
  const NcclIds ids_;
  const GpuStepLayout* layout_ = nullptr;
  std::vector<std::byte> message_;
  uint64_t steps_ = 0;  // Sent or received.
};

}  // namespace penstock::engine
