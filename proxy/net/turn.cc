#include "proxy/net/turn.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"

namespace penstock {

Gather& Writer::out() {
  if (gather_ == nullptr) {
    if (turn_.spare_.empty()) {
      turn_.gathers_.push_back(std::make_unique<Gather>());
      turn_.spare_.push_back(turn_.gathers_.back().get());
    }
    gather_ = turn_.spare_.back();
    turn_.spare_.pop_back();
  }
  if (!marked_) {
    CHECK(turn_.depth_ > 0, "bytes were gathered outside a turn");
    marked_ = true;
    turn_.dirty_.push_back(this);
  }
  return *gather_;
}

void Writer::Flush() {
  if (gather_ == nullptr) return;
  if (!gather_->empty()) stream_->Write(gather_->pieces());
  Release();
}

void Writer::Finish() {
  if (last_ != nullptr) last_(owner_, *gather_);
  if (!Hold()) Flush();
}

// True: what is gathered waits for the end of the poll.
bool Writer::Hold() {
  if (!turn_.may_hold_ || gather_ == nullptr || !gather_->own()) return false;
  if (held_ == 0) {
    if (turn_.held_.size() == Turn::kHeldMax) turn_.WriteHeld();
    if (turn_.held_.size() == Turn::kHeldMax) return false;
    turn_.held_.push_back(this);
  }
  held_ = gather_->size();
  Unmark();
  return true;
}

void Writer::Drop() {
  if (gather_ == nullptr) return;
  // They were in one piece, and still are the beginning of the first.
  if (held_ > 0) stream_->Write(gather_->pieces()[0].substr(0, held_));
  Release();
}

void Writer::Release() {
  gather_->Clear();
  turn_.spare_.push_back(gather_);
  gather_ = nullptr;
  if (marked_) Unmark();
  if (std::exchange(held_, 0) > 0) std::erase(turn_.held_, this);
}

void Writer::Unmark() {
  marked_ = false;
  // Most often the writer is the last one that was marked.
  const auto it = std::find(turn_.dirty_.rbegin(), turn_.dirty_.rend(), this);
  turn_.dirty_.erase(std::next(it).base());
}

// Nobody is called back from inside a write. Those that gather in this turn, too, have
// something to add first.
void Turn::WriteHeld() {
  std::erase_if(held_, [](Writer* writer) {
    if (writer->marked_) return false;
    writer->held_ = 0;
    writer->Flush();
    return true;
  });
}

Turn::~Turn() {
  ++depth_;
  Finish();
}

void Turn::Finish() {
  while (!dirty_.empty() || !graves_.empty()) {
    while (!dirty_.empty()) dirty_.back()->Finish();
    // Destructors may bury more and gather more.
    std::vector<Grave> graves;
    graves.swap(graves_);
    for (const Grave& grave : graves) grave.destroy(grave.object);
    if (graves_.empty()) {
      graves.clear();
      graves_.swap(graves);  // Keeps the capacity.
    }
  }
}

}  // namespace penstock
