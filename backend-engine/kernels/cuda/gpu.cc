// gpu.h by the CUDA runtime. One call each, and nothing clever.
#include "backend-engine/kernels/cuda/gpu.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <string>

namespace penstock::engine::cuda {

static_assert(cudaSuccess == kGpuOk && cudaErrorInvalidValue == kGpuInvalid &&
              cudaErrorMemoryAllocation == kGpuOutOfMemory);

std::string ErrorText(GpuError error) {
  const auto code = static_cast<cudaError_t>(error);
  std::string text = std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code);
  // CUDA says so too where there is no driver at all.
  if (code == cudaErrorInsufficientDriver) text += ", or there is none: see what nvidia-smi says";
  return text;
}

GpuError CountGpus(int& count) {
  // Read when the driver starts. Streams that have to share a queue wait for each other's
  // kernels, and those of ranks on one GPU must not.
  static const int asked = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  (void)asked;
  count = 0;
  return cudaGetDeviceCount(&count);
}

GpuError DescribeGpu(int gpu, GpuDescription& description) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, gpu);
  if (error != cudaSuccess) return error;
  description.name = properties.name;
  description.capability = properties.major * 10 + properties.minor;
  description.sm_count = properties.multiProcessorCount;
  char bus_id[32] = {};
  const cudaError_t named = cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, gpu);
  if (named != cudaSuccess) return named;
  description.bus_id = bus_id;
  return kGpuOk;
}

GpuError UseGpu(int gpu) { return cudaSetDevice(gpu); }

GpuError MemoryInfo(int64_t& free_bytes, int64_t& total_bytes) {
  size_t free = 0;
  size_t total = 0;
  const cudaError_t error = cudaMemGetInfo(&free, &total);
  free_bytes = static_cast<int64_t>(free);
  total_bytes = static_cast<int64_t>(total);
  return error;
}

GpuError EnablePeer(int gpu, int peer, bool& possible) {
  possible = true;
  if (gpu == peer) return kGpuOk;
  int can = 0;
  const cudaError_t error = cudaDeviceCanAccessPeer(&can, gpu, peer);
  possible = error == cudaSuccess && can != 0;
  if (!possible) return error;
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(peer, 0);
  if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
    return kGpuOk;
  }
  return enabled;
}

GpuError Allocate(int64_t bytes, void** memory) {
  return cudaMalloc(memory, static_cast<size_t>(bytes));
}
void Free(void* memory) { (void)cudaFree(memory); }

GpuError AllocatePinned(int64_t bytes, void** memory) {
  return cudaHostAlloc(memory, static_cast<size_t>(bytes),
                       cudaHostAllocPortable | cudaHostAllocMapped);
}
void FreePinned(void* memory) { (void)cudaFreeHost(memory); }

GpuError CopyToGpu(void* to, const void* from, int64_t bytes, Stream stream) {
  return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream);
}
GpuError CopyToHost(void* to, const void* from, int64_t bytes, Stream stream) {
  return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream);
}
GpuError CopyOnGpu(void* to, const void* from, int64_t bytes, Stream stream) {
  return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream);
}
GpuError FillBytes(void* memory, int byte, int64_t bytes, Stream stream) {
  return cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), stream);
}

// Non-blocking: the legacy stream of some library must not order our work.
GpuError MakeStream(Stream& stream) {
  return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
}
void DestroyStream(Stream stream) { (void)cudaStreamDestroy(stream); }
GpuError Synchronize(Stream stream) { return cudaStreamSynchronize(stream); }

GpuError MakeEvent(Event& event) { return cudaEventCreate(&event); }
void DestroyEvent(Event event) { (void)cudaEventDestroy(event); }
GpuError Record(Event event, Stream stream) { return cudaEventRecord(event, stream); }

GpuError Query(Event event, bool& done) {
  const cudaError_t error = cudaEventQuery(event);
  done = error == cudaSuccess;
  if (error != cudaErrorNotReady) return error;
  (void)cudaGetLastError();  // "Not yet" would else be the error of whatever this thread does next.
  return kGpuOk;
}

GpuError Milliseconds(Event from, Event to, float& ms) {
  return cudaEventElapsedTime(&ms, from, to);
}

// Thread-local: what other threads do to their own GPUs spoils no capture here.
GpuError BeginCapture(Stream stream) {
  return cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}

GpuError EndCapture(Stream stream, Graph& graph) {
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &recorded);
  if (ended != cudaSuccess) return ended;
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  (void)cudaGraphDestroy(recorded);
  return made != cudaSuccess ? made : cudaGraphUpload(graph, stream);
}

GpuError LaunchGraph(Graph graph, Stream stream) { return cudaGraphLaunch(graph, stream); }
void DestroyGraph(Graph graph) { (void)cudaGraphExecDestroy(graph); }

}  // namespace penstock::engine::cuda
