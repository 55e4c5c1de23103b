#include "backend-engine/exec/gpu_line.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "backend-engine/model/gpu_step_wire.h"
#include "backend-engine/parallel/frames.h"
#include "backend-engine/sched/check.h"

namespace penstock::engine {
namespace {

constexpr double kTickSeconds = 0.1;  // Between two looks at whether to stop.

// What a message begins with.
struct Head {
  enum Kind : uint32_t { kTable = 1, kStep = 2 };
  uint32_t kind = kStep;
  uint32_t reserved = 0;
  uint64_t number = 0;  // Of a step, from 0; entries of a table.
};
struct TableEntry {
  int64_t bytes;
  int32_t way, reserved;
  double microseconds;
};
static_assert(std::is_trivially_copyable_v<Head> && std::is_trivially_copyable_v<TableEntry>);
constexpr size_t kTableMax = 256;  // Entries.

size_t MessageBytesMax(const GpuStepLayout& layout) {
  return sizeof(Head) + std::max(StepWireBytesMax(layout), kTableMax * sizeof(TableEntry));
}

// What all processes must have alike, beside the model: how a step is laid out. Not what
// follows from their GPUs' room, which is made alike.
std::string FactsOf(const GpuGroup& group) {
  const GpuStepLimits& limits = group.limits;
  const auto number = [](const char* name, int64_t value) {
    return std::string(", ") + name + " " + std::to_string(value);
  };
  return number("tensor parallel", group.ranks()) +
         number("ranks here", static_cast<int64_t>(group.gpus.size())) +
         number("layers", group.config.layer_count) + number("hidden", group.config.hidden_size) +
         number("vocabulary", group.config.vocab_size) +
         number("step tokens", limits.step.tokens) + number("sequences", limits.step.sequences) +
         number("positions", group.longest) +
         number("block tokens", limits.step.block_tokens) + number("rows", limits.rows) +
         number("graphs", static_cast<int64_t>(group.buckets.size())) +
         number("all logits", group.keep_logits ? 1 : 0) +
         number("sums", group.sum_by ? static_cast<int>(*group.sum_by) : -1);
}

bool MakeIds(const GpuGroup& group, std::string& ids, std::string& error) {
  const size_t groups = group.gpus.size() > 1 ? 1 + group.gpus.size() : 1;
  for (size_t i = 0; i < groups; ++i) {
    std::string id;
    if (!NcclComm::NewId(id, error)) return false;
    ids += id;
  }
  return true;
}

}  // namespace

std::unique_ptr<GpuLine> GpuLine::Meet(RendezvousOptions options, const GpuGroup& group,
                                       const GpuStepLayout& layout, const std::atomic<bool>& stop,
                                       std::string& error) {
  options.facts += FactsOf(group);
  options.offer = group.limits.step.block_count;
  options.message_bytes_max = MessageBytesMax(layout);
  if (!CheckRendezvous(options, error)) return nullptr;
  if (!NcclComm::Available()) {
    error = "processes need NCCL to compute together, and this build has none";
    return nullptr;
  }
  std::string all;
  if (options.index == 0 && !MakeIds(group, all, error)) return nullptr;
  auto line = Rendezvous::Meet(options, all, stop, error);
  if (line == nullptr) return nullptr;
  NcclIds ids;
  constexpr size_t kBytes = NcclComm::kIdBytes;
  const size_t counterparts = group.gpus.size() > 1 ? group.gpus.size() : 0;
  if (all.size() != (1 + counterparts) * kBytes || line->agreed() < 1) {
    error = "process 0 brings " + std::to_string(all.size()) + " bytes of ids and " +
            std::to_string(line->agreed()) + " blocks, which cannot be";
    return nullptr;
  }
  ids.all = all.substr(0, kBytes);
  for (size_t i = 1; i <= counterparts; ++i) ids.counterparts.push_back(all.substr(i * kBytes, kBytes));
  return std::unique_ptr<GpuLine>(new GpuLine(options.index, std::move(line), std::move(ids)));
}

int32_t GpuLine::block_count() const { return static_cast<int32_t>(line_->agreed()); }

// A connection that broke is a loss that the line's thread is about to hear of.
std::string GpuLine::WhyLost() const {
  std::string why;
  return IsLostWithin(1, why) ? why : "the line to the other processes was given up";
}

bool GpuLine::IsLostWithin(double seconds, std::string& why) const {
  return line_->LostWithin(seconds, why);
}

bool GpuLine::ShareTable(const GpuStepLayout& layout, const std::atomic<bool>& stop,
                         AllReduceTable& table, std::string& error) {
  layout_ = &layout;
  message_.reserve(MessageBytesMax(layout));
  if (process_ != 0) {
    while (true) {
      switch (line_->Receive(message_, kTickSeconds)) {
        case Rendezvous::Received::kMessage: return TakeTable(table, error);
        case Rendezvous::Received::kLost: error = WhyLost(); return false;
        case Rendezvous::Received::kNothing: break;
      }
      if (stop.load(std::memory_order_acquire)) return false;
    }
  }
  const auto entries = table.entries();
  message_.clear();
  Append(Head{.kind = Head::kTable, .number = entries.size()}, message_);
  for (const auto& entry : entries) {
    Append(TableEntry{entry.bytes, static_cast<int32_t>(entry.way), 0, entry.microseconds}, message_);
  }
  ENGINE_CHECK(entries.size() <= kTableMax, "more sums than a table has");
  if (line_->Send(message_)) return true;
  error = WhyLost();
  return false;
}

bool GpuLine::TakeTable(AllReduceTable& table, std::string& error) const {
  Head head;
  error = "process 0 sends no table of sums that could be";
  if (message_.size() < sizeof head) return false;
  std::memcpy(&head, message_.data(), sizeof head);
  if (head.kind != Head::kTable || head.number == 0 || head.number > kTableMax ||
      message_.size() != sizeof head + head.number * sizeof(TableEntry)) {
    return false;
  }
  int64_t last = 0;
  for (size_t i = 0; i < head.number; ++i) {
    TableEntry entry{};
    std::memcpy(&entry, message_.data() + sizeof head + i * sizeof entry, sizeof entry);
    const auto way = static_cast<AllReduceWay>(entry.way);
    if (entry.bytes < last ||
        (way != AllReduceWay::kNccl && way != AllReduceWay::kHierarchical)) {
      return false;
    }
    last = entry.bytes;
    table.Add(entry.bytes, way, entry.microseconds);
  }
  error.clear();
  return true;
}

bool GpuLine::SendStep(const GpuStepShape& shape, std::byte* packed, std::string& error) {
  message_.clear();
  Append(Head{.kind = Head::kStep, .number = steps_}, message_);
  WriteStep(*layout_, shape, packed, message_);
  if (!line_->Send(message_)) {
    error = WhyLost();
    return false;
  }
  ++steps_;
  return true;
}

GpuLine::Next GpuLine::ReceiveStep(double seconds, std::byte* packed, GpuStepShape& shape,
                                   std::string& error) {
  switch (line_->Receive(message_, seconds)) {
    case Rendezvous::Received::kNothing: return Next::kNothing;
    case Rendezvous::Received::kLost: error = WhyLost(); return Next::kEnd;
    case Rendezvous::Received::kMessage: break;
  }
  Head head;
  if (message_.size() >= sizeof head) std::memcpy(&head, message_.data(), sizeof head);
  if (message_.size() < sizeof head || head.kind != Head::kStep || head.number != steps_) {
    error = "process 0 sends something else than step " + std::to_string(steps_);
    return Next::kEnd;
  }
  if (!ReadStep(*layout_, std::span(message_).subspan(sizeof head), packed, shape, error)) {
    error = "process 0 sends as step " + std::to_string(steps_) + " " + error;
    return Next::kEnd;
  }
  ++steps_;
  return Next::kStep;
}

}  // namespace penstock::engine
