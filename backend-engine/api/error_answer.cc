#include "backend-engine/api/error_answer.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "backend-engine/api/openai_response.h"

namespace penstock::engine {

void SendError(HttpAnswer& answer, const ApiError& error, HeaderList headers) {
  if (error.retry_after_seconds > 0) {
    // Whole seconds for everybody, milliseconds for the clients that read them.
    headers.emplace_back("retry-after", fmt::format("{}", std::ceil(error.retry_after_seconds)));
    headers.emplace_back("retry-after-ms",
                         fmt::format("{}", std::ceil(error.retry_after_seconds * 1000)));
  }
  if (error.close) headers.emplace_back("connection", "close");
  answer.Send(error.status, "application/json", ErrorJson(error), headers);
}

}  // namespace penstock::engine
