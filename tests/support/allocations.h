// Counts calls of operator new in this process, so that a test can show that a
// path allocates nothing. Under a sanitizer nothing is counted.
#pragma once

#include <cstdint>

namespace penstock {
uint64_t AllocationCount();
// The one with that number finds no memory, as operator new tells of it: by the new
// handler. 0: none does. Under a sanitizer nothing fails.
void FailAllocation(uint64_t number);
}
