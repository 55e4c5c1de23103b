// What the proxy must know of an inference request's JSON body: read once, with
// one reused parser a worker. The body itself is forwarded as it came.
//
// The whole document is validated: depth, duplicate keys anywhere, UTF-8, and
// nothing after it. Errors name the place in the client's words.
//
// Threads: one Peeker a worker.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace penstock {

struct PeekedRequest {
  std::string_view model;                // Views into the Peeker; valid until its next call.
  bool stream = false;
  std::optional<int64_t> max_tokens;     // max_completion_tokens or max_tokens.
  std::optional<double> temperature;
  std::optional<int64_t> seed;
  std::optional<int64_t> top_k;
  int64_t n = 1;
  uint32_t prompt_tokens_estimate = 0;   // Body bytes / 4: for the policies' eyes only.

  // The same request always gives the same answer: explicit temperature 0, or
  // top_k 1, and one choice.
  bool deterministic() const {
    return n == 1 && ((temperature && *temperature == 0.0) || (top_k && *top_k == 1));
  }
};

class Peeker {
 public:
  explicit Peeker(uint32_t depth_max);
  ~Peeker();

  void SetDepthMax(uint32_t depth_max);

  // Room behind a body that lets it be read where it lies.
  static constexpr size_t kPadding = 64;

  // Reads `body` where it lies, and moves it only where it has no kPadding of capacity
  // left. It stays unchanged for as long as the members below are called.
  // Errors: InvalidArgument, fit for a 400.
  absl::StatusOr<PeekedRequest> Peek(std::string& body);
  // Reads a copy, for whoever has no string with room.
  absl::StatusOr<PeekedRequest> Peek(std::string_view body);

  // Puts `name` in the place of the model; every other byte stays as it came. `body` is
  // the one that Peek() has just read, and counts as peeked when this returns.
  // Errors: ResourceExhausted, or InvalidArgument if `name` is not UTF-8.
  absl::Status RenameModel(std::string_view name, std::string& body);

  // The last peeked body in canonical form, appended to `out`: members sorted,
  // white space gone, strings in one spelling, numbers as they came.
  // REQUIRES: Peek() succeeded.
  void AppendCanonical(std::string& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
