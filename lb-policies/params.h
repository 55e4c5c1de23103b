// Reads a policy's own settings out of the words of the policy file.
//
//   ParamReader reader("weighted_score", params);
//   reader.Number("alpha", 0, 100, alpha);
//   if (auto status = reader.Finish(); !status.ok()) return status;
//
// The first wrong setting is reported, by name, with what was found and what is
// allowed; a setting that nobody asked for is wrong too.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "lb-policies/policy.h"

namespace penstock::lb {

class ParamReader {
 public:
  // Both outlive the reader.
  ParamReader(std::string_view policy, const Params& params) : policy_(policy), params_(params) {}

  // Replaces `value` if the setting is there, a plain decimal number, and from
  // `lowest` to `highest`.
  void Number(std::string_view key, double lowest, double highest, double& value);

  // The first thing wrong, or OK. Call after every setting was asked for.
  absl::Status Finish();

 private:
  std::string_view policy_;
  const Params& params_;
  std::vector<std::string_view> known_;
  std::string error_;
};

}  // namespace penstock::lb
