// round_robin: each backend in turn.
//
// The memory is one id, the last one picked, so a backend that is left out for a
// while does not disturb the order of the others. A weight below the highest is
// a chance to be passed over when its turn comes: with equal weights the turns
// are exact, otherwise the shares are, in the long run. The first turn is drawn,
// or every worker would begin with the first backend of the file.
#include <algorithm>
#include <memory>

#include "lb-policies/choice.h"
#include "lb-policies/params.h"
#include "lb-policies/policy.h"

namespace penstock::lb {
namespace {

class RoundRobin final : public Policy {
 public:
  std::optional<size_t> Pick(const RequestInfo& request, std::span<const Candidate> candidates,
                             std::span<Terms>) override {
    Dice dice(request.random);
    float highest = 0;
    for (const Candidate& candidate : candidates) highest = std::max(highest, WeightNow(candidate));
    size_t index = started_ ? After(last_, candidates) : dice.Below(candidates.size());
    // One round at most: the heaviest is never passed over.
    for (size_t step = 1; step < candidates.size(); ++step) {
      const float weight = WeightNow(candidates[index]);
      if (weight >= highest || dice.Unit() * highest < weight) break;
      index = (index + 1) % candidates.size();
    }
    started_ = true;
    last_ = candidates[index].id;
    return index;
  }

 private:
  // Index of the next id above `last`, or of the lowest one.
  static size_t After(BackendId last, std::span<const Candidate> candidates) {
    size_t lowest = 0;
    std::optional<size_t> next;
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].id < candidates[lowest].id) lowest = i;
      if (candidates[i].id > last && (!next || candidates[i].id < candidates[*next].id)) next = i;
    }
    return next.value_or(lowest);
  }

  bool started_ = false;
  BackendId last_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakeRoundRobin(const Params& params) {
  if (auto status = ParamReader("round_robin", params).Finish(); !status.ok()) return status;
  return std::make_unique<RoundRobin>();
}

}  // namespace penstock::lb
