#include "proxy/cache/result_cache.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

namespace penstock {
namespace {

using Outcome = ResultCache::Outcome;

ResultCacheSettings Small() {
  ResultCacheSettings settings;
  settings.max_bytes = 4000;
  settings.max_entry_bytes = 1000;
  settings.ttl = 10 * kSecond;
  return settings;
}

CacheKeyParts Key(std::string_view body, std::string_view tenant = "") {
  CacheKeyParts key;
  key.tenant = tenant;
  key.pool = "chat";
  key.target = "/v1/chat/completions";
  key.canonical_body = body;
  return key;
}

// Leads a miss to a whole answer.
void Store(ResultCache& cache, const CacheKeyParts& key, std::string_view answer, MonoTime now,
           uint16_t status = 200) {
  auto ticket = cache.Open(key, now);
  ASSERT_EQ(ticket.outcome, Outcome::kLead);
  ticket.flight->Begin(status, "application/json");
  ticket.flight->Append(answer);
  ticket.flight->Complete();
  cache.Close(ticket.flight, true, now);
}

std::string Replay(const ResultCache::Ticket& ticket) {
  auto reader = FlightReader::Join(ticket.flight, [] {});
  std::string out;
  for (const auto& chunk : reader->Read(1 << 20).chunks) out += *chunk;
  return out;
}

TEST(ResultCache, AnswersARepeatedRequestByteForByte) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), "data: x\n\n", 0);
  const auto ticket = cache.Open(Key("{}"), 3 * kSecond);
  ASSERT_EQ(ticket.outcome, Outcome::kHit);
  EXPECT_EQ(Replay(ticket), "data: x\n\n");
  EXPECT_EQ(ticket.age, 3 * kSecond);
  EXPECT_EQ(ticket.ttl, 7 * kSecond);
}

TEST(ResultCache, NeverGivesOneTenantAnothersAnswer) {
  ResultCache cache(Small());
  Store(cache, Key("{}", "Bearer a"), "secret", 0);
  EXPECT_EQ(cache.Open(Key("{}", "Bearer b"), 0).outcome, Outcome::kLead);
  EXPECT_EQ(cache.Open(Key("{}", ""), 0).outcome, Outcome::kLead);
  EXPECT_EQ(cache.Open(Key("{}", "Bearer a"), 0).outcome, Outcome::kHit);
}

TEST(ResultCache, OtherWeightsAreAnotherQuestion) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), "x", 0);
  CacheKeyParts key = Key("{}");
  key.weights = 7;
  EXPECT_EQ(cache.Open(key, 0).outcome, Outcome::kLead);
}

TEST(ResultCache, PartsOfAKeyDoNotRunIntoEachOther) {
  ResultCache cache(Small());
  CacheKeyParts key = Key("b");
  key.target = "/a";
  Store(cache, key, "x", 0);
  CacheKeyParts other = Key("ab");
  other.target = "/";
  EXPECT_EQ(cache.Open(other, 0).outcome, Outcome::kLead);
}

TEST(ResultCache, AnEntryDiesOfItsAge) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), "x", 0);
  EXPECT_EQ(cache.Open(Key("{}"), 10 * kSecond).outcome, Outcome::kLead);
  EXPECT_EQ(cache.stats().expired, 1u);
}

TEST(ResultCache, KeepsOnlyWhatSucceeded) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), "oops", 0, 500);
  EXPECT_EQ(cache.Open(Key("{}"), 0).outcome, Outcome::kLead);
}

TEST(ResultCache, IdenticalRequestsInFlightJoin) {
  ResultCache cache(Small());
  const auto lead = cache.Open(Key("{}"), 0);
  const auto join = cache.Open(Key("{}"), 0);
  ASSERT_EQ(join.outcome, Outcome::kJoined);
  EXPECT_EQ(join.flight, lead.flight);
}

TEST(ResultCache, AFailedFlightIsForgotten) {
  ResultCache cache(Small());
  const auto lead = cache.Open(Key("{}"), 0);
  lead.flight->Abandon();
  cache.Close(lead.flight, true, 0);
  EXPECT_EQ(cache.Open(Key("{}"), 0).outcome, Outcome::kLead);
}

TEST(ResultCache, TheLeastRecentlyUsedGoesFirstWhenBytesRunOut) {
  ResultCache cache(Small());
  const std::string answer(900, 'x');
  for (int i = 0; i < 3; ++i) Store(cache, Key(fmt::format("{}", i)), answer, 0);
  EXPECT_EQ(cache.Open(Key("0"), 0).outcome, Outcome::kHit);
  Store(cache, Key("3"), answer, 0);
  EXPECT_EQ(cache.Open(Key("0"), 0).outcome, Outcome::kHit);
  EXPECT_EQ(cache.Open(Key("1"), 0).outcome, Outcome::kLead);
  EXPECT_LE(cache.stats().bytes, Small().max_bytes);
}

TEST(ResultCache, ATooLongAnswerIsNotKept) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), std::string(1001, 'x'), 0);
  EXPECT_EQ(cache.Open(Key("{}"), 0).outcome, Outcome::kLead);
  EXPECT_EQ(cache.stats().too_large, 1u);
}

TEST(ResultCache, MoreFlightsThanItsTableAreNotRecorded) {
  ResultCacheSettings settings = Small();
  settings.flights_max = 2;
  ResultCache cache(settings);
  std::vector<ResultCache::Ticket> leads;
  for (int i = 0; i < 2; ++i) leads.push_back(cache.Open(Key(fmt::format("{}", i)), 0));
  EXPECT_EQ(cache.Open(Key("2"), 0).outcome, Outcome::kBypass);
  leads[0].flight->Abandon();
  EXPECT_EQ(cache.Open(Key("2"), 0).outcome, Outcome::kLead);
}

TEST(ResultCache, AFlushForgetsEverything) {
  ResultCache cache(Small());
  Store(cache, Key("{}"), "x", 0);
  const auto lead = cache.Open(Key("other"), 0);
  cache.Flush();
  EXPECT_EQ(cache.Open(Key("{}"), 0).outcome, Outcome::kLead);
  EXPECT_EQ(cache.Open(Key("other"), 0).outcome, Outcome::kLead);
  lead.flight->Begin(200, "");
  lead.flight->Complete();
  cache.Close(lead.flight, true, 0);
  EXPECT_EQ(cache.stats().entries, 0u);
}

}  // namespace
}  // namespace penstock
