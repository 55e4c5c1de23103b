// The header of a safetensors file: which tensors, of which type and shape, at
// which bytes. The format: 8 bytes little-endian header length, that many
// bytes of JSON, then the data; the tensors must tile the data exactly.
//
// Everything here is hostile until it has passed: a header that gets through
// ParseSafetensorsHeader() cannot make a reader leave the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::engine {

inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;  // The format's own limit.
inline constexpr size_t kTensorsPerFileMax = 1'000'000;
inline constexpr size_t kTensorRankMax = 8;
inline constexpr size_t kTensorNameBytesMax = 512;

struct StoredTensor {
  std::string name;
  std::string dtype;           // As spelt in the file; one of the format's types.
  std::vector<int64_t> shape;  // Each at least 0; the product fits.
  uint64_t begin = 0;          // Relative to the first byte after the header.
  uint64_t end = 0;
};

// Bits of one element, 0 for a type that the format does not know.
int SafetensorsBits(std::string_view dtype);

// The header's length from the first 8 bytes of a file of `file_bytes` bytes.
absl::StatusOr<uint64_t> SafetensorsHeaderLength(std::string_view first_bytes, uint64_t file_bytes,
                                                 std::string_view file);

// Tensors in the order of their bytes. `data_bytes` is what follows the header
// in the file; `file` names it in messages.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::string_view header,
                                                                 uint64_t data_bytes,
                                                                 std::string_view file);

}  // namespace penstock::engine
