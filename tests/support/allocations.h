// Counts calls of operator new in this process, so that a test can show that a
// path allocates nothing. Under a sanitizer nothing is counted.
#pragma once

#include <cstdint>

namespace penstock {
uint64_t AllocationCount();
}
