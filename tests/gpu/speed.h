// How fast the kernels and the whole engine are on this GPU, each beside the
// ceiling measured in the same run: a copy of memory, and a large product.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/model/model_config.h"
#include "tests/gpu/report.h"

namespace penstock::engine {

// What is measured. By default what a table for an H200 needs; a test takes little.
struct SpeedSizes {
  int64_t copy_bytes = int64_t{1} << 30;
  size_t beyond_caches = size_t{256} << 20;
  int32_t square = 8192;  // Of the product that is the ceiling.

  struct Product {
    int32_t rows, cols;  // Of the weight.
  };
  std::vector<Product> products;
  std::vector<int32_t> product_tokens = {1, 2, 4, 16, 64, 256};

  // `tokens` of each sequence: 1 is a decode step after `context`, more a whole prompt.
  struct Attention {
    int32_t sequences, context, tokens;
    double at_least = 0;  // TB/s, where decoding.
  };
  int32_t heads = 32, kv_heads = 8, head_dim = 128;
  std::vector<Attention> attentions;

  struct Decode {
    int32_t batch;
    double at_least = 0;  // tok/s
  };
  struct Model {
    std::string name;
    ModelConfig config;
    std::vector<Decode> decodes;
    double first_token_at_most = 0;  // Seconds from nothing, with the checkpoint in memory.
    double prompt_at_most = 0;       // Milliseconds.
  };
  std::vector<Model> models;
  int32_t decode_steps = 30, decode_context = 1024, prompt = 8192;

  ModelConfig sums_over;        // Whose hidden size and steps the sums have.
  std::vector<int> sums_ranks = {2, 4};
};

// Llama-3.1-8B and Qwen2.5-7B, and their parts.
SpeedSizes SizesForTheTable();

void MeasureSpeed(const SpeedSizes& sizes, Report& report);

}  // namespace penstock::engine
