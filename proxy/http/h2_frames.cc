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
  whole_ = true;
  return skipped + more;
}

}  // namespace penstock
