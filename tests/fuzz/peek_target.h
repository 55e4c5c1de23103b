// What must hold for any bytes as the body of an inference request: they are refused
// with a reason, or their canonical form is read as the same request and is its own
// canonical form.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proxy/base/check.h"
#include "proxy/request/peek.h"

namespace penstock {

inline void FuzzPeek(std::string_view body) {
  static Peeker* const peeker = new Peeker(64);
  static Peeker* const other = new Peeker(64);
  const absl::StatusOr<PeekedRequest> read = peeker->Peek(body);
  if (!read.ok()) {
    CHECK(!read.status().message().empty());
    return;
  }
  std::string canonical;
  peeker->AppendCanonical(canonical);
  const absl::StatusOr<PeekedRequest> again = other->Peek(canonical);
  CHECK(again.ok());
  CHECK(again->model == read->model && again->stream == read->stream && again->n == read->n);
  CHECK(again->max_tokens == read->max_tokens && again->seed == read->seed && again->top_k == read->top_k);
  CHECK(again->temperature.has_value() == read->temperature.has_value());
  CHECK(again->deterministic() == read->deterministic());
  std::string twice;
  other->AppendCanonical(twice);
  CHECK(twice == canonical);
}

}  // namespace penstock
