#include "proxy/request/route.h"

#include <string>
#include <variant>

#include <gtest/gtest.h>

namespace penstock {
namespace {

config::Pool PoolNamed(std::string name, std::vector<config::Model> models = {}) {
  config::Pool pool;
  pool.name = std::move(name);
  pool.models = std::move(models);
  return pool;
}

config::Config TwoPools() {
  config::Config config;
  config.pools.push_back(PoolNamed("large", {{"ox-70b", {"ox", "default"}}}));
  config.pools.push_back(PoolNamed("small", {{"wren-1b", {}}}));
  return config;
}

config::Route RouteTo(std::string pool, std::string prefix, std::string model = "") {
  config::Route route;
  route.name = "written";
  route.pool = std::move(pool);
  route.path_prefix = std::move(prefix);
  route.model = std::move(model);
  return route;
}

// "POOL ROUTE", or what the error says.
std::string Found(const RouteTable& table, std::string_view path, std::string_view model) {
  const auto found = table.Find(path, model);
  if (const auto* match = std::get_if<RouteTable::Match>(&found)) {
    return std::to_string(match->pool) + " " + std::string(match->route);
  }
  return std::get<RouteTable::NoMatch>(found).message;
}

constexpr std::string_view kChat = "/v1/chat/completions";

TEST(InferencePath, IsAPostToOneOfFour) {
  EXPECT_TRUE(IsInferencePath("POST", kChat));
  EXPECT_TRUE(IsInferencePath("POST", "/v1/completions"));
  EXPECT_TRUE(IsInferencePath("POST", "/v1/embeddings"));
  EXPECT_TRUE(IsInferencePath("POST", "/v1/responses"));
  EXPECT_FALSE(IsInferencePath("GET", kChat));
  EXPECT_FALSE(IsInferencePath("POST", "/v1/chat/completions/"));
  EXPECT_FALSE(IsInferencePath("POST", "/v1/files"));
}

TEST(RouteTable, AModelLeadsToItsPoolByNameAndByAlias) {
  const RouteTable table(TwoPools());
  EXPECT_EQ(Found(table, kChat, "ox-70b"), "0 model");
  EXPECT_EQ(Found(table, kChat, "ox"), "0 model");
  EXPECT_EQ(Found(table, kChat, "wren-1b"), "1 model");
}

TEST(RouteTable, AnAliasIsRenamedForThePoolThatHasIt) {
  config::Config config = TwoPools();
  config.routes.push_back(RouteTo("small", "/v1/completions"));
  const RouteTable table(config);
  const auto renamed = [&](std::string_view path, std::string_view model) {
    return std::get<RouteTable::Match>(table.Find(path, model)).renamed;
  };
  EXPECT_EQ(renamed(kChat, "ox"), "ox-70b");
  EXPECT_EQ(renamed(kChat, "default"), "ox-70b");
  EXPECT_EQ(renamed(kChat, "ox-70b"), "");
  EXPECT_EQ(renamed("/v1/completions", "ox"), "");  // Another pool: its name for it is not known.
  EXPECT_EQ(renamed("/v1/completions", ""), "");
}

TEST(RouteTable, AnUnknownModelIsToldWhereTheKnownOnesAreListed) {
  const RouteTable table(TwoPools());
  const auto found = table.Find(kChat, "OX");
  const auto* no = std::get_if<RouteTable::NoMatch>(&found);
  ASSERT_NE(no, nullptr);
  EXPECT_EQ(no->code, ReplyCode::kModelNotFound);
  EXPECT_EQ(no->message, "no pool serves the model \"OX\"; GET /v1/models lists those there are");
}

TEST(RouteTable, AnErrorRepeatsNoMoreThanTheBeginningOfWhatAClientSent) {
  const RouteTable table(TwoPools());
  EXPECT_LT(Found(table, kChat, std::string(100'000, 'x')).size(), 300u);
}

TEST(RouteTable, WithoutRoutesOtherPathsGoToTheFirstPool) {
  const RouteTable table(TwoPools());
  EXPECT_EQ(Found(table, "/v1/files", ""), "0 default");
}

TEST(RouteTable, WithoutModelsEveryModelGoesToTheFirstPool) {
  config::Config config;
  config.pools.push_back(PoolNamed("any"));
  EXPECT_EQ(Found(RouteTable(config), kChat, "whatever"), "0 default");
}

TEST(RouteTable, TheFirstRouteThatFitsWins) {
  config::Config config = TwoPools();
  config.routes.push_back(RouteTo("small", "/v1/", "ox"));
  config.routes.push_back(RouteTo("large", "/v1/"));
  const RouteTable table(config);
  EXPECT_EQ(Found(table, kChat, "ox"), "1 written");
  EXPECT_EQ(Found(table, kChat, "wren-1b"), "0 written");
}

TEST(RouteTable, AWholePathFitsNoLongerOne) {
  config::Config config = TwoPools();
  config.routes.push_back(RouteTo("small", ""));
  config.routes.back().path = "/v1/files";
  const RouteTable table(config);
  EXPECT_EQ(Found(table, "/v1/files", ""), "1 written");
  EXPECT_EQ(Found(table, "/v1/files/7", ""), "no route takes /v1/files/7");
}

TEST(RouteTable, ARouteWithoutAPoolTakesThePoolOfTheModel) {
  config::Config config = TwoPools();
  config.routes.push_back(RouteTo("", "/v1/chat"));
  const RouteTable table(config);
  EXPECT_EQ(Found(table, kChat, "wren-1b"), "1 written");
  EXPECT_EQ(Found(table, "/v1/chat", ""), "no route takes /v1/chat");
}

TEST(RouteTable, ListsModelsAndAliasesAsOpenAiDoes) {
  const RouteTable table(TwoPools());
  EXPECT_EQ(table.models_json(),
            R"({"object":"list","data":[)"
            R"({"id":"ox-70b","object":"model","created":0,"owned_by":"large"},)"
            R"({"id":"ox","object":"model","created":0,"owned_by":"large"},)"
            R"({"id":"default","object":"model","created":0,"owned_by":"large"},)"
            R"({"id":"wren-1b","object":"model","created":0,"owned_by":"small"}]})");
  EXPECT_EQ(table.ModelJson("ox"),
            R"({"id":"ox","object":"model","created":0,"owned_by":"large"})");
  EXPECT_EQ(table.ModelJson("none"), "");
}

}  // namespace
}  // namespace penstock
