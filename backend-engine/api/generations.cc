#include "backend-engine/api/generations.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace penstock::engine {
namespace {

constexpr MonoTime kTick = 5 * kSecond;

}  // namespace

Generations::Generations(Loop& loop) : loop_(loop) {}

void Generations::Take(std::span<TokenEvent> events) {
  {
    const std::lock_guard lock(mutex_);
    arrived_.insert(arrived_.end(), std::make_move_iterator(events.begin()),
                    std::make_move_iterator(events.end()));
  }
  Wake();
}

void Generations::Wake() {
  {
    const std::lock_guard lock(mutex_);
    if (posted_ || arrived_.empty()) return;
    posted_ = true;
  }
  if (loop_.Post([this] { Deliver(); })) return;
  // The loop is swamped: whoever wakes it next, at the latest Tick(), brings these along.
  const std::lock_guard lock(mutex_);
  posted_ = false;
}

Generation& Generations::Add(std::unique_ptr<Generation> generation) {
  Generation& added = *generation;
  generations_.emplace(&added, std::move(generation));
  ++preparing_;
  Wake();
  if (!tick_.armed()) tick_ = loop_.timers().After(kTick, [this] { Tick(); });
  return added;
}

void Generations::Started(Generation& generation) {
  --preparing_;
  for (const SequenceId id : generation.sequences()) by_sequence_.emplace(id, &generation);
  EraseIfOver(generation);
}

void Generations::Deliver() {
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
    delivering_.clear();
    delivering_.swap(arrived_);
  }
  touched_.clear();
  for (TokenEvent& event : delivering_) {
    const auto found = by_sequence_.find(event.id);
    if (found == by_sequence_.end()) {
      if (stray_) stray_(event);
      continue;
    }
    Generation& generation = *found->second;
    if (event.finish != FinishReason::kNone) by_sequence_.erase(found);
    generation.OnEvent(event);
    touched_.push_back(&generation);
  }
  // Several choices of one answer are touched in one batch, and written once.
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  for (Generation* generation : touched_) {
    generation->Flush();
    EraseIfOver(*generation);
  }
}

void Generations::EraseIfOver(Generation& generation) {
  if (!generation.over()) return;
  generations_.erase(&generation);
  if (generations_.empty() && on_empty_) on_empty_();
}

void Generations::Tick() {
  Wake();
  for (const auto& [generation, owner] : generations_) generation->OnTick();
  if (!generations_.empty()) tick_ = loop_.timers().After(kTick, [this] { Tick(); });
}

void Generations::FailAll(const ApiError& error) {
  for (const auto& [generation, owner] : generations_) generation->Fail(error);
}

}  // namespace penstock::engine
