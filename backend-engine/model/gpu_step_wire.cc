#include "backend-engine/model/gpu_step_wire.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace penstock::engine {
namespace {

// Processes of one engine run on machines of one kind: numbers go as they lie.
struct Counts {
  int32_t tokens, rows, sequences, decodes, tiles, bucket, awaited, awaited_rows;
  int64_t table_entries;
};
static_assert(std::is_trivially_copyable_v<Counts> && sizeof(Counts) == 40);

// Calls `part` with the place and number of each part that goes over the wire.
template <typename Part>
void EachPart(const Counts& counts, const GpuStepMemory& at, const Part& part) {
  part(at.tokens, counts.tokens);
  part(at.positions, counts.tokens);
  part(at.slots, counts.tokens);
  part(at.sequences, counts.sequences);
  part(at.decodes, counts.decodes);
  part(at.tiles, counts.tiles);
  part(at.logit_rows, counts.rows);
  part(at.awaited, counts.awaited);
  part(at.block_table, counts.table_entries);
}

size_t BytesOf(const Counts& counts) {
  size_t bytes = sizeof counts;
  EachPart(counts, GpuStepMemory{}, [&bytes](const auto* to, int64_t count) {
    bytes += static_cast<size_t>(count) * sizeof *to;
  });
  return bytes;
}

Counts MostOf(const GpuStepLayout& layout) {
  const StepLimits& step = layout.limits().step;
  const int32_t tokens = std::max(step.tokens, step.sequences);
  return {.tokens = tokens,
          .rows = std::max(layout.limits().rows, step.sequences),
          .sequences = step.sequences,
          .decodes = step.sequences,
          .tiles = static_cast<int32_t>(layout.tiles_max()),
          .bucket = step.sequences,
          .awaited = step.sequences,
          .awaited_rows = step.sequences,
          .table_entries = int64_t{step.block_count} + 1};
}

// Looks for the first number out of bounds.
class Check {
 public:
  // True: `value` is in [first, end).
  bool In(const char* what, int64_t value, int64_t first, int64_t end) {
    if (value >= first && value < end) return true;
    if (error_.empty()) {
      error_ = std::string(what) + " is " + std::to_string(value) + ", not " +
               std::to_string(first) + " to " + std::to_string(end - 1);
    }
    return false;
  }
  template <typename T>
  void AllIn(const char* what, const T* values, int64_t count, int64_t first, int64_t end) {
    for (int64_t i = 0; i < count && In(what, values[i], first, end); ++i) {
    }
  }
  const std::string& error() const { return error_; }

 private:
  std::string error_;
};

void CheckCounts(const Counts& counts, const Counts& most, Check& check) {
  check.In("tokens", counts.tokens, 1, int64_t{most.tokens} + 1);
  check.In("rows", counts.rows, 0, int64_t{std::min(most.rows, counts.tokens)} + 1);
  check.In("sequences", counts.sequences, 1, int64_t{most.sequences} + 1);
  check.In("decodes", counts.decodes, 0, int64_t{counts.sequences} + 1);
  check.In("tiles", counts.tiles, 0, int64_t{most.tiles} + 1);
  check.In("awaited", counts.awaited, 0, int64_t{counts.sequences} + 1);
  check.In("awaited rows", counts.awaited_rows, counts.awaited > 0 ? 1 : 0,
           counts.awaited > 0 ? int64_t{most.awaited_rows} + 1 : 1);
  check.In("table entries", counts.table_entries, 1, most.table_entries + 1);
  if (counts.bucket == 0) return;
  for (const int32_t padded : {counts.tokens, counts.rows, counts.sequences, counts.decodes}) {
    check.In("a count of a padded step", padded, counts.bucket, int64_t{counts.bucket} + 1);
  }
}

void CheckNumbers(const GpuStepLimits& limits, const Counts& counts, const GpuStepMemory& at,
                  Check& check) {
  const StepLimits& step = limits.step;
  check.AllIn("a token", at.tokens, counts.tokens, 0, step.vocab);
  check.AllIn("a position", at.positions, counts.tokens, 0, step.positions);
  check.AllIn("a slot", at.slots, counts.tokens, 0,
              (int64_t{step.block_count} + 1) * step.block_tokens);
  check.AllIn("a row", at.logit_rows, counts.rows, 0, counts.tokens);
  check.AllIn("a decode", at.decodes, counts.decodes, 0, counts.sequences);
  check.AllIn("a block", at.block_table, counts.table_entries, 0, int64_t{step.block_count} + 1);
  for (int32_t i = 0; i < counts.awaited; ++i) {
    check.In("an awaited token", at.awaited[i].token, 0, counts.tokens);
    check.In("an awaited sample", at.awaited[i].sample, 0, counts.awaited_rows);
  }
  for (int32_t i = 0; i < counts.sequences; ++i) {
    const cuda::GpuSequence& sequence = at.sequences[i];
    const int64_t end = int64_t{sequence.start} + sequence.token_count;
    check.In("a sequence's first token", sequence.first_token, 0, counts.tokens);
    check.In("a sequence's tokens", sequence.token_count, 1,
             int64_t{counts.tokens} - sequence.first_token + 1);
    check.In("a sequence's start", sequence.start, 0, step.positions);
    check.In("a sequence's length", end, 1, step.positions + 1);
    check.In("a sequence's first block", sequence.first_block, 0,
             counts.table_entries - (end + step.block_tokens - 1) / step.block_tokens + 1);
  }
  for (int32_t i = 0; i < counts.tiles; ++i) {
    const cuda::PrefillTile& tile = at.tiles[i];
    if (!check.In("a tile's sequence", tile.sequence, 0, counts.sequences)) return;
    check.In("a tile's first row", tile.first_row, 0,
             int64_t{at.sequences[tile.sequence].token_count} * limits.group);
    check.In("a tile's place", tile.first_row % cuda::kPrefillRows, 0, 1);
  }
}

}  // namespace

