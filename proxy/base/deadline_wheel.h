// Deadlines of connections and requests: coarse, cheap, intrusive.
//
// Moving a deadline later is one store: the entry stays in its slot and is
// looked at again when the slot comes round. So an idle timeout that every
// token pushes back costs nothing. Moving it earlier relinks it, which is O(1)
// and allocates nothing. Precision is one tick (kTick); never early.
//
// Threads: one wheel a loop, used on that loop's thread only. Time is told.
#pragma once

#include <array>
#include <cstddef>

#include "proxy/base/time.h"

namespace penstock {

class DeadlineWheel;

// One deadline; a member of whatever it belongs to. Destroying it cancels it.
class Deadline {
 public:
  using Callback = void (*)(void* owner);

  Deadline(DeadlineWheel& wheel, Callback callback, void* owner)
      : wheel_(wheel), callback_(callback), owner_(owner) {}
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  void Set(MonoTime when);                 // Replaces an earlier Set.
  void Clear() { when_ = kNever; }         // Stays linked until its slot comes round.
  bool armed() const { return when_ != kNever; }
  MonoTime when() const { return when_; }

 private:
  friend class DeadlineWheel;
  void Unlink();

  DeadlineWheel& wheel_;
  const Callback callback_;
  void* const owner_;
  MonoTime when_ = kNever;
  MonoTime slot_time_ = kNever;            // When its slot comes round; kNever: unlinked.
  Deadline* next_ = nullptr;
  Deadline** link_ = nullptr;              // What points at this entry.
};

class DeadlineWheel {
 public:
  static constexpr MonoTime kTick = 20 * kMillisecond;
  static constexpr size_t kSlots = 1024;

  explicit DeadlineWheel(MonoTime now) : now_tick_(now / kTick), now_(now) {}
  ~DeadlineWheel();

  // Calls back every deadline that has passed (it is cleared first). A callback
  // may set, clear and destroy any deadline, its own too.
  void AdvanceTo(MonoTime now);
  // Time has come this far; nothing is called back before AdvanceTo.
  void Observe(MonoTime now) { now_ = now > now_ ? now : now_; }
  MonoTime now() const { return now_; }
  bool empty() const { return linked_ == 0; }
  // No deadline is looked at before this time; kNever: none is linked.
  MonoTime NextLook() const { return linked_ == 0 ? kNever : next_slot_time_; }

 private:
  friend class Deadline;
  MonoTime SlotTime(MonoTime when) const;
  void Link(Deadline& entry, MonoTime slot_time);
  void LookAt(Deadline*& slot);
  void FindNextSlot();

  std::array<Deadline*, kSlots> slots_{};
  Deadline* due_ = nullptr;            // The slot that is being looked at.
  MonoTime now_tick_;
  MonoTime now_;
  MonoTime next_slot_time_ = kNever;         // Not after the first linked slot.
  size_t linked_ = 0;
};

}  // namespace penstock
