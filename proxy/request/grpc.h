// gRPC as a proxy sees it: requests that are told by their content-type, answers whose
// status comes last, in a trailer, and errors that are told in the same way.
// (github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md, doc/http-grpc-status-mapping.md)
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/backends/pool_table.h"
#include "proxy/http/error_reply.h"
#include "proxy/http/message.h"

namespace penstock {

enum class GrpcStatus : uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kDeadlineExceeded = 4,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// application/grpc, with a suffix (+proto) or not. gRPC-Web is other HTTP.
bool IsGrpc(const RequestHead& head);

// The grpc-status field, in a head (an answer of trailers alone) or among trailers.
// Nonsense is kUnknown, as clients take it.
std::optional<GrpcStatus> ReadGrpcStatus(std::span<const Header> headers);

// What an answer says about its backend; nullopt: it ended without a status.
Outcome OutcomeOf(std::optional<GrpcStatus> status);

// What an error of ours is called towards a gRPC client.
GrpcStatus GrpcStatusOf(ReplyCode code);
// A grpc-message: percent-encoded.
std::string GrpcMessage(std::string_view text);

}  // namespace penstock