size_t StepWireBytesMax(const GpuStepLayout& layout) { return BytesOf(MostOf(layout)); }

void WriteStep(const GpuStepLayout& layout, const GpuStepShape& shape, std::byte* memory,
               std::vector<std::byte>& to) {
  const Counts counts{.tokens = shape.tokens,
                      .rows = shape.rows,
                      .sequences = shape.sequences,
                      .decodes = shape.decodes,
                      .tiles = shape.tiles,
                      .bucket = shape.bucket,
                      .awaited = shape.awaited,
                      .awaited_rows = shape.awaited_rows,
                      .table_entries = shape.table_entries};
  const auto append = [&to](const auto* from, int64_t count) {
    const auto bytes = std::as_bytes(std::span(from, static_cast<size_t>(count)));
    to.insert(to.end(), bytes.begin(), bytes.end());
  };
  append(&counts, 1);
  EachPart(counts, layout.At(memory), append);
}

bool ReadStep(const GpuStepLayout& layout, std::span<const std::byte> from, std::byte* memory,
              GpuStepShape& shape, std::string& error) {
  Counts counts{};
  if (from.size() < sizeof counts) {
    error = "a step of " + std::to_string(from.size()) + " bytes";
    return false;
  }
  std::memcpy(&counts, from.data(), sizeof counts);
  Check check;
  CheckCounts(counts, MostOf(layout), check);
  if (check.error().empty() && from.size() != BytesOf(counts)) {
    check.In("its size", static_cast<int64_t>(from.size()), static_cast<int64_t>(BytesOf(counts)),
             static_cast<int64_t>(BytesOf(counts)) + 1);
  }
  if (check.error().empty()) {
    const GpuStepMemory at = layout.At(memory);
    const std::byte* next = from.data() + sizeof counts;
    EachPart(counts, at, [&next](auto* to, int64_t count) {
      const size_t bytes = static_cast<size_t>(count) * sizeof *to;
      if (bytes > 0) std::memcpy(to, next, bytes);
      next += bytes;
    });
    CheckNumbers(layout.limits(), counts, at, check);
  }
  if (!check.error().empty()) {
    error = "a step whose " + check.error();
    return false;
  }
  shape = {.tokens = counts.tokens,
           .rows = counts.rows,
           .sequences = counts.sequences,
           .decodes = counts.decodes,
           .tiles = counts.tiles,
           .bucket = counts.bucket,
           .picks = counts.rows != counts.tokens,
           .awaited = counts.awaited,
           .awaited_rows = counts.awaited_rows,
           .table_entries = counts.table_entries};
  return true;
}

}  // namespace penstock::engine
