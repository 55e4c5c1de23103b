// least_request: the fewest requests in flight from this proxy, per unit of weight.
//
// The word is Envoy's and so is the meaning: (in flight + 1) / weight of two
// backends drawn at random, the lower one wins. Up to kAll candidates all are
// looked at instead, since that costs no more there and balances better; beyond
// that, two are enough, and two workers that see the same figures do not run
// after the same backend.
#include <memory>

#include "lb-policies/choice.h"
#include "lb-policies/params.h"
#include "lb-policies/policy.h"

namespace penstock::lb {
namespace {

constexpr size_t kAll = 8;

class LeastRequest final : public Policy {
 public:
  std::optional<size_t> Pick(const RequestInfo& request, std::span<const Candidate> candidates,
                             std::span<Terms> terms_out) override {
    Dice dice(request.random);
    Lowest lowest;
    const auto offer = [&](size_t index) {
      const float u = (candidates[index].inflight + 1) / WeightNow(candidates[index]);
      if (!terms_out.empty()) terms_out[index].score = terms_out[index].u = u;
      lowest.Offer(index, u, dice);
    };
    if (candidates.size() <= kAll) {
      for (size_t i = 0; i < candidates.size(); ++i) offer(i);
    } else {
      const size_t first = dice.Below(candidates.size());
      offer(first);
      offer((first + 1 + dice.Below(candidates.size() - 1)) % candidates.size());
    }
    return lowest.index();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakeLeastRequest(const Params& params) {
  if (auto status = ParamReader("least_request", params).Finish(); !status.ok()) return status;
  return std::make_unique<LeastRequest>();
}

}  // namespace penstock::lb
