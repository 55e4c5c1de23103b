// libFuzzer: any bytes as a stream of server-sent events.
#include <cstdint>

#include "tests/fuzz/sse_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzSse({reinterpret_cast<const char*>(data), size});
  return 0;
}
