// explain: what the proxy would do with a request, in the proxy's own words: the
// route table and the effective policy are those that `serve` works with.
#include <algorithm>
#include <variant>

#include "config/show.h"
#include "fmt/format.h"
#include "proxy/cli.h"
#include "proxy/policy_file.h"
#include "proxy/request/route.h"

namespace penstock {
namespace {

using config::Config;
using config::Locations;

// "policy.yaml:14", or "default" for what the file does not say.
std::string Place(const Config& config, const Locations& where, const std::string& path) {
  const auto found = where.find(path);
  return found == where.end() ? "default" : fmt::format("{}:{}", config.file, found->second.line);
}

void Line(std::ostream& out, std::string_view what, std::string_view value,
          std::string_view place) {
  out << fmt::format("{:<42} {:<28} {}\n", what, value, place);
}

std::string DescribeMatch(const config::Route& route) {
  std::string text;
  if (!route.path.empty()) text += "path " + route.path;
  if (!route.path_prefix.empty()) text += "path_prefix " + route.path_prefix;
  if (!route.model.empty()) text += (text.empty() ? "model " : ", model ") + route.model;
  return text.empty() ? "any request" : text;
}

void WriteRoute(const config::ParseResult& result, const RouteTable::Match& match,
                std::ostream& out) {
  const Config& config = *result.config;
  for (size_t i = 0; i < config.routes.size(); ++i) {
    const config::Route& route = config.routes[i];
    if (route.name != match.route) continue;
    Line(out, "route " + route.name, DescribeMatch(route),
         Place(config, result.where, fmt::format("routes[{}]", i)));
    return;
  }
  Line(out, "route", match.route == "model" ? "the pool that has the model" : "the first pool",
       "no route was written for it");
}

// Every setting of the pool, with the line that says it: the pool's own, or that
// of `defaults`.
void WritePool(const config::ParseResult& result, size_t index, std::ostream& out) {
  const Config& config = *result.config;
  const config::Pool& pool = config.pools[index];
  const std::string in_file = fmt::format("pools[{}]", index);
  Line(out, "pool " + pool.name,
       fmt::format("{} backend{}", pool.backends.size(), pool.backends.size() == 1 ? "" : "s"),
       Place(config, result.where, in_file));
  const std::string prefix = fmt::format("pools[{}].", pool.name);
  for (const config::Setting& setting : config::Flatten(config)) {
    if (!setting.path.starts_with(prefix)) continue;
    const std::string field = setting.path.substr(prefix.size());
    if (field == "name" || field.starts_with("models") || field.starts_with("backends")) continue;
    std::string path = in_file + "." + field;
    if (!result.where.contains(path)) path = "defaults." + field;
    Line(out, "  " + field, setting.value, Place(config, result.where, path));
  }
  for (size_t i = 0; i < pool.backends.size(); ++i) {
    const config::Backend& backend = pool.backends[i];
    Line(out, "  backend " + backend.name,
         fmt::format("{}, weight {:g}", backend.address, backend.weight),
         Place(config, result.where, fmt::format("{}.backends[{}]", in_file, i)));
  }
}

}  // namespace

int RunExplain(const ExplainQuery& query, std::ostream& out, std::ostream& err) {
  const config::ParseResult result = LoadPolicyFile(query.file);
  err << result.Messages();
  if (!result.ok()) return kExitWrong;
  const bool inference = IsInferencePath(query.method, query.path);
  const RouteTable routes(*result.config);
  const bool lists_models = std::ranges::any_of(
      result.config->pools, [](const config::Pool& pool) { return !pool.models.empty(); });
  if (query.method == "GET" && lists_models &&
      (query.path == "/v1/models" || query.path.starts_with("/v1/models/"))) {
    out << fmt::format("GET {}\nanswered by the proxy itself, to everybody: the models of all pools\n", query.path);
    return kExitOk;
  }
  if (inference && query.model.empty()) {
    out << fmt::format("{} {}\nno route: the proxy answers 400, the body has to name a model (--model)\n",
                       query.method, query.path);
    return kExitNoRoute;
  }
  const auto found = routes.Find(query.path, inference ? query.model : "");
  out << fmt::format("{} {}{}\n", query.method, query.path,
                     inference ? " for model " + query.model
                               : " (not inference: the body streams, no model is read)");
  if (const auto* none = std::get_if<RouteTable::NoMatch>(&found)) {
    out << fmt::format("no route: {}\n", none->message);
    return kExitNoRoute;
  }
  const auto& match = std::get<RouteTable::Match>(found);
  WriteRoute(result, match, out);
  WritePool(result, match.pool, out);
  return kExitOk;
}

}  // namespace penstock
