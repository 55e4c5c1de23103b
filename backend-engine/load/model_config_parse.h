// config.json and generation_config.json of a Hugging Face folder as plain
// numbers. Refuses, naming field, what was found and what is allowed, anything
// that the engine would compute wrongly: no field that changes the arithmetic
// is skipped in silence.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "backend-engine/model/model_config.h"

namespace penstock::engine {

// What generation_config.json asks for where a request says nothing.
struct GenerationDefaults {
  std::optional<double> temperature;  // 0 where the file says do_sample: false.
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<int64_t> top_k;       // 0 or -1: no limit.
  std::optional<double> repetition_penalty;
  std::optional<int64_t> max_new_tokens;
};

struct ParsedConfig {
  ModelConfig model;
  GenerationDefaults generation;
};

// `generation_text` is empty where the file does not exist. `name` becomes
// ModelConfig::name. The eos ids of both files are joined.
absl::StatusOr<ParsedConfig> ParseModelConfig(std::string_view config_text,
                                              std::string_view generation_text,
                                              std::string_view name);

}  // namespace penstock::engine
