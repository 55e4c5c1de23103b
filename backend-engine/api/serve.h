// The engine process: listens, loads beside the loop, serves, drains.
#pragma once

#include "backend-engine/api/serve_options.h"

namespace penstock::engine {

// Until SIGTERM or SIGINT; returns the status to exit with: 0, or 1 after a
// failure that was printed in one line. Of several processes, the first serves; the
// others Follow().
int Serve(const ServeOptions& options);

}  // namespace penstock::engine
