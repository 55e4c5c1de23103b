// libFuzzer: any bytes as the body of an inference request.
#include <cstdint>

#include "tests/fuzz/peek_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzPeek({reinterpret_cast<const char*>(data), size});
  return 0;
}
