#include "tests/support/memory_stream.h"

#include <algorithm>
#include <utility>

#include "proxy/base/random.h"

namespace penstock {

MemoryPair::MemoryPair(const MemoryLinkOptions& options)
    : link(std::make_shared<MemoryLink>(options)),
      a(std::make_unique<MemoryStream>(link, 0, "127.0.0.1:1")),
      b(std::make_unique<MemoryStream>(link, 1, "127.0.0.1:2")) {}

bool MemoryLink::Step() {
  const bool first = StepEnd(0);
  return StepEnd(1) || first;
}

bool MemoryLink::StepEnd(size_t end) {
  Direction& incoming = to_[end];
  MemoryStream* const reader = ends_[end];
  if (reader == nullptr || reader->paused_ || reader->receiver_ == nullptr) return false;
  if (incoming.end_told) return false;
  if (incoming.reset) {
    incoming.end_told = true;
    reader->receiver_->OnStreamEnd(absl::UnavailableError("memory: connection reset by peer"));
    return true;
  }
  if (!incoming.bytes.empty()) {
    const size_t size = Cut(incoming);
    incoming.delivered.assign(incoming.bytes, 0, size);
    incoming.bytes.erase(0, size);
    reader->receiver_->OnData(incoming.delivered);
    MemoryStream* const writer = ends_[1 - end];
    if (incoming.above_mark && buffered(end) <= options_.high_mark / 2) {
      incoming.above_mark = false;
      if (writer != nullptr && writer->receiver_ != nullptr) writer->receiver_->OnWritable();
    }
    return true;
  }
  if (!incoming.ended) return false;
  incoming.end_told = true;
  reader->receiver_->OnStreamEnd(absl::OkStatus());
  return true;
}

size_t MemoryLink::Cut(Direction& incoming) {
  size_t cut = std::min(incoming.bytes.size(), std::max<size_t>(options_.deliver_bytes, 1));
  if (options_.seed != 0) {
    Random random(random_);
    cut = 1 + random.Below(static_cast<uint32_t>(cut));
    random_ = random.state;
  }
  if (cut > incoming.together_from && cut < incoming.together_to) cut = incoming.together_to;
  incoming.together_from -= std::min(incoming.together_from, cut);
  incoming.together_to -= std::min(incoming.together_to, cut);
  return cut;
}

size_t MemoryLink::buffered(size_t to) const {
  const size_t size = to_[to].bytes.size();
  return size > options_.window_bytes ? size - options_.window_bytes : 0;
}

MemoryStream::MemoryStream(std::shared_ptr<MemoryLink> link, size_t end, std::string peer)
    : link_(std::move(link)), end_(end), peer_(std::move(peer)) {
  link_->ends_[end_] = this;
}

MemoryStream::~MemoryStream() {
  link_->ends_[end_] = nullptr;
  MemoryLink::Direction& incoming = link_->to_[end_];
  MemoryLink::Direction& outgoing = link_->to_[1 - end_];
  outgoing.ended = true;
  // As with a socket: what its buffer had no room for is lost.
  outgoing.bytes.resize(outgoing.bytes.size() - link_->buffered(1 - end_));
  if (!incoming.bytes.empty()) outgoing.reset = true;
  incoming.bytes.clear();
}

void MemoryStream::Write(std::span<const std::string_view> pieces) {
  MemoryLink::Direction& outgoing = link_->to_[1 - end_];
  MemoryLink::Direction& incoming = link_->to_[end_];
  if (outgoing.ended || outgoing.reset || incoming.reset) return;
  if (link_->ends_[1 - end_] == nullptr) {
    // As a reset that answers bytes sent to a closed socket.
    for (const std::string_view piece : pieces) incoming.reset |= !piece.empty();
    return;
  }
  for (const std::string_view piece : pieces) outgoing.bytes += piece;
  if (above_mark()) outgoing.above_mark = true;
}

void MemoryStream::WriteTogether(std::string_view bytes) {
  MemoryLink::Direction& outgoing = link_->to_[1 - end_];
  const size_t before = outgoing.bytes.size();
  Write(bytes);
  if (outgoing.bytes.size() == before) return;
  outgoing.together_from = before == 0 ? 0 : before - 1;
  outgoing.together_to = outgoing.bytes.size();
}

void MemoryLink::Break() {
  for (Direction& direction : to_) {
    direction.bytes.clear();
    direction.reset = true;
  }
}

void MemoryStream::Reset() {
  link_->Break();
  link_->to_[end_].end_told = true;   // Nothing follows our own reset.
}

}  // namespace penstock
