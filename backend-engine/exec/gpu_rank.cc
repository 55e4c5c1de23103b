#include "backend-engine/exec/gpu_rank.h"

#include "backend-engine/exec/decode_plan.h"

namespace penstock::engine {

GpuRank::GpuRank(const GpuGroup& group, const GpuStepLayout& layout, GpuMeeting& meeting,
                 int rank)
    : group_(group), layout_(layout), meeting_(meeting), rank_(rank) {}

GpuRank::~GpuRank() {
  drop_.Begin();
  drop_.Wait();  // Before the communicators, whose end waits for it.
  std::string error;
  if (!Use(error)) return;
  if (stream_ != nullptr) (void)cuda::Synchronize(stream_);
  model_.reset();
  comm_.reset();
  counterparts_.reset();
  all_.reset();
  for (void* memory : allocated_) cuda::Free(memory);
  for (void* memory : pinned_) cuda::FreePinned(memory);
  for (const cuda::Event event :
       {begun_[0], begun_[1], done_[0], done_[1], timing_[0], timing_[1]}) {
    if (event != nullptr) cuda::DestroyEvent(event);
  }
  if (stream_ != nullptr) cuda::DestroyStream(stream_);
}

void GpuRank::WaitUntilIdle() {
  std::string error;
  if (Use(error) && stream_ != nullptr) (void)cuda::Synchronize(stream_);
}

bool GpuRank::Ok(cuda::GpuError failed, const char* what, std::string& error) const {
  if (failed == cuda::kGpuOk) return true;
  error = "rank " + std::to_string(group_.first_rank() + rank_) + " on GPU " +
          std::to_string(group_.gpus[static_cast<size_t>(rank_)]) + ": " + what + ": " +
          ReasonOf(failed);
  return false;
}

// What NCCL did not take comes back as a shape that a kernel does not.
std::string GpuRank::ReasonOf(cuda::GpuError failed) const {
  std::string reason;
  for (const auto* comm : {&all_, &counterparts_}) {
    if (failed != cuda::kGpuInvalid || *comm == nullptr) continue;
    if (!(*comm)->Healthy(reason)) return reason;
  }
  return cuda::ErrorText(failed);
}

bool GpuRank::Use(std::string& error) {
  return Ok(cuda::UseGpu(group_.gpus[static_cast<size_t>(rank_)]), "taking the GPU", error);
}

int32_t GpuRank::Splits(int32_t decodes) const {
  return DecodeSplits(decodes, static_cast<int32_t>(shard_.kv_heads.count), group_.sm_count,
                      group_.limits.step.positions);
}

cuda::GpuError GpuRank::QueueModel(const GpuStepShape& shape) {
  return model_->Queue(shape, layout_.At(step_memory_), Splits(shape.decodes), stream_);
}

// False: they have been dropped already, and so is this one.
bool GpuRank::KeepGraph(int32_t bucket, cuda::Graph graph) {
  {
    const std::lock_guard lock(graphs_mutex_);
    if (!graphs_dropped_) {
      graphs_[bucket] = graph;
      return true;
    }
  }
  cuda::DestroyGraph(graph);
  return false;
}

void GpuRank::DropGraphs() {
  (void)cuda::UseGpu(group_.gpus[static_cast<size_t>(rank_)]);
  const std::lock_guard lock(graphs_mutex_);
  graphs_dropped_ = true;
  for (const auto& [bucket, graph] : graphs_) cuda::DestroyGraph(graph);
  graphs_.clear();
}

cuda::GpuError GpuRank::QueueOrLaunch(const GpuStepShape& shape) {
  if (shape.bucket > 0) {
    const std::lock_guard lock(graphs_mutex_);  // Only an abort is ever waited for.
    const auto graph = graphs_.find(shape.bucket);
    if (graph != graphs_.end()) return cuda::LaunchGraph(graph->second, stream_);
  }
  return QueueModel(shape);
}

bool GpuRank::Queue(const GpuStepShape& shape, int32_t samples, const std::byte* host,
                    size_t turn, std::string& error) {
  if (!Ok(cuda::Record(begun_[turn], stream_), "a step", error) ||
      !Ok(layout_.Copy(shape, host, step_memory_, stream_), "a step's input", error) ||
      !Ok(QueueAwaited(shape), "the tokens of the step before", error)) {
    return false;
  }
  return Ok(QueueOrLaunch(shape), "a step", error) &&
         Ok(QueueSampling(shape, samples, turn), "choosing tokens", error) &&
         Ok(cuda::Record(done_[turn], stream_), "a step", error);
}

// Tokens that the step before chose never leave the GPUs on their way into this one.
cuda::GpuError GpuRank::QueueAwaited(const GpuStepShape& shape) {
  const GpuStepMemory step = layout_.At(step_memory_);
  cuda::GpuError error = comm_->ShareSampled(sampled_, shape.awaited_rows);
  if (error == cuda::kGpuOk) {
    error = comm_->TakeTokens(step.awaited, shape.awaited, step.tokens, stream_);
  }
  if (error != cuda::kGpuOk) return error;
  return comm_->TakeTokens(step.awaited_history, shape.awaited_history, step.history, stream_);
}

cuda::GpuError GpuRank::QueueSampling(const GpuStepShape& shape, int32_t samples, size_t turn) {
  const int64_t part = int64_t{shape.rows} * shard_.vocab_padded;
  cuda::GpuError error = comm_->GatherLogits(part, gathered_, stream_);
  if (error != cuda::kGpuOk || shard_.rank != 0) return error;
  const int32_t ranks = group_.ranks();
  const float* logits = ranks > 1 ? gathered_ : buffers_.logits;
  const GpuStepMemory step = layout_.At(step_memory_);
  error = cuda::Sample({logits, ranks, shape.rows, static_cast<int32_t>(shard_.vocab_padded),
                        static_cast<int32_t>(group_.config.vocab_size), step.sample_rows, samples,
                        step.history, step.biases, step.masks, work_, counts_,
                        sampled_},
                       stream_);
  if (error == cuda::kGpuOk && samples > 0) {
    error = cuda::CopyToHost(sampled_host_[turn], sampled_,
                             int64_t{samples} * static_cast<int64_t>(sizeof *sampled_), stream_);
  }
  if (error == cuda::kGpuOk && group_.keep_logits) {
    error = cuda::CopyToHost(logits_host_, logits, ranks * part * 4, stream_);
  }
  return error;
}

bool GpuRank::Done(size_t turn, bool& done, std::string& error) {
  for (const auto* comm : {&all_, &counterparts_}) {
    if (*comm != nullptr && !(*comm)->Healthy(error)) return false;
  }
  return Ok(cuda::Query(done_[turn], done), "a step", error);
}

double GpuRank::BusySeconds(size_t turn) const {
  float ms = 0;
  const bool known = cuda::Milliseconds(begun_[turn], done_[turn], ms) == cuda::kGpuOk;
  return known ? ms / 1e3 : 0;
}

void GpuRank::Abort() {
  for (const auto& library : libraries_) {
    if (NcclComm* comm = library.load()) comm->Abort();
  }
  drop_.Begin();
}

}  // namespace penstock::engine
