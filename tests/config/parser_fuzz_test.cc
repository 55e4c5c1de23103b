// The fuzz target of policy files over its corpus and over mutated examples, from a seed.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "tests/fuzz/config_target.h"
#include "tests/support/corpus.h"
#include "tests/support/mutate.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

TEST(ConfigFuzz, AnyBytesAreRefusedOrShownAsTheSame) {
  ForEachInput("config", FuzzConfig);
  std::ifstream file("config/example.yaml");
  const std::vector<std::string> corpus = {
      {std::istreambuf_iterator<char>(file), {}},
      "version: v1\npools:\n  - name: a\n    backends: [127.0.0.1:9001]\n"};
  const std::vector<std::string> words = {"\n", "  ", "- ", ": ", "{", "}", "[", "]", "&a ", "*a", "!!str ",
                                          "'",  "\"", "#",  "${X}", "${X:-1}", "0s", "1KiB", "50%", "-1", "~"};
  ForEachSeed(20, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 10; ++i) FuzzConfig(Mutate(random, corpus, words));
  });
}

}  // namespace
}  // namespace penstock
