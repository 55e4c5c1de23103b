// random: any backend, as often as its weight says. The yardstick for the others.
#include <memory>

#include "lb-policies/choice.h"
#include "lb-policies/params.h"
#include "lb-policies/policy.h"

namespace penstock::lb {
namespace {

class Random final : public Policy {
 public:
  std::optional<size_t> Pick(const RequestInfo& request, std::span<const Candidate> candidates,
                             std::span<Terms>) override {
    float sum = 0;
    for (const Candidate& candidate : candidates) sum += WeightNow(candidate);
    float left = Dice(request.random).Unit() * sum;
    for (size_t i = 0; i + 1 < candidates.size(); ++i) {
      left -= WeightNow(candidates[i]);
      if (left < 0) return i;
    }
    return candidates.size() - 1;
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakeRandom(const Params& params) {
  if (auto status = ParamReader("random", params).Finish(); !status.ok()) return status;
  return std::make_unique<Random>();
}

}  // namespace penstock::lb
