// A chat template in the part of Jinja that published models use, rendered as
// Hugging Face renders it (trim_blocks, lstrip_blocks, loop controls, tojson
// without HTML escapes, immutable values). Differences: filters give lists
// where Python gives generators, integers have 64 bits, and include, import,
// extends and recursive loops do not exist.
//
// Threads: const once parsed; any thread may render.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock::engine {

namespace jinja {
class Dict;
}  // namespace jinja

inline constexpr size_t kTemplateBytesMax = 1 << 20;

// What one render may use up before it is given up.
struct TemplateLimits {
  size_t steps = 5'000'000;         // Nodes of the tree, plus work on long values.
  size_t bytes = 512 << 20;         // Made in all, kept or not.
  size_t output_bytes = 64 << 20;   // Of the result, and of any one value.
};

class Template {
 public:
  static absl::StatusOr<std::unique_ptr<const Template>> Parse(std::string_view source);
  ~Template();

  // InvalidArgument where the template fails or raises, ResourceExhausted
  // where it goes beyond a limit; messages name the template's line.
  absl::StatusOr<std::string> Render(const jinja::Dict& variables, absl::Time now,
                                     const TemplateLimits& limits = {}) const;

 private:
  struct Tree;
  Template();

  std::unique_ptr<Tree> tree_;
};

}  // namespace penstock::engine
