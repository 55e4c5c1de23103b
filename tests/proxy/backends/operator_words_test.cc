#include "proxy/backends/operator_words.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/proxy/backends/worlds.h"

namespace penstock {
namespace {

TEST(OperatorWords, MakeOfANewBackendWhatTheyMadeOfTheOldOne) {
  const std::vector<std::vector<std::string_view>> all = {
      {}, {"drain"}, {"breaker/open"}, {"breaker/close"}, {"drain", "breaker/open"}};
  for (const auto& words : all) {
    const auto fleet = FleetOf({}, 1);
    Backend& backend = *fleet->pools[0]->backends[0];
    for (const std::string_view word : words) EXPECT_TRUE(Operate(backend, word, kSecond));
    EXPECT_EQ(WordsFor(backend), words);
  }
}

TEST(OperatorWords, AreTakenBack) {
  const auto fleet = FleetOf({}, 1);
  Backend& backend = *fleet->pools[0]->backends[0];
  for (const char* word : {"drain", "breaker/open", "undrain", "breaker/auto"}) {
    EXPECT_TRUE(Operate(backend, word, kSecond));
  }
  EXPECT_TRUE(WordsFor(backend).empty());
  for (const char* word : {"", "/drain", "Drain", "breaker", "breaker/"}) {
    EXPECT_FALSE(Operate(backend, word, kSecond)) << word;
  }
}

TEST(OperatorWords, AreSaidOfABackendByItsPoolAndName) {
  const auto fleet = FleetOf({}, 2);
  const auto& pool = *fleet->pools[0];
  EXPECT_EQ(FindBackend(*fleet, pool.settings.name, pool.backends[1]->name), pool.backends[1]);
  EXPECT_EQ(FindBackend(*fleet, pool.settings.name, "nobody"), nullptr);
  EXPECT_EQ(FindBackend(*fleet, "nowhere", pool.backends[1]->name), nullptr);
}

}  // namespace
}  // namespace penstock
