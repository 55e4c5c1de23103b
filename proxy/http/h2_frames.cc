#include "proxy/http/h2_frames.h"

#include <algorithm>
#include <cstring>

namespace penstock {

size_t H2FrameScan::Take(std::string_view bytes) {
  whole_ = false;
  const size_t skipped = std::min(skip_, bytes.size());
  skip_ -= skipped;
  bytes.remove_prefix(skipped);
  const size_t more = std::min(bytes_.size() - have_, bytes.size());
  if (more == 0) return skipped;
  std::memcpy(bytes_.data() + have_, bytes.data(), more);
  have_ += more;
  if (have_ < bytes_.size()) return skipped + more;

  const auto byte = [this](size_t i) { return uint32_t{bytes_[i]}; };
  head_.length = byte(0) << 16 | byte(1) << 8 | byte(2);
  head_.type = static_cast<H2FrameType>(bytes_[3]);
  head_.flags = bytes_[4];
  head_.stream = (byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8)) & 0x7fff'ffff;
  have_ = 0;
  skip_ = head_.length;
  whole_ = begun_ = true;
  return skipped + more;
}

bool H2FrameScan::inside_head() const {
  if (!begun_ || have_ > 0) return true;
  if (skip_ > 0) return head_.type != H2FrameType::kData;
  const bool block =
      head_.type == H2FrameType::kHeaders || head_.type == H2FrameType::kContinuation;
  return block && (head_.flags & H2FrameHead::kEndHeaders) == 0;
}

bool H2OpenToPeer::Take(const H2FrameHead& head) {
  const bool reset = head.type == H2FrameType::kRstStream;
  if (head.type != H2FrameType::kData && head.type != H2FrameType::kHeaders && !reset) return true;
  const bool ends = reset || (head.flags & H2FrameHead::kEndStream) != 0;
  if (head.stream % 2 == 0) return true;    // Nothing that a client opens.
  if (head.stream > last_) {
    if (head.type != H2FrameType::kHeaders) return true;   // Not open yet, which is another error.
    last_ = head.stream;
    if (ends) return true;
    if (open_.size() == kMax) {
      forgotten_ = open_.front();
      open_.erase(open_.begin());
    }
    open_.push_back(head.stream);
    return true;
  }
  const auto at = std::lower_bound(open_.begin(), open_.end(), head.stream);
  if (at == open_.end() || *at != head.stream) return reset || head.stream <= forgotten_;
  if (ends) open_.erase(at);
  return true;
}

}  // namespace penstock
