// Parsed event by event rather than into a document: a hostile header of
// 100 MB of nested ones would otherwise take gigabytes before it is refused.
#include "backend-engine/load/safetensors_header.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

constexpr std::string_view kCure = "the file is damaged or not safetensors: fetch it again";

class HeaderReader {
 public:
  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_float(json::number_float_t, const std::string& text) { return Unexpected(text); }
  bool binary(json::binary_t&) { return Unexpected("binary"); }
  bool number_integer(json::number_integer_t value) { return Unexpected(std::to_string(value)); }

  bool number_unsigned(json::number_unsigned_t value) {
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() >= kTensorRankMax) {
        return Fail(fmt::format("shape has more than {} dimensions", kTensorRankMax));
      }
      if (value > INT64_MAX) return Fail(fmt::format("dimension {} is absurd", value));
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offset_count_ >= 2) return Fail("data_offsets has more than 2 entries");
      (offset_count_++ == 0 ? tensor_.begin : tensor_.end) = value;
      return true;
    }
    return Unexpected(std::to_string(value));
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return Unexpected(Quoted(value));
    tensor_.dtype = std::move(value);
    if (SafetensorsBits(tensor_.dtype) == 0) {
      return Fail("dtype " + Quoted(tensor_.dtype) + " is none of the format's types");
    }
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::kStart) return Enter(Place::kTop);
    if (place_ != Place::kTop) return Unexpected("an object");
    return Enter(in_metadata_ ? Place::kMetadata : Place::kTensor);
  }

  bool start_array(size_t) {
    if (place_ == Place::kTensor && field_ == "shape") return Enter(Place::kShape);
    if (place_ == Place::kTensor && field_ == "data_offsets") return Enter(Place::kOffsets);
    return Unexpected("an array");
  }

  bool end_array() {
    if (place_ == Place::kOffsets && offset_count_ != 2) {
      return Fail(fmt::format("data_offsets has {} entries, expected 2", offset_count_));
    }
    return Enter(Place::kTensor);
  }

  bool end_object() {
    if (place_ == Place::kTop) return Enter(Place::kEnd);
    if (place_ == Place::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!seen_.contains(field)) return Fail(fmt::format("{} is missing", field));
      }
      if (tensors.size() >= kTensorsPerFileMax) return Fail("too many tensors");
      tensors.push_back(std::exchange(tensor_, {}));
    }
    return Enter(Place::kTop);
  }

  bool key(std::string& name) {
    if (place_ == Place::kMetadata) return true;
    if (place_ == Place::kTop) {
      in_metadata_ = name == "__metadata__";
      tensor_ = {};
      tensor_.name = name;
      offset_count_ = 0;
      seen_.clear();
      if (name.size() > kTensorNameBytesMax) return Fail("a tensor's name is too long");
      if (!names_.insert(std::move(name)).second) return Fail("appears twice");
      return true;
    }
    if (!seen_.insert(name).second) return Fail(Quoted(name) + " appears twice");
    field_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) {
    if (error.empty()) error = fmt::format("header is not valid JSON at byte {}", position);
    return false;
  }

  std::vector<StoredTensor> tensors;
  std::string error;

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool Enter(Place place) {
    place_ = place;
    return true;
  }

  bool Fail(const std::string& why) {
    const bool inside = place_ != Place::kStart && place_ != Place::kEnd && !tensor_.name.empty();
    error = inside ? "tensor " + Quoted(tensor_.name) + ": " + why : "header: " + why;
    return false;
  }

  bool Unexpected(std::string_view found) {
    return Fail(fmt::format("{} where dtype, shape and data_offsets are expected", found));
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;
  StoredTensor tensor_;
  size_t offset_count_ = 0;
  std::string field_;
  absl::flat_hash_set<std::string> seen_;   // Fields of this tensor.
  absl::flat_hash_set<std::string> names_;  // Tensors of this file.
};

