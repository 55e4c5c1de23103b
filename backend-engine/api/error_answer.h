// Sends an ApiError as an HTTP answer.
#pragma once

#include "backend-engine/api/api_error.h"
#include "proxy/http/server.h"

namespace penstock::engine {

// `headers` are sent beside what the error itself asks for (retry-after, connection).
void SendError(HttpAnswer& answer, const ApiError& error, HeaderList headers = {});

}  // namespace penstock::engine
