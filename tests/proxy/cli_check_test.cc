#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fmt/format.h"
#include "lb-policies/policy.h"
#include "tests/proxy/subcommand.h"

namespace penstock {
namespace {

constexpr std::string_view kWarned =
    "version: v1\npools: [{name: a, models: [m], backends: [\"a:1\"]}]\ncaches: [{name: c}]\n";
constexpr std::string_view kBad = "version: v1\npools: [{name: a, backends: [\"a\"]}]\n";

TEST_F(Subcommand, CheckSaysOkAndWhatThereIs) {
  const std::string file = File(kGood);
  EXPECT_EQ(RunCheck(file, "text", true, out_, err_), kExitOk);
  EXPECT_EQ(out_.str(), file + ": OK: 1 pool, 1 backend, 0 routes, 0 caches\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(Subcommand, CheckReportsErrorsOnTheErrorOutput) {
  const std::string file = File(kBad);
  EXPECT_EQ(RunCheck(file, "text", false, out_, err_), kExitWrong);
  EXPECT_TRUE(err_.str().starts_with(file + ":2:30: pools[0].backends[0].address: ")) << err_.str();
}

TEST_F(Subcommand, CheckTakesWarningsForErrorsWhenStrict) {
  const std::string file = File(kWarned);
  EXPECT_EQ(RunCheck(file, "text", false, out_, err_), kExitOk);
  EXPECT_EQ(RunCheck(file, "text", true, out_, err_), kExitWrong);
}

TEST_F(Subcommand, CheckWritesJson) {
  EXPECT_EQ(RunCheck(File(kBad), "json", false, out_, err_), kExitWrong);
  const auto report = nlohmann::json::parse(out_.str());
  EXPECT_EQ(report["ok"], false);
  EXPECT_EQ(report["diagnostics"][0]["line"], 2);
  EXPECT_EQ(report["diagnostics"][0]["path"], "pools[0].backends[0].address");
}

TEST_F(Subcommand, CheckWritesAnnotations) {
  const std::string file = File(kWarned);
  EXPECT_EQ(RunCheck(file, "github", false, out_, err_), kExitOk);
  EXPECT_EQ(
      out_.str(),
      fmt::format("::warning file={},line=3,col=10::caches[0]: no pool uses the cache \"c\"\n",
                  file));
}

TEST_F(Subcommand, CheckKnowsItsFormats) {
  EXPECT_EQ(RunCheck(File(kGood), "xml", false, out_, err_), kExitUsage);
  EXPECT_EQ(err_.str(), "penstock check: no format is named \"xml\"; known: text, json, github\n");
}

TEST_F(Subcommand, ShowPrintsAPolicyThatMeansTheSame) {
  const std::string file = File(kGood);
  ASSERT_EQ(RunShow(file, out_, err_), kExitOk);
  EXPECT_EQ(RunDiff(file, File(out_.str()), out_, err_), kExitOk) << err_.str();
}

TEST_F(Subcommand, DiffPrintsWhatAReloadWouldChange) {
  const std::string after = File(
      "version: v1\npools: [{name: a, models: [m, n], backends: [\"a:1\"], "
      "timeouts: {connect: 2s}}]\n");
  EXPECT_EQ(RunDiff(File(kGood), after, out_, err_), kExitWrong);
  EXPECT_EQ(out_.str(), "+ pools[a].models[n].name: n\n~ pools[a].timeouts.connect: 1s -> 2s\n");
  EXPECT_EQ(RunDiff(after, File(kBad), out_, err_), kExitUsage);
}

TEST_F(Subcommand, SchemaKnowsEveryPolicyAndRefusesUnknownFields) {
  RunSchema(false, out_);
  const auto schema = nlohmann::json::parse(out_.str());
  EXPECT_EQ(schema["additionalProperties"], false);
  const auto& balancing = schema["properties"]["pools"]["items"]["properties"]["load_balancing"];
  EXPECT_EQ(balancing["properties"]["algorithm"]["enum"].size(), lb::Policies().size());
  EXPECT_EQ(balancing["additionalProperties"], true) << "a policy's own settings";
}

}  // namespace
}  // namespace penstock
