// An answer that is an error, in OpenAI's words: status, type, code, the field
// to blame and one line for people.
#pragma once

#include <string>
#include <string_view>

namespace penstock::engine {

struct ApiError {
  int status = 400;
  std::string_view type = "invalid_request_error";
  std::string_view code = "bad_request";
  std::string param;               // Empty: none.
  std::string message;             // What, found, allowed; one line.
  double retry_after_seconds = 0;  // Above 0: told as Retry-After.
  bool close = false;              // Ask the client to open no more requests here.
};

// A 400 that blames `param`.
inline ApiError BadField(std::string param, std::string message) {
  return {.param = std::move(param), .message = std::move(message)};
}

}  // namespace penstock::engine
