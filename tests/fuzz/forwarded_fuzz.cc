// libFuzzer: any bytes as the value of Forwarded or X-Forwarded-For.
#include <cstdint>

#include "tests/fuzz/forwarded_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzForwarded({reinterpret_cast<const char*>(data), size});
  return 0;
}
