#include "backend-engine/text/template.h"

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/text/template_interpreter.h"
#include "backend-engine/text/template_parser.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {

struct Template::Tree {
  jinja::Block block;
};

Template::Template() = default;
Template::~Template() = default;

absl::StatusOr<std::unique_ptr<const Template>> Template::Parse(std::string_view source) {
  if (source.size() > kTemplateBytesMax) {
    return absl::InvalidArgumentError(fmt::format("chat template: {} bytes; at most {} are read",
                                                  source.size(), kTemplateBytesMax));
  }
  if (!IsValidUtf8(source)) return absl::InvalidArgumentError("chat template: not valid UTF-8");
  absl::StatusOr<jinja::Block> block = jinja::ParseTemplate(source);
  if (!block.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("chat template: {}", std::string(block.status().message())));
  }
  std::unique_ptr<Template> out(new Template);
  out->tree_ = std::make_unique<Tree>(Tree{std::move(*block)});
  return out;
}

absl::StatusOr<std::string> Template::Render(const jinja::Dict& variables, absl::Time now,
                                             const TemplateLimits& limits) const {
  return jinja::Interpreter(limits, now).Run(tree_->block, variables);
}

}  // namespace penstock::engine
