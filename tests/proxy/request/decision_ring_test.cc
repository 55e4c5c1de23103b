#include "proxy/request/decision_ring.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/proxy/backends/worlds.h"
#include "tests/support/allocations.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

class Decisions : public ::testing::Test {
 protected:
  // A choice among backends with these scores.
  void Add(DecisionRing& ring, std::string_view request, const std::vector<float>& scores,
           size_t chosen = 0) {
    std::vector<lb::Candidate> candidates(scores.size());
    std::vector<lb::Terms> terms(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      candidates[i].id = pool_->backends[i]->id;
      terms[i].score = scores[i];
    }
    DecisionRing::Choice choice;
    choice.request_id = request;
    choice.time = absl::UnixEpoch() + absl::Seconds(1);
    choice.candidates = candidates;
    choice.terms = terms;
    choice.chosen = chosen;
    ring.Add(choice, *pool_, names_);
  }
  static std::vector<Json> Find(const DecisionRing& ring, std::string_view request) {
    std::vector<std::string> texts;
    ring.Find(request, texts);
    return Parsed(texts);
  }
  static std::vector<std::string> NewestIds(const DecisionRing& ring, size_t count) {
    std::vector<std::string> texts, ids;
    ring.Newest(count, texts);
    for (const Json& record : Parsed(texts)) ids.push_back(record["request_id"]);
    return ids;
  }
  static std::vector<Json> Parsed(const std::vector<std::string>& texts) {
    std::vector<Json> out;
    for (const std::string& text : texts) out.push_back(Json::parse(text));
    return out;
  }

  const std::shared_ptr<const PoolState> pool_ = PoolOf(12);
  uint32_t names_ = 0;
};

TEST_F(Decisions, ARecordSaysWhoWasChosenAmongWhomAndWhy) {
  DecisionRing ring(4);
  Add(ring, "r1", {2, 1}, 1);
  const std::vector<Json> found = Find(ring, "r1");
  ASSERT_EQ(found.size(), 1u);
  const Json& record = found[0];
  EXPECT_EQ(record["chosen"], "b1");
  EXPECT_EQ(record["candidate_count"], 2);
  EXPECT_EQ(record["time"], "1970-01-01T00:00:01+00:00");
  EXPECT_EQ(record["candidates"][0]["score"], 2.0);
  EXPECT_EQ(record["candidates"][0]["chosen"], false);
  EXPECT_EQ(record["candidates"][1]["chosen"], true);
}

TEST_F(Decisions, AFigureThatIsNotKnownIsNullAndNeverZero) {
  DecisionRing ring(4);
  Add(ring, "r1", {1});
  const Json candidate = Find(ring, "r1")[0]["candidates"][0];
  EXPECT_TRUE(candidate["ttft_s"].is_null());
  EXPECT_TRUE(candidate["ttft_age_s"].is_null());
  EXPECT_TRUE(candidate["kv_used"].is_null());
  EXPECT_TRUE(candidate["signal"]["age_s"].is_null());
}

TEST_F(Decisions, OfManyCandidatesTheChosenOneAndTheBestAreKept) {
  DecisionRing ring(4);
  Add(ring, "r1", {12, 3, 11, 2, 10, 1, 9, 4, 8, 5, 7, 6}, 0);
  const Json record = Find(ring, "r1")[0];
  EXPECT_EQ(record["candidate_count"], 12);
  std::vector<double> scores;
  for (const Json& candidate : record["candidates"]) scores.push_back(candidate["score"]);
  EXPECT_EQ(scores, (std::vector<double>{12, 1, 2, 3, 4, 5, 6, 7}));
}

TEST_F(Decisions, AllTriesOfARequestAreFoundInTheirOrder) {
  DecisionRing ring(4);
  Add(ring, "r1", {1, 2}, 0);
  Add(ring, "r2", {1, 2}, 0);
  Add(ring, "r1", {1, 2}, 1);
  const std::vector<Json> found = Find(ring, "r1");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]["chosen"], "b0");
  EXPECT_EQ(found[1]["chosen"], "b1");
  EXPECT_TRUE(Find(ring, "r3").empty());
}

