// Asks a GPU's driver how the GPU is: by NVIDIA's management library, opened at
// run time, because a machine without a GPU has none and must not need it.
//
// A figure that the library, the driver or the GPU does not give is not a number;
// the others are still told. Calls may take milliseconds, and where a driver
// hangs they do not return: only for a thread that nobody waits for.
//
// Threads: one at a time.
#pragma once

#include <limits>
#include <memory>
#include <string>

namespace penstock::engine {

struct GpuFigures {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double utilization = kUnknown;      // 0 to 1: time in which a kernel ran.
  double memory_used = kUnknown;      // Bytes, of all processes.
  double memory_total = kUnknown;
  double temperature = kUnknown;      // Celsius.
  double power = kUnknown;            // Watts.
  double links_active = kUnknown;     // NVLinks; unknown where the GPU has none.
  double links_inactive = kUnknown;
  double link_bytes_sent = kUnknown;  // Over all links, since the driver started.
  double link_bytes_received = kUnknown;
};

class Nvml {
 public:
  // Null: `why_not` says whether the library is missing, too old, or does not start.
  static std::unique_ptr<Nvml> Open(const std::string& library, std::string& why_not);
  ~Nvml();

  // The GPU at a PCI bus id as CUDA gives it; null with the reason.
  void* Find(const std::string& bus_id, std::string& why_not) const;

  GpuFigures Read(void* gpu) const;

 private:
  struct Calls;
  Nvml(void* library, std::unique_ptr<Calls> calls);

  void* const library_;
  const std::unique_ptr<Calls> calls_;
};

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

}  // namespace penstock::engine
