// libFuzzer: any bytes as the beginning of a connection behind a balancer.
#include <cstdint>

#include "tests/fuzz/proxy_protocol_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  penstock::FuzzProxyProtocol({reinterpret_cast<const char*>(data), size});
  return 0;
}
