#include "backend-engine/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

namespace penstock::engine {
namespace {

const std::string kFixtures = PENSTOCK_SOURCE_DIR "/tests/backend-engine/text/fixtures";

const Tokenizer& Llama3() {
  static const std::unique_ptr<Tokenizer> tokenizer =
      std::move(*Tokenizer::Load(kFixtures + "/llama3"));
  return *tokenizer;
}

// One token for each byte, so that every character comes in parts.
std::vector<int32_t> ByteIds(const std::string& bytes) {
  std::vector<int32_t> ids;
  for (const char c : bytes) {
    for (int32_t id = 0; id < Llama3().vocab_size(); ++id) {
      if (Llama3().TokenBytes(id) == std::string(1, c)) {
        ids.push_back(id);
        break;
      }
    }
  }
  return ids;
}

TEST(Detokenizer, GivesOutWholeCharactersOnly) {
  Detokenizer detokenizer(Llama3(), {}, true);
  std::string shown;
  for (const int32_t id : ByteIds("é😀")) shown += detokenizer.Push(id) + "|";
  EXPECT_EQ(shown, "|é||||😀|");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(Detokenizer, ReplacesWhatIsNoCharacter) {
  Detokenizer detokenizer(Llama3(), {}, true);
  std::string shown;
  for (const int32_t id : ByteIds("a\xff\xe2\x82z\xf0\x9f")) shown += detokenizer.Push(id);
  EXPECT_EQ(shown, "a\uFFFD\uFFFDz");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(Detokenizer, SkipsSpecialTokensUnlessAsked) {
  const int32_t end = *Llama3().TokenId("<|end|>");
  Detokenizer skipping(Llama3(), {}, true);
  EXPECT_EQ(skipping.Push(end), "");
  Detokenizer showing(Llama3(), {}, false);
  EXPECT_EQ(showing.Push(end), "<|end|>");
}

TEST(Detokenizer, EndsBeforeAStopStringThatCrossesTokens) {
  Detokenizer detokenizer(Llama3(), {"\n\nUser:"}, true);
  std::string shown;
  for (const int32_t id : ByteIds("Yes.\n\nUse\n\nUser: more")) {
    shown += detokenizer.Push(id);
    if (detokenizer.stopped()) break;
  }
  EXPECT_EQ(shown, "Yes.\n\nUse");
  EXPECT_EQ(detokenizer.matched_stop(), "\n\nUser:");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStillBecomeAStop) {
  StopMatcher matcher({"END", "EXIT"});
  EXPECT_EQ(matcher.Push("the E"), "the ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("X"), "ENX");
  EXPECT_EQ(matcher.Push("EXI"), "");
  EXPECT_EQ(matcher.Finish(), "EXI");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, IgnoresEmptyStops) {
  StopMatcher matcher({"", ""});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, FindsTheSameHoweverTheTextIsCut) {
  for (uint32_t seed = 0; seed < 5000; ++seed) {
    std::mt19937 random(seed);
    const auto letters = [&](uint32_t low, uint32_t high) {
      std::string out;
      for (uint32_t n = low + random() % (high - low); n > 0; --n) out += "ab"[random() % 2];
      return out;
    };
    std::vector<std::string> stops;
    for (int i = 0; i < 3; ++i) stops.push_back(letters(3, 8));
    const std::string text = letters(0, 40);

    StopMatcher whole(stops);
    std::string expected = whole.Push(text);
    expected += whole.Finish();
    StopMatcher cut(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 5;
      shown += cut.Push(std::string_view(text).substr(at, size));
      at += size;
    }
    shown += cut.Finish();
    EXPECT_EQ(shown, expected) << "seed " << seed;
    EXPECT_EQ(cut.matched(), whole.matched()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace penstock::engine
