// libFuzzer: any bytes as HTTP/1, in both roles.
#include "tests/fuzz/h1_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzH1({reinterpret_cast<const char*>(data), size});
  return 0;
}
