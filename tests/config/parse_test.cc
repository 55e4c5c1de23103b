#include "config/parse.h"

#include <gtest/gtest.h>

#include "config/file.h"

namespace penstock::config {
namespace {

std::string SourceFile(const std::string& path) { return std::string(PENSTOCK_SOURCE_DIR) + "/" + path; }

TEST(ShippedPolicies, LoadWithoutAWarning) {
  for (const char* path : {"config/example.yaml", "config/quickstart.yaml", "tests/bench/proxy_cost.yaml"}) {
    const ParseResult result = LoadFile(SourceFile(path));
    EXPECT_TRUE(result.ok());
    EXPECT_EQ(result.Messages(), "") << path;
  }
}

}  // namespace
}  // namespace penstock::config
