#include "proxy/http/h2_message.h"

namespace penstock {
namespace {
constexpr size_t kUnsentKept = 1024;
constexpr size_t kCompactAt = 64 * 1024;
}  // namespace

void UnsentBytes::Take(size_t count) {
  taken_ += count;
  if (taken_ == bytes_.size()) {
    Clear();
  } else if (taken_ >= kCompactAt && taken_ >= bytes_.size() / 2) {
    bytes_.erase(0, taken_);
    taken_ = 0;
  }
}

void UnsentBytes::Clear() {
  taken_ = 0;
  if (bytes_.capacity() > kUnsentKept) {
    std::string().swap(bytes_);
  } else {
    bytes_.clear();
  }
}

void H2Message::Reset() {
  arena.Reset();
  unsent.Clear();
  id = 0;
  count = {};
  request = {};
  refusal = {};
  trailers = trailers_to_send = {};
  left = 0;
  lost = 0;
  unconsumed = 0;
  error_code = 0;
  writing = Writing::kNothing;
  framing = Framing::kNone;
  interim_count = 0;
  head_read = read_over = told = over = quiet = refused = closed = false;
  reset_ours = paused = to_head = above_mark = false;
}

}  // namespace penstock
