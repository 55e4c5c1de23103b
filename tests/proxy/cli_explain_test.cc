#include "tests/proxy/subcommand.h"

namespace penstock {
namespace {

TEST_F(Subcommand, ExplainNamesRoutePoolAndLines) {
  const std::string file = File(
      "version: v1\n"
      "defaults: {timeouts: {idle: 5s}}\n"
      "pools:\n"
      "  - name: a\n"
      "    models: [m]\n"
      "    backends: [\"a:1\"]\n"
      "    queue: {max: 7}\n"
      "routes:\n"
      "  - {name: chat, match: {path_prefix: /v1/}, pool: a}\n");
  EXPECT_EQ(RunExplain({.file = file, .model = "m"}, out_, err_), kExitOk);
  for (const std::string& line :
       {fmt::format("{:<42} {:<28} {}:9\n", "route chat", "path_prefix /v1/", file),
        fmt::format("{:<42} {:<28} {}:4\n", "pool a", "1 backend", file),
        fmt::format("{:<42} {:<28} {}:2\n", "  timeouts.idle", "5s", file),
        fmt::format("{:<42} {:<28} {}:7\n", "  queue.max", "7", file),
        fmt::format("{:<42} {:<28} default\n", "  load_balancing.algorithm", "weighted_score")}) {
    EXPECT_NE(out_.str().find(line), std::string::npos) << line << "\n" << out_.str();
  }
}

TEST_F(Subcommand, ExplainSaysWhyNothingTakesARequest) {
  EXPECT_EQ(RunExplain({.file = File(kGood), .model = "x"}, out_, err_), kExitNoRoute);
  EXPECT_NE(out_.str().find("no pool serves the model \"x\""), std::string::npos) << out_.str();
}

TEST_F(Subcommand, ExplainSaysWhatTheProxyAnswersByItself) {
  EXPECT_EQ(RunExplain({.file = File(kGood), .path = "/v1/chat/completions"}, out_, err_), kExitNoRoute);
  EXPECT_NE(out_.str().find("400, the body has to name a model"), std::string::npos) << out_.str();
  out_.str("");
  EXPECT_EQ(RunExplain({.file = File(kGood), .method = "GET", .path = "/v1/models"}, out_, err_), kExitOk);
  EXPECT_NE(out_.str().find("answered by the proxy itself"), std::string::npos) << out_.str();
}

}  // namespace
}  // namespace penstock
