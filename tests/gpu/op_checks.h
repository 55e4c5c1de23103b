// Every GPU operation against its plain twin of kernels/ref, over lists of
// shapes: run by tests/gpu/check on a GPU, and by ./test on the emulated one.
//
// Inputs are random, from the seed that a report prints. Outputs begin as NaN.
// A result's error is the largest of |got - want| / (|want| + scale), where
// `scale` is the size of what was summed; NaN and infinity are never right.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "backend-engine/sched/step.h"

namespace penstock::engine {

struct CheckResult {
  std::string op;
  std::string shape;
  double error = 0;
  double allowed = 0;
  bool passed() const { return error <= allowed; }  // False for NaN.
};

class Checks {
 public:
  // `large`: also shapes that take a real GPU.
  Checks(uint32_t seed, bool large) : seed_(seed), large_(large), random_(seed) {}

  void Embed();
  void RmsNorm();
  void Gemv();
  void Gemm();
  void RopeKvWrite();
  void AttentionDecode();
  void AttentionPrefill();
  void SiluMul();
  void GatherRows();
  void Sample();
  void SampleSpoiled();
  void Refusals();
  void All();

  const std::vector<CheckResult>& results() const { return results_; }
  uint32_t seed() const { return seed_; }

 private:
  friend class AttentionCheck;

  // Random numbers that bf16 can hold.
  std::vector<uint16_t> Numbers(size_t count, float scale = 1.0f);
  std::vector<float> Floats(size_t count, float scale = 1.0f);
  int32_t Below(int32_t limit);

  void Compare(const char* op, std::string shape, const std::vector<float>& got,
               const std::vector<float>& want, double scale, double allowed);
  void GemvShape(int32_t tokens, int32_t rows, int32_t cols, bool biased);
  void GemmShape(int32_t tokens, int32_t rows, int32_t cols, bool biased);

  void SampleSetting(const std::string& name, const SamplingParams& params, int32_t vocab,
                     int32_t ranks);

  const uint32_t seed_;
  const bool large_;
  std::mt19937 random_;
  std::vector<CheckResult> results_;
};

std::vector<float> Widened(const std::vector<uint16_t>& bits);

}  // namespace penstock::engine
