// Comm by NCCL, between GPUs of one machine or of several: numbers are in GPU
// memory, and calls are queued on the stream given at creation.
//
// NCCL itself may wait for a dead peer for ever. So the communicator does not
// block: whoever makes a call looks at its state until it is queued, and Abort()
// (a watchdog, another rank that failed) ends every such wait and every kernel
// that runs. After that the object only says false.
//
// NCCL's own abort waits for every graph alive that recorded a call, so it has a
// thread of its own, and nobody but the destructor waits for it.
//
// The emulated GPU has a twin of it (nccl_emulated.cc) among processes of one machine.
//
// Ranks find each other by an id of kIdBytes bytes that one of them makes and all
// are given: through memory between threads, in a file or an environment
// variable between machines. NCCL_SOCKET_IFNAME chooses the network.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "backend-engine/kernels/cuda/gpu.h"
#include "backend-engine/parallel/comm.h"

namespace penstock::engine {

class NcclComm final : public Comm {
 public:
  static constexpr size_t kIdBytes = 128;

  // Whether this program has NCCL at all.
  static bool Available();

  static bool NewId(std::string& id, std::string& error);

  // Returns when all `size` ranks have come with the same id, or null with the
  // reason; a wait ends once `stop` is true. REQUIRES: each rank has a GPU of its
  // own, in use on this thread; `stop` outlives the object.
  static std::unique_ptr<NcclComm> Create(int rank, int size, const std::string& id,
                                          cuda::Stream stream, const std::atomic<bool>& stop,
                                          std::string& error);
  // Aborts, and waits for that. REQUIRES: the graphs are gone, or are going on another thread.
  ~NcclComm() override;

  int rank() const override;
  int size() const override;
  bool AllReduceSum(float* values, int64_t count) override;
  // On rank 0, all[rank * count + i] becomes that rank's mine[i]; `mine` may be its own
  // part of `all`. The others need no `all`.
  bool Gather(const float* mine, int64_t count, float* all);
  // REQUIRES: `all` is not null: NCCL writes on every rank.
  bool AllGather(const float* mine, int64_t count, float* all) override;
  bool Broadcast(float* values, int64_t count, int root) override;
  bool Barrier() override;  // Of the ranks' streams.
  void Abort() override;    // Returns at once.

  // Has the abort come to its end? Waits at most `seconds` for that.
  bool Gone(double seconds) const;

  // The sum of bf16 numbers, given as their bits.
  bool AllReduceSumBf16(uint16_t* values, int64_t count);

  // One small call of each kind that steps make. NCCL connects ranks, with memory of its
  // own, when it is first asked to: that shall not be in a step, nor while a graph is
  // recorded. Made by all ranks. `words`: size() numbers of the GPU's memory.
  bool Connect(float* words) {
    return AllReduceSumBf16(reinterpret_cast<uint16_t*>(words), 1) && Broadcast(words, 1, 0) &&
           Gather(words + rank(), 1, words);
  }

  // False: a call has failed, or NCCL behind our back; `error` says why in NCCL's words.
  bool Healthy(std::string& error);

 private:
  class State;
  explicit NcclComm(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace penstock::engine
