// All answers in progress, and the way of tokens from the engine thread to them:
// what a step made is handed over in one batch and delivered in one loop turn.
//
// Threads: the loop's, but for Take().
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "backend-engine/api/generation.h"
#include "proxy/net/loop.h"

namespace penstock::engine {

class Generations {
 public:
  explicit Generations(Loop& loop);

  // The engine's sink: takes the events and wakes the loop, once however many batches wait.
  void Take(std::span<TokenEvent> events);

  // Owns it until it is over.
  Generation& Add(std::unique_ptr<Generation> generation);
  // To be called once its sequences are submitted, or it has failed before.
  void Started(Generation& generation);

  // Gets events of sequences that belong to no generation.
  void set_stray(std::function<void(const TokenEvent&)> stray) { stray_ = std::move(stray); }
  // Called whenever the last one is gone.
  void set_on_empty(std::function<void()> on_empty) { on_empty_ = std::move(on_empty); }

  // Ends every answer with `error`.
  void FailAll(const ApiError& error);

  size_t size() const { return generations_.size(); }
  size_t preparing() const { return preparing_; }  // Not yet started.

 private:
  void Wake();  // Any thread.
  void Deliver();
  void Tick();
  void EraseIfOver(Generation& generation);

  Loop& loop_;
  absl::flat_hash_map<Generation*, std::unique_ptr<Generation>> generations_;
  absl::flat_hash_map<SequenceId, Generation*> by_sequence_;
  std::function<void(const TokenEvent&)> stray_;
  std::function<void()> on_empty_;
  size_t preparing_ = 0;
  TimerQueue::Timer tick_;

  std::mutex mutex_;
  std::vector<TokenEvent> arrived_;  // Bounded by the sequences and their lengths.
  bool posted_ = false;
  std::vector<TokenEvent> delivering_;  // The loop's; kept for its memory.
  std::vector<Generation*> touched_;
};

}  // namespace penstock::engine
