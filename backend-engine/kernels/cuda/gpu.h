// The few calls of a GPU's runtime that the engine makes, without a CUDA header:
// memory, copies, streams, events, graphs. There are two implementations behind
// it, chosen by what a program links: gpu.cc (the CUDA runtime), and emulated/
// (this machine's processor, for tests: every kernel runs there as it is).
//
// Calls return 0 or the runtime's error number, for ErrorText(). Those with a
// stream only queue their work. Threads: any; UseGpu() is the calling thread's.
#pragma once

#include <cstdint>
#include <string>

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace penstock::engine::cuda {

using Stream = CUstream_st*;
using Event = CUevent_st*;
using Graph = CUgraphExec_st*;

using GpuError = int;
inline constexpr GpuError kGpuOk = 0;
inline constexpr GpuError kGpuInvalid = 1;      // A shape that a kernel does not take.
inline constexpr GpuError kGpuOutOfMemory = 2;

std::string ErrorText(GpuError error);

struct GpuDescription {
  std::string name;       // "NVIDIA H200"
  std::string bus_id;     // Of PCI, "0000:3B:00.0".
  int capability = 0;     // 80, 90, 100.
  int sm_count = 0;
};

GpuError CountGpus(int& count);  // Before every other call.
GpuError DescribeGpu(int gpu, GpuDescription& description);
GpuError UseGpu(int gpu);
GpuError MemoryInfo(int64_t& free_bytes, int64_t& total_bytes);

// Lets the current GPU read and write the memory of `peer`. `possible` says
// whether the two are connected so; where they are not, that is no error.
GpuError EnablePeer(int gpu, int peer, bool& possible);

GpuError Allocate(int64_t bytes, void** memory);
void Free(void* memory);
GpuError AllocatePinned(int64_t bytes, void** memory);  // Of the host; GPUs may read it too.
void FreePinned(void* memory);

GpuError CopyToGpu(void* to, const void* from, int64_t bytes, Stream stream);
GpuError CopyToHost(void* to, const void* from, int64_t bytes, Stream stream);
GpuError CopyOnGpu(void* to, const void* from, int64_t bytes, Stream stream);
GpuError FillBytes(void* memory, int byte, int64_t bytes, Stream stream);

GpuError MakeStream(Stream& stream);
void DestroyStream(Stream stream);
GpuError Synchronize(Stream stream);

GpuError MakeEvent(Event& event);
void DestroyEvent(Event event);
GpuError Record(Event event, Stream stream);
GpuError Query(Event event, bool& done);                 // Has all before Record() been done?
GpuError Milliseconds(Event from, Event to, float& ms);  // REQUIRES: both are done.

// What is queued between the two becomes a graph and does not run. It is on the
// GPU once the stream is idle: its first launch is like all others.
GpuError BeginCapture(Stream stream);
GpuError EndCapture(Stream stream, Graph& graph);
GpuError LaunchGraph(Graph graph, Stream stream);
void DestroyGraph(Graph graph);

}  // namespace penstock::engine::cuda
