#include "proxy/net/turn.h"

#include <algorithm>

#include "proxy/base/check.h"

namespace penstock {

Gather& Writer::out() {
  if (gather_ == nullptr) {
    CHECK(turn_.depth_ > 0, "bytes were gathered outside a turn");
    if (turn_.spare_.empty()) {
      turn_.gathers_.push_back(std::make_unique<Gather>());
      turn_.spare_.push_back(turn_.gathers_.back().get());
    }
    gather_ = turn_.spare_.back();
    turn_.spare_.pop_back();
    turn_.dirty_.push_back(this);
  }
  return *gather_;
}

void Writer::Flush() {
  if (gather_ == nullptr) return;
  if (!gather_->empty()) stream_->Write(gather_->pieces());
  Drop();
}

void Writer::Finish() {
  if (last_ != nullptr) last_(owner_, *gather_);
  Flush();
}

void Writer::Drop() {
  if (gather_ == nullptr) return;
  gather_->Clear();
  turn_.spare_.push_back(gather_);
  gather_ = nullptr;
  // Most often the writer is the last one that was marked.
  const auto it = std::find(turn_.dirty_.rbegin(), turn_.dirty_.rend(), this);
  turn_.dirty_.erase(std::next(it).base());
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
