// How fast the kernels and the whole engine are on this GPU, each beside the
// ceiling measured in the same run: a copy of memory, and a large product.
#pragma once

#include "tests/gpu/report.h"

namespace penstock::engine {

void MeasureSpeed(Report& report);

}  // namespace penstock::engine
