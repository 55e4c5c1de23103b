#include "config/diagnostic.h"

#include <gtest/gtest.h>

namespace penstock::config {
namespace {

TEST(Diagnostic, IsOneLineWithItsPlace) {
  EXPECT_EQ(ToString({.file = "p.yaml", .where = {3, 7}, .path = "pools", .message = "is odd"}),
            "p.yaml:3:7: pools: is odd");
  EXPECT_EQ(ToString({.file = "p.yaml", .message = "is empty", .warning = true}),
            "p.yaml: warning: is empty");
}

TEST(Diagnostic, ListsAreSortedByPlaceAndEndAtALimit) {
  std::vector<Diagnostic> list;
  for (size_t i = 0; i < kDiagnosticsKept + 5; ++i) {
    Add(list, {.where = {static_cast<int>(kDiagnosticsKept - i), 1}});
  }
  EXPECT_EQ(list.size(), kDiagnosticsKept);
  Sort(list);
  EXPECT_EQ(list.front().where.line, 1);
}

TEST(Find, FallsBackToWhatStandsAround) {
  const Locations where = {{"pools[0]", {2, 3}}, {"pools[0].auth", {5, 7}}};
  EXPECT_EQ(Find(where, "pools[0].auth.mode").line, 5);
  EXPECT_EQ(Find(where, "pools[0].backends[4].name").line, 2);
  EXPECT_EQ(Find(where, "server").line, 0);
}

}  // namespace
}  // namespace penstock::config
