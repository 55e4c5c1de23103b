#include "proxy/base/gather.h"

#include <cstring>

namespace penstock {
namespace {
constexpr size_t kCopyBelow = 256;             // Copying these is cheaper than one more piece.
constexpr size_t kOverflowKept = 128 * 1024;   // Capacity that stays after Clear().
}  // namespace

void Gather::Copy(std::string_view bytes) {
  if (bytes.empty()) return;
  if (char* const at = Extend(bytes.size()); at != nullptr) {
    std::memcpy(at, bytes.data(), bytes.size());
    return;
  }
  size_ += bytes.size();
  Spill();
  overflow_.append(bytes);
}

void Gather::Reference(std::string_view bytes) {
  if (bytes.size() < kCopyBelow || spilled_) return Copy(bytes);
  size_ += bytes.size();
  if (piece_count_ < kPieces) {
    pieces_[piece_count_++] = bytes;
    return;
  }
  Spill();
  overflow_.append(bytes);
}

void Gather::Spill() {
  if (spilled_) return;
  overflow_.clear();
  overflow_.reserve(size_);
  for (size_t i = 0; i < piece_count_; ++i) overflow_.append(pieces_[i]);
  spilled_ = true;
}

std::span<const std::string_view> Gather::pieces() {
  if (spilled_) {
    pieces_[0] = overflow_;
    piece_count_ = 1;
  }
  return {pieces_.data(), piece_count_};
}

void Gather::Clear() {
  piece_count_ = 0;
  scratch_used_ = 0;
  size_ = 0;
  if (!spilled_) return;
  spilled_ = false;
  overflow_.clear();
  if (overflow_.capacity() > kOverflowKept) overflow_.shrink_to_fit();
}

}  // namespace penstock
