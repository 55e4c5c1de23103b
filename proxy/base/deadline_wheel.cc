#include "proxy/base/deadline_wheel.h"

#include <algorithm>

namespace penstock {

Deadline::~Deadline() { Unlink(); }

void Deadline::Set(MonoTime when) {
  when_ = when;
  if (when == kNever) return;
  const MonoTime slot_time = wheel_.SlotTime(when);
  // An earlier slot looks at when_ and moves the entry on, so later needs nothing.
  if (link_ != nullptr && slot_time_ <= slot_time) return;
  Unlink();
  wheel_.Link(*this, slot_time);
}

void Deadline::Unlink() {
  if (link_ == nullptr) return;
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  next_ = nullptr;
  link_ = nullptr;
  slot_time_ = kNever;
  --wheel_.linked_;
}

DeadlineWheel::~DeadlineWheel() {
  for (Deadline*& slot : slots_) {
    while (slot != nullptr) slot->Unlink();
  }
}

// The first tick that is not before `when`, within what the wheel can tell apart.
MonoTime DeadlineWheel::SlotTime(MonoTime when) const {
  const MonoTime first = now_tick_ + 1;
  const MonoTime last = now_tick_ + static_cast<MonoTime>(kSlots) - 1;
  const MonoTime tick = when / kTick + (when % kTick > 0 ? 1 : 0);
  return std::clamp(tick, first, last) * kTick;
}

void DeadlineWheel::Link(Deadline& entry, MonoTime slot_time) {
  Deadline*& slot = slots_[static_cast<size_t>(slot_time / kTick) % kSlots];
  entry.slot_time_ = slot_time;
  entry.next_ = slot;
  entry.link_ = &slot;
  if (slot != nullptr) slot->link_ = &entry.next_;
  slot = &entry;
  ++linked_;
  next_slot_time_ = std::min(next_slot_time_, slot_time);
}

void DeadlineWheel::AdvanceTo(MonoTime now) {
  now_ = std::max(now_, now);
  const MonoTime target = now_ / kTick;
  const MonoTime from = now_tick_;
  if (target == from) return;
  now_tick_ = target;
  if (now_ < next_slot_time_) return;  // Nothing is linked in the ticks that passed.

  const MonoTime last = std::min(target, from + static_cast<MonoTime>(kSlots));
  for (MonoTime tick = from + 1; tick <= last; ++tick) {
    LookAt(slots_[static_cast<size_t>(tick) % kSlots]);
  }
  FindNextSlot();
}

// The list is moved aside first: callbacks may link into the very same slot.
void DeadlineWheel::LookAt(Deadline*& slot) {
  due_ = slot;
  slot = nullptr;
  if (due_ != nullptr) due_->link_ = &due_;
  while (due_ != nullptr) {
    Deadline& entry = *due_;
    entry.Unlink();
    if (entry.when_ == kNever) continue;
    if (entry.when_ > now_) {
      Link(entry, SlotTime(entry.when_));
      continue;
    }
    entry.when_ = kNever;
    entry.callback_(entry.owner_);
  }
}

void DeadlineWheel::FindNextSlot() {
  next_slot_time_ = kNever;
  if (linked_ == 0) return;
  for (MonoTime tick = now_tick_ + 1; tick < now_tick_ + static_cast<MonoTime>(kSlots); ++tick) {
    if (slots_[static_cast<size_t>(tick) % kSlots] != nullptr) {
      next_slot_time_ = tick * kTick;
      return;
    }
  }
}

}  // namespace penstock