// Bytes that the shape needs, or nullopt where they do not fit 63 bits or do
// not end on a byte.
std::optional<uint64_t> BytesNeeded(const StoredTensor& tensor) {
  uint64_t count = 1;
  bool overflow = false;
  bool empty = false;
  for (const int64_t dimension : tensor.shape) {
    empty |= dimension == 0;
    overflow |= __builtin_mul_overflow(count, static_cast<uint64_t>(dimension), &count);
  }
  if (empty) return 0;
  uint64_t bits = 0;
  overflow |= __builtin_mul_overflow(
      count, static_cast<uint64_t>(SafetensorsBits(tensor.dtype)), &bits);
  if (overflow || bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

absl::Status CheckTiling(const std::vector<StoredTensor>& tensors, uint64_t data_bytes,
                         std::string_view file) {
  uint64_t expected_begin = 0;
  for (const StoredTensor& tensor : tensors) {
    const auto fail = [&](const std::string& why) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {}: {}; {}", file, Quoted(tensor.name), why, kCure));
    };
    if (tensor.begin > tensor.end || tensor.end > data_bytes) {
      return fail(fmt::format("bytes {} to {}, but the file holds {} bytes of data", tensor.begin,
                              tensor.end, data_bytes));
    }
    if (tensor.begin != expected_begin) {
      return fail(fmt::format("starts at byte {}, expected {}: tensors {}", tensor.begin,
                              expected_begin,
                              tensor.begin < expected_begin ? "overlap" : "leave a hole"));
    }
    const std::optional<uint64_t> needed = BytesNeeded(tensor);
    if (!needed.has_value()) return fail("its shape does not fit in memory");
    if (*needed != tensor.end - tensor.begin) {
      return fail(fmt::format("{} bytes, but its {} shape [{}] needs {}",
                              tensor.end - tensor.begin, tensor.dtype,
                              fmt::join(tensor.shape, ", "), *needed));
    }
    expected_begin = tensor.end;
  }
  if (expected_begin != data_bytes) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: {} bytes of data, but the tensors end at {}; {}", file, data_bytes, expected_begin,
        kCure));
  }
  return absl::OkStatus();
}

}  // namespace

int SafetensorsBits(std::string_view dtype) {
  static constexpr std::pair<std::string_view, int> kTypes[] = {
      {"F32", 32},    {"BF16", 16},   {"F16", 16},    {"F64", 64},    {"I64", 64},
      {"U64", 64},    {"I32", 32},    {"U32", 32},    {"I16", 16},    {"U16", 16},
      {"I8", 8},      {"U8", 8},      {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8},
      {"F8_E8M0", 8}, {"C64", 64},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
  for (const auto& [name, bits] : kTypes) {
    if (name == dtype) return bits;
  }
  return 0;
}

absl::StatusOr<uint64_t> SafetensorsHeaderLength(std::string_view first_bytes, uint64_t file_bytes,
                                                 std::string_view file) {
  if (first_bytes.size() < 8) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: {} bytes; a safetensors file has at least 8; {}", file, file_bytes, kCure));
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(first_bytes[i]);
  const uint64_t allowed = std::min(kSafetensorsHeaderBytesMax, file_bytes - 8);
  if (length < 2 || length > allowed) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: header length {}; expected 2 to {} in a file of {} bytes; {}", file, length, allowed,
        file_bytes, kCure));
  }
  return length;
}

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::string_view header,
                                                                 uint64_t data_bytes,
                                                                 std::string_view file) {
  HeaderReader reader;
  if (header.empty() || header.front() != '{') {
    return absl::InvalidArgumentError(
        fmt::format("{}: header starts with {}, expected '{{'; {}", file,
                    Quoted(header.substr(0, 1)), kCure));
  }
  if (!json::sax_parse(header.begin(), header.end(), &reader)) {
    return absl::InvalidArgumentError(fmt::format("{}: {}; {}", file, reader.error, kCure));
  }
  std::stable_sort(reader.tensors.begin(), reader.tensors.end(),
                   [](const StoredTensor& a, const StoredTensor& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  if (absl::Status status = CheckTiling(reader.tensors, data_bytes, file); !status.ok()) {
    return status;
  }
  return std::move(reader.tensors);
}

}  // namespace penstock::engine
