#include "tests/gpu/speed.h"

#include "tests/gpu/speed_engine.h"
#include "tests/gpu/speed_kernels.h"

namespace penstock::engine {

// What is asked of each is 85 % of the roofline of an H200, or what today's best engines do.
SpeedSizes SizesForTheTable() {
  const ModelConfig llama{.architecture = Architecture::kLlama, .vocab_size = 128256,
                          .hidden_size = 4096, .intermediate_size = 14336, .layer_count = 32,
                          .head_count = 32, .kv_head_count = 8, .head_dim = 128,
                          .max_positions = 9216, .rms_eps = 1e-5};
  const ModelConfig qwen{.architecture = Architecture::kQwen2, .vocab_size = 152064,
                         .hidden_size = 3584, .intermediate_size = 18944, .layer_count = 28,
                         .head_count = 28, .kv_head_count = 4, .head_dim = 128,
                         .max_positions = 9216, .rms_eps = 1e-6, .qkv_bias = true};
  SpeedSizes sizes;
  sizes.products = {{6144, 4096},   {4096, 4096}, {28672, 4096}, {4096, 14336},
                    {128256, 4096}, {4608, 3584}, {37888, 3584}, {3584, 18944}};
  sizes.attentions = {{1, 1024, 1},  {1, 8192, 1}, {64, 8192, 1, 4.0}, {256, 1024, 1},
                      {1, 0, 1024}, {1, 0, 8192}, {8, 0, 4096}};
  sizes.models = {
      {.name = "Llama-3.1-8B", .config = llama,
       .decodes = {{1, 240}, {4}, {16}, {64}, {256, 18000}},
       .first_token_at_most = 10, .prompt_at_most = 210},
      {.name = "Qwen2.5-7B", .config = qwen, .decodes = {{1, 245}, {16}, {256}},
       .first_token_at_most = 10}};
  sizes.sums_over = llama;
  sizes.sums_over.layer_count = 1;
  sizes.sums_over.vocab_size = 4096;
  return sizes;
}

void MeasureSpeed(const SpeedSizes& sizes, Report& report) {
  cuda::GpuDescription gpu;
  int gpus = 0;
  Must(cuda::CountGpus(gpus), "counting the GPUs");
  Must(cuda::DescribeGpu(0, gpu), "the GPU's description");
  {
    GpuClock clock;
    cuda::Gemm gemm;
    std::string error;
    if (!gemm.Start(error)) Must(cuda::kGpuInvalid, error.c_str());
    MeasureCeilings(sizes, clock, gemm, report);
    MeasureProducts(sizes, clock, gemm, report);
    MeasureAttention(sizes, gpu.sm_count, clock, report);
  }
  for (const SpeedSizes::Model& model : sizes.models) MeasureEngine(sizes, model, report);
  MeasureSums(sizes, gpus, report);
}

}  // namespace penstock::engine
