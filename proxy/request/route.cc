#include "proxy/request/route.h"

#include <algorithm>

#include <fmt/format.h>

namespace penstock {
namespace {

std::string ModelObject(std::string_view id, std::string_view pool) {
  std::string escaped;
  for (const char c : id) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return fmt::format(R"({{"id":"{}","object":"model","created":0,"owned_by":"{}"}})", escaped, pool);
}

}  // namespace

bool IsInferencePath(std::string_view method, std::string_view path) {
  return method == "POST" && path.starts_with("/v1/") &&
         (path == "/v1/chat/completions" || path == "/v1/completions" || path == "/v1/embeddings" ||
          path == "/v1/responses");
}

RouteTable::RouteTable(const config::Config& config) {
  std::string list;
  for (size_t pool = 0; pool < config.pools.size(); ++pool) {
    pools_.push_back(config.pools[pool].name);
    for (const config::Model& model : config.pools[pool].models) {
      models_.try_emplace(model.name, Model{static_cast<uint32_t>(pool), ""});
      if (!list.empty()) list += ',';
      list += ModelObject(model.name, config.pools[pool].name);
      for (const std::string& alias : model.aliases) {
        models_.try_emplace(alias, Model{static_cast<uint32_t>(pool), model.name});
        list += ',' + ModelObject(alias, config.pools[pool].name);
      }
    }
  }
  models_json_ = R"({"object":"list","data":[)" + list + "]}";
  for (const config::Route& route : config.routes) {
    Rule rule{route, -1};
    for (size_t pool = 0; pool < config.pools.size(); ++pool) {
      if (config.pools[pool].name == route.pool) rule.pool = static_cast<int64_t>(pool);
    }
    rules_.push_back(std::move(rule));
  }
}

std::variant<RouteTable::Match, RouteTable::NoMatch> RouteTable::Find(std::string_view path,
                                                                      std::string_view model) const {
  const auto by_model = models_.find(model);
  const int64_t model_pool = by_model == models_.end() ? int64_t{-1} : by_model->second.pool;
  const auto to = [&](int64_t pool, std::string_view route) {
    return Match{static_cast<uint32_t>(pool), route,
                 pool == model_pool ? std::string_view(by_model->second.renamed) : std::string_view()};
  };
  for (const Rule& rule : rules_) {
    const config::Route& route = rule.route;
    const bool path_fits = route.path.empty() ? path.starts_with(route.path_prefix) : path == route.path;
    if (!path_fits || (!route.model.empty() && route.model != model)) continue;
    const int64_t pool = rule.pool >= 0 ? rule.pool : model_pool;
    if (pool >= 0) return to(pool, route.name);
  }
  if (model_pool >= 0) return to(model_pool, "model");
  if (!model.empty() && !models_.empty()) {
    return NoMatch{ReplyCode::kModelNotFound,
                   fmt::format("no pool serves the model \"{}\"; GET /v1/models lists those there are",
                               model.substr(0, 128))};
  }
  if (rules_.empty()) return to(0, "default");
  return NoMatch{ReplyCode::kRouteNotFound,
                 fmt::format("no route takes {}", path.substr(0, 128))};
}

std::string RouteTable::ModelJson(std::string_view id) const {
  const auto found = models_.find(id);
  if (found == models_.end()) return "";
  return ModelObject(id, pools_[found->second.pool]);
}

}  // namespace penstock
