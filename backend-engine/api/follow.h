// A process of an engine that spans several, other than the first: loads its ranks'
// part of the model and computes what process 0 plans. It listens nowhere; all HTTP
// is process 0's.
#pragma once

#include "backend-engine/api/serve_options.h"

namespace penstock::engine {

// Until process 0 ends, which was printed in one line: 1. After SIGTERM or SIGINT, of
// which the first leaves process 0 the time to drain: 0.
int Follow(const ServeOptions& options);

}  // namespace penstock::engine
