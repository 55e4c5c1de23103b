// Picks a table by what the processor says it can do. The fast twins are one
// set of sources compiled once a level (CMakeLists.txt), each into a namespace
// of its own.
#include "backend-engine/kernels/kernels.h"

namespace penstock::engine {

namespace reference {
extern const Kernels kTable;
}
namespace cpu_baseline {
extern const Kernels kTable;
}
#if defined(__x86_64__)
namespace cpu_avx2 {
extern const Kernels kTable;
}
namespace cpu_avx512 {
extern const Kernels kTable;
}
namespace cpu_avx512bf16 {
extern const Kernels kTable;
}
#endif

const Kernels* KernelsAt(CpuLevel level) {
  if (level == CpuLevel::kReference) return &reference::kTable;
  if (level == CpuLevel::kBaseline) return &cpu_baseline::kTable;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (level == CpuLevel::kAvx2 && avx2) return &cpu_avx2::kTable;
  if (level == CpuLevel::kAvx512 && avx512) return &cpu_avx512::kTable;
  if (level == CpuLevel::kAvx512Bf16 && avx512 && __builtin_cpu_supports("avx512bf16")) {
    return &cpu_avx512bf16::kTable;
  }
#endif
  return nullptr;
}

const Kernels& BestKernels() {
  const Kernels* best = nullptr;
  for (const CpuLevel level : kCpuLevels) {
    if (const Kernels* table = KernelsAt(level)) best = table;
  }
  return *best;
}

}  // namespace penstock::engine
