// libFuzzer: any bytes as a policy file.
#include <cstdint>

#include "tests/fuzz/config_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzConfig({reinterpret_cast<const char*>(data), size});
  return 0;
}
