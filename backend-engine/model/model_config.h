// What a model is, as plain numbers: read from config.json by load/, used by
// the model, the scheduler and the kernels. No strings are parsed here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace penstock::engine {

enum class Architecture { kLlama, kQwen2 };

enum class RopeKind { kDefault, kLinear, kDynamic, kLlama3, kYarn };

// Rotary embedding; formulas as in the model library of Hugging Face
// (modeling_rope_utils), field by field.
struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;      // llama3
  int64_t original_max_positions = 0; // llama3, yarn; 0: max_positions
  double beta_fast = 32.0;            // yarn
  double beta_slow = 1.0;             // yarn
  double attention_factor = 0.0;      // yarn; 0: 0.1 ln(factor) + 1
};

struct ModelConfig {
  Architecture architecture = Architecture::kQwen2;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layer_count = 0;
  int64_t head_count = 0;     // Query heads.
  int64_t kv_head_count = 0;  // Divides head_count.
  int64_t head_dim = 0;
  int64_t max_positions = 0;  // Prompt and answer together, in tokens, where nobody asks for
  int64_t positions_limit = 0;  // more, up to this; 0: nobody may.
  double rms_eps = 1e-6;
  bool qkv_bias = false;
  bool output_bias = false;   // Bias on o_proj.
  bool mlp_bias = false;
  bool tied_embeddings = false;
  RopeConfig rope;
  std::vector<int32_t> eos_token_ids;  // config.json and generation_config.json together.
  std::string name;                    // For messages and /v1/models.

  // Positions to be ready for where sequences of `asked` tokens are; 0: the usual ones.
  int64_t PositionsFor(int64_t asked) const {
    return asked > 0 ? std::min(asked, std::max(max_positions, positions_limit)) : max_positions;
  }
};

}  // namespace penstock::engine
