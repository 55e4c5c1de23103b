// The whole GPU engine with the embedded model: its golden answers and likelihoods,
// graphs against eager steps, several ranks on one GPU against one.
#pragma once

#include <string>
#include <vector>

#include "tests/gpu/op_checks.h"
#include "tests/gpu/plain_model.h"

namespace penstock::engine {

struct EngineCheckOptions {
  size_t answers = 1000;       // Of the golden ones, at most.
  size_t tokens = 96;          // Of each, at most.
  size_t likelihoods = 1000;   // Teacher-forced cases, at most.
};

// The closest two likeliest tokens of any golden answer are 0.77 apart, many times
// what bf16 activations move a logit: every answer must be the golden one.
std::vector<CheckResult> CheckEngine(const PlainModel& model, const EngineCheckOptions& options);

// NCCL with one rank: starts, sums, aborts.
std::vector<CheckResult> CheckNccl();

}  // namespace penstock::engine
