// libFuzzer: any bytes as HTTP/2, in both roles.
#include "tests/fuzz/h2_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzH2({reinterpret_cast<const char*>(data), size});
  return 0;
}
