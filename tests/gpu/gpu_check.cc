// The GPU code against its plain twins, on a GPU. tests/gpu/check builds and
// runs it; its last line says how many checks failed. Without a GPU nothing is
// checked, and the exit status is 3.
//
//   gpu_check --find               only says whether there is a GPU
//   gpu_check [--seed N] [--small] [--speed] [--model DIR] [--record FILE] [--fact NAME=VALUE]...
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "backend-engine/kernels/cuda/gpu.h"
#include "backend-engine/parallel/nccl_comm.h"
#include "tests/gpu/engine_checks.h"
#include "tests/gpu/gpu_array.h"
#include "tests/gpu/report.h"
#include "tests/gpu/speed.h"

namespace penstock::engine {
namespace {

constexpr int kNoGpu = 3;  // The exit status.

struct Options {
  uint32_t seed = 1;
  bool small = false;  // Fewer shapes and answers: for compute-sanitizer.
  bool speed = false;
  bool find = false;
  std::string record;
  std::string model;   // Folder of the embedded model; empty: without the engine's checks.
};

bool Parse(int count, char** words, Options& options, Report& report) {
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const char* value = i + 1 < count ? words[i + 1] : nullptr;
    if (word == "--small" || word == "--speed" || word == "--find") {
      (word == "--small" ? options.small : word == "--speed" ? options.speed : options.find) = true;
      continue;
    }
    if (value == nullptr) return false;
    ++i;
    if (word == "--seed") {
      options.seed = static_cast<uint32_t>(std::strtoul(value, nullptr, 10));
    } else if (word == "--record") {
      options.record = value;
    } else if (word == "--model") {
      options.model = value;
    } else if (word == "--fact") {
      const std::string fact = value;
      const size_t equals = fact.find('=');
      if (equals == std::string::npos) return false;
      report.Fact(fact.substr(0, equals), fact.substr(equals + 1));
    } else {
      return false;
    }
  }
  return true;
}

int Main(int count, char** words) {
  Report report;
  Options options;
  if (!Parse(count, words, options, report)) {
    std::fprintf(stderr, "usage: gpu_check [--find] [--seed N] [--small] [--speed] [--model DIR] "
                         "[--record FILE] [--fact NAME=VALUE]...\n");
    return 2;
  }
  int gpus = 0;
  const cuda::GpuError error = cuda::CountGpus(gpus);
  if (error != cuda::kGpuOk || gpus == 0) {
    std::printf("no CUDA device (%s): nothing was checked\n",
                error != cuda::kGpuOk ? cuda::ErrorText(error).c_str() : "the driver knows none");
    return kNoGpu;
  }
  if (options.find) return 0;
  cuda::GpuDescription gpu;
  Must(cuda::DescribeGpu(0, gpu), "the GPU's description");
  Must(cuda::UseGpu(0), "the GPU");
  report.Fact("gpu", gpu.name);
  report.Fact("gpus", std::to_string(gpus));
  report.Fact("seed", std::to_string(options.seed));
  Checks checks(options.seed, !options.small);
  checks.All();
  report.Add(checks.results());
  if (!options.model.empty()) {
    const PlainModel model(options.model);
    report.Add(CheckEngine(model, options.small
                                      ? EngineCheckOptions{.answers = 2, .tokens = 4, .likelihoods = 0}
                                      : EngineCheckOptions{}));
  }
  if (NcclComm::Available()) report.Add(CheckNccl());
  if (options.speed) MeasureSpeed(SizesForTheTable(), report);
  if (!options.record.empty() && !report.Write(options.record)) {
    std::fprintf(stderr, "gpu_check: %s cannot be written\n", options.record.c_str());
    return 1;
  }
  report.Print();
  return report.Failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace penstock::engine

int main(int count, char** words) { return penstock::engine::Main(count, words); }
