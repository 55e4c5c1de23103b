// Every error answer of ours: what happened in, HTTP status and OpenAI-shaped
// body out. The only place that knows this table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

enum class ReplyCode : uint8_t {
  kBadRequest,         // 400 invalid_request_error / bad_request
  kUnauthorized,       // 401 invalid_request_error / invalid_api_key
  kModelNotFound,      // 404 invalid_request_error / model_not_found
  kRouteNotFound,      // 404 invalid_request_error / route_not_found
  kMethodNotAllowed,   // 405 invalid_request_error / method_not_allowed
  kRequestTimeout,     // 408 invalid_request_error / request_timeout
  kClientStalled,      // 408 invalid_request_error / client_stalled
  kBodyTooLarge,       // 413 invalid_request_error / request_too_large
  kUriTooLong,         // 414 invalid_request_error / uri_too_long
  kUnsupportedMedia,   // 415 invalid_request_error / unsupported_media_type
  kQueueFull,          // 429 rate_limit_error / queue_full               retry-after
  kHeadersTooLarge,    // 431 invalid_request_error / headers_too_large
  kInternal,           // 500 server_error / internal_error
  kNotImplemented,     // 501 invalid_request_error / not_implemented
  kBackendReset,       // 502 server_error / backend_reset
  kBackendBadAnswer,   // 502 server_error / backend_bad_answer
  kBackendTls,         // 502 server_error / backend_tls_error
  kNoHealthyBackend,   // 503 server_error / no_healthy_backend           retry-after
  kOverloaded,         // 503 server_error / overloaded                   retry-after
  kDraining,           // 503 server_error / draining                     retry-after: 1
  kConnectTimeout,     // 504 server_error / backend_connect_timeout
  kFirstTokenTimeout,  // 504 server_error / backend_first_token_timeout
  kResponseTimeout,    // 504 server_error / backend_timeout
  kIdleTimeout,        // 504 server_error / backend_idle_timeout
  kTotalTimeout,       // 504 server_error / total_timeout
  kDeadlineExceeded,   // 504 server_error / deadline_exceeded
  kLoopDetected,       // 508 server_error / loop_detected
};

struct ReplyInfo {
  uint16_t status;
  std::string_view type;          // error.type
  std::string_view code;          // error.code
  std::string_view proxy_status;  // RFC 9209 error word; empty: none.
  bool should_retry;              // x-should-retry: whether the same request may do better.
};

const ReplyInfo& InfoOf(ReplyCode code);

// {"error":{"message":...,"type":...,"param":...,"code":...}}, JSON-escaped.
std::string ErrorBody(ReplyCode code, std::string_view message, std::string_view param = {});
// The same as one SSE event: "data: {...}\n\n".
std::string ErrorEvent(ReplyCode code, std::string_view message);

}  // namespace penstock
