// What we call of NVIDIA's management library, by its own names and types: the
// driver brings the library, no toolkit brings its header, so the few
// declarations are ours. nvml_test compares them with NVIDIA's nvml.h where a
// machine has it.
#pragma once

namespace penstock::engine::nvml {

using Return = int;  // nvmlReturn_t
inline constexpr Return kSuccess = 0;
inline constexpr Return kNotSupported = 3;

using Device = void*;  // nvmlDevice_t

struct Utilization {  // nvmlUtilization_t: percent of the last sample period.
  unsigned int gpu;
  unsigned int memory;
};

struct Memory {  // nvmlMemory_t, bytes
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

inline constexpr int kTemperatureGpu = 0;      // NVML_TEMPERATURE_GPU
inline constexpr unsigned int kLinksMax = 36;  // NVML_NVLINK_MAX_LINKS, which grows.

union Value {  // nvmlValue_t
  double of_double;
  int of_int;
  unsigned int of_unsigned;
  unsigned long of_unsigned_long;
  unsigned long long of_unsigned_long_long;
  long long of_long_long;
  unsigned short of_unsigned_short;
};
enum ValueType : int {  // nvmlValueType_t
  kDouble = 0,
  kUnsignedInt = 1,
  kUnsignedLong = 2,
  kUnsignedLongLong = 3,
  kLongLong = 4,
};
struct FieldValue {  // nvmlFieldValue_t
  unsigned int field;
  unsigned int scope;
  long long timestamp;
  long long latency;
  ValueType type;
  Return result;
  Value value;
};
inline constexpr unsigned int kLinkDataSent = 138;      // NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, KiB
inline constexpr unsigned int kLinkDataReceived = 139;  // NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, KiB
inline constexpr unsigned int kAllLinks = ~0u;          // As their scope.

// nvmlInit_v2, nvmlShutdown, nvmlErrorString, nvmlDeviceGet...
using Init = Return();
using Shutdown = Return();
using ErrorString = const char*(Return);
using HandleByPciBusId = Return(const char*, Device*);
using UtilizationRates = Return(Device, Utilization*);
using MemoryInfo = Return(Device, Memory*);
using Temperature = Return(Device, int sensor, unsigned int*);
using PowerUsage = Return(Device, unsigned int* milliwatts);
using NvLinkState = Return(Device, unsigned int link, int* active);
using FieldValues = Return(Device, int count, FieldValue*);

}  // namespace penstock::engine::nvml