TEST_F(Decisions, TheRingHoldsItsCapacityAndForgetsTheOldest) {
  DecisionRing ring(3);
  EXPECT_TRUE(NewestIds(ring, 10).empty());
  for (int i = 0; i < 8; ++i) Add(ring, std::to_string(i), {1});
  EXPECT_EQ(NewestIds(ring, 10), (std::vector<std::string>{"7", "6", "5"}));
  EXPECT_EQ(NewestIds(ring, 2), (std::vector<std::string>{"7", "6"}));
  EXPECT_TRUE(Find(ring, "4").empty());
  DecisionRing off(0);
  Add(off, "r", {1});
  EXPECT_TRUE(NewestIds(off, 10).empty());
}

TEST_F(Decisions, ALongRequestIdIsFoundByWhatWasKeptOfIt) {
  DecisionRing ring(2);
  const std::string id(1000, 'i');
  Add(ring, id, {1});
  ASSERT_EQ(Find(ring, id).size(), 1u);
  EXPECT_EQ(Find(ring, id)[0]["request_id"], std::string(DecisionRing::kIdBytes - 1, 'i'));
}

TEST_F(Decisions, IdsOfAnyLengthUpToTheMostAreKeptWhole) {
  DecisionRing ring(3);
  for (size_t size = 0; size < DecisionRing::kIdBytes; ++size) {
    std::string id(size, 'i');
    if (size > 0) id.back() = 'e';
    Add(ring, id, {1});
    EXPECT_EQ(NewestIds(ring, 1)[0], id);
  }
}

TEST_F(Decisions, ARecordHasTheNamesOfItsDay) {
  DecisionRing ring(4 * DecisionRing::kNamesMax);
  PoolState pool;
  pool.settings.name = "main";
  pool.settings.load_balancing.algorithm = "random";
  for (uint32_t id = 0; id < DecisionRing::kNamesMax + 1; ++id) {  // Each day another backend.
    config::Backend settings;
    settings.name = "b" + std::to_string(id);
    pool.backends = {std::make_shared<Backend>(id, "main", settings)};
    const std::vector<lb::Candidate> candidates{{.id = id}};
    const std::vector<lb::Terms> terms(1);
    for (const char* const kind : {"first", "again"}) {  // Of two snapshots.
      uint32_t names = 0;
      const std::string request = kind + std::to_string(id);
      ring.Add({.request_id = request, .candidates = candidates, .terms = terms}, pool, names);
    }
  }
  const Json last = Find(ring, "again256")[0];
  EXPECT_EQ(last["pool"], "main");
  EXPECT_EQ(last["algorithm"], "random");
  EXPECT_EQ(last["chosen"], "b256");
  EXPECT_EQ(Find(ring, "again250")[0]["candidates"][0]["backend"], "b250");
  const Json first = Find(ring, "first0")[0];  // One day too many.
  EXPECT_EQ(first["pool"], "?");
  EXPECT_EQ(first["chosen"], "?");
  EXPECT_EQ(Find(ring, "first1")[0]["chosen"], "b1");
}

TEST_F(Decisions, ARingOfNoRecordsKeepsNone) {
  DecisionRing ring(0);
  Add(ring, "r", {1});
  EXPECT_TRUE(Find(ring, "r").empty());
  EXPECT_TRUE(NewestIds(ring, 5).empty());
}

TEST_F(Decisions, ARecordIsMadeWithoutAllocating) {
  DecisionRing ring(4);
  const std::vector<lb::Candidate> candidates(12, {.id = pool_->backends[3]->id});
  const std::vector<lb::Terms> terms(12);
  const DecisionRing::Choice choice{.request_id = "0123456789abcdef0123456789abcdef",
                                    .candidates = candidates,
                                    .terms = terms};
  ring.Add(choice, *pool_, names_);  // Learns the names.
  const uint64_t before = AllocationCount();
  for (int i = 0; i < 10; ++i) ring.Add(choice, *pool_, names_);
  EXPECT_EQ(AllocationCount(), before);
}

}  // namespace
}  // namespace penstock
