// From a request's path and model to the pool that answers it. Built once from
// a policy file; immutable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "config/config.h"
#include "proxy/http/error_reply.h"

namespace penstock {

// Requests that carry a prompt: their bodies are read whole, and their answers
// have a first token.
bool IsInferencePath(std::string_view method, std::string_view path);

class RouteTable {
 public:
  struct Match {
    uint32_t pool = 0;              // Index into Config::pools.
    std::string_view route;         // Name, for logs; "model" or "default" where none was written.
    std::string_view renamed;       // The pool's own name for what was asked for by an alias; else empty.
  };
  struct NoMatch {
    ReplyCode code = ReplyCode::kRouteNotFound;
    std::string message;
  };

  explicit RouteTable(const config::Config& config);

  // `model` is empty for requests that are not inference. `config` is the one
  // this table was built from.
  std::variant<Match, NoMatch> Find(std::string_view path, std::string_view model) const;

  // The answer of GET /v1/models, and of GET /v1/models/{id} (empty: unknown).
  const std::string& models_json() const { return models_json_; }
  std::string ModelJson(std::string_view id) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return absl::Hash<std::string_view>{}(text); }
  };
  struct Model {
    uint32_t pool = 0;
    std::string renamed;            // An alias: the model's own name.
  };
  using ByName = absl::flat_hash_map<std::string, Model, Hash, std::equal_to<>>;

  struct Rule {
    config::Route route;
    int64_t pool = -1;              // -1: the pool that has the model.
  };

  std::vector<Rule> rules_;
  std::vector<std::string> pools_;  // Their names.
  ByName models_;                   // Names and aliases.
  std::string models_json_;
};

}  // namespace penstock
