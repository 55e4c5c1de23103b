// The table of policies. The lines of policies.def are read twice: once to
// declare the factories, once to fill the table, so a policy needs no header.
#include <array>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "lb-policies/policy.h"
#include "proxy/base/suggest.h"

namespace penstock::lb {

#define POLICY(name, factory, needs, sentence) \
  absl::StatusOr<std::unique_ptr<Policy>> factory(const Params& params);
#include "lb-policies/policies.def"
#undef POLICY

namespace {

using Factory = absl::StatusOr<std::unique_ptr<Policy>> (*)(const Params&);

constexpr std::array kInfos = {
#define POLICY(name, factory, needs, sentence) PolicyInfo{#name, needs, sentence},
#include "lb-policies/policies.def"
#undef POLICY
};

constexpr std::array<Factory, kInfos.size()> kFactories = {
#define POLICY(name, factory, needs, sentence) factory,
#include "lb-policies/policies.def"
#undef POLICY
};

}  // namespace

std::span<const PolicyInfo> Policies() { return kInfos; }

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const Params& params) {
  for (size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name == name) return kFactories[i](params);
  }
  std::array<std::string_view, kInfos.size()> names;
  for (size_t i = 0; i < kInfos.size(); ++i) names[i] = kInfos[i].name;
  const std::string_view nearest = Nearest(name, names);
  return absl::NotFoundError(fmt::format(
      "no policy is named \"{}\"; {}", name,
      nearest.empty()
          ? fmt::format("known: {}", fmt::join(names, ", "))
          : fmt::format("did you mean \"{}\"? known: {}", nearest, fmt::join(names, ", "))));
}

}  // namespace penstock::lb
