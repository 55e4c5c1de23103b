// libFuzzer: any bytes as the target of a request.
#include <cstdint>

#include "tests/fuzz/request_target_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzRequestTarget({reinterpret_cast<const char*>(data), size});
  return 0;
}
