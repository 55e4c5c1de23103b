#include "proxy/request/grpc.h"

#include <charconv>

#include <fmt/format.h>

namespace penstock {

bool IsGrpc(const RequestHead& head) {
  constexpr std::string_view kType = "application/grpc";
  const Header* const type = Find(head.headers, KnownHeader::kContentType);
  if (type == nullptr || type->value.size() < kType.size()) return false;
  if (!EqualsIgnoringCase(type->value.substr(0, kType.size()), kType)) return false;
  const std::string_view rest = type->value.substr(kType.size());
  return rest.empty() || rest.front() == '+' || rest.front() == ';';
}

std::optional<GrpcStatus> ReadGrpcStatus(std::span<const Header> headers) {
  const Header* const field = Find(headers, "grpc-status");
  if (field == nullptr) return std::nullopt;
  const std::string_view text = field->value;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > 16) {
    return GrpcStatus::kUnknown;
  }
  return static_cast<GrpcStatus>(value);
}

// As the same failure would count over plain HTTP: what a server says when it failed
// itself is a 5xx, RESOURCE_EXHAUSTED a 429. A deadline is the client's own.
Outcome OutcomeOf(std::optional<GrpcStatus> status) {
  switch (status.value_or(GrpcStatus::kUnknown)) {
    case GrpcStatus::kUnknown:
    case GrpcStatus::kInternal:
    case GrpcStatus::kUnavailable:
    case GrpcStatus::kDataLoss: return Outcome::kFault;
    case GrpcStatus::kResourceExhausted: return Outcome::kBusy;
    case GrpcStatus::kCancelled:
    case GrpcStatus::kDeadlineExceeded: return Outcome::kClientLeft;
    default: return Outcome::kOk;
  }
}

GrpcStatus GrpcStatusOf(ReplyCode code) {
  if (code == ReplyCode::kDeadlineExceeded) return GrpcStatus::kDeadlineExceeded;
  switch (InfoOf(code).status) {
    case 400: return GrpcStatus::kInternal;
    case 401: return GrpcStatus::kUnauthenticated;
    case 403: return GrpcStatus::kPermissionDenied;
    case 404: return GrpcStatus::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504: return GrpcStatus::kUnavailable;
    default: return GrpcStatus::kUnknown;
  }
}

std::string GrpcMessage(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '%') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace penstock
