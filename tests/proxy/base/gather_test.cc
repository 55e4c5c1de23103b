#include "proxy/base/gather.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "proxy/base/random.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

std::string Joined(Gather& gather) {
  std::string text;
  for (const std::string_view piece : gather.pieces()) text += piece;
  return text;
}

TEST(Gather, KeepsTheOrderAndPointsAtLongPieces) {
  auto gather = std::make_unique<Gather>();
  const std::string body(1000, 'b');
  gather->Copy("head ");
  gather->Copy("more ");
  gather->Reference(body);
  gather->Copy(" tail");
  ASSERT_EQ(gather->pieces().size(), 3u);
  EXPECT_EQ(gather->pieces()[0], "head more ");
  EXPECT_EQ(gather->pieces()[1].data(), body.data());
  EXPECT_EQ(gather->size(), 1015u);
  gather->Clear();
  EXPECT_TRUE(gather->empty());
  EXPECT_EQ(Joined(*gather), "");
}

TEST(Gather, ShortReferencesAreCopied) {
  auto gather = std::make_unique<Gather>();
  std::string body = "short";
  gather->Reference(body);
  body = "other";
  EXPECT_EQ(Joined(*gather), "short");
}

TEST(Gather, EverythingIsThereHoweverMuchComes) {
  ForEachSeed(50, [](uint64_t seed) {
    Random random(seed);
    auto gather = std::make_unique<Gather>();
    for (int round = 0; round < 3; ++round) {
      std::string expected;
      std::vector<std::unique_ptr<std::string>> kept;
      for (int i = 0; i < 300; ++i) {
        kept.push_back(std::make_unique<std::string>(random.Below(random.Below(2) ? 1000 : 20),
                                                     static_cast<char>('a' + random.Below(26))));
        expected += *kept.back();
        if (random.Below(2) == 0) {
          gather->Copy(*kept.back());
        } else {
          gather->Reference(*kept.back());
        }
        EXPECT_LE(gather->pieces().size(), Gather::kPieces);
      }
      ASSERT_EQ(Joined(*gather), expected);
      ASSERT_EQ(gather->size(), expected.size());
      gather->Clear();
    }
  });
}

TEST(Gather, KnowsWhetherAllItHasIsItsOwn) {
  auto gather = std::make_unique<Gather>();
  EXPECT_FALSE(gather->own());                        // There is nothing.
  gather->Copy("head");
  gather->Reference("short, and so copied");
  EXPECT_TRUE(gather->own());
  const std::string body(1000, 'b');
  gather->Reference(body);
  EXPECT_FALSE(gather->own());
  gather->Clear();
  gather->Copy(std::string(Gather::kScratch, 's'));
  EXPECT_TRUE(gather->own());
  gather->Copy("one more");
  EXPECT_FALSE(gather->own());
  gather->Clear();
  gather->Reference(body);
  EXPECT_FALSE(gather->own());
}

}  // namespace
}  // namespace penstock
