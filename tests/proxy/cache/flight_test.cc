#include "proxy/cache/flight.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

std::string Text(const FlightReader::Step& step) {
  std::string out;
  for (const auto& chunk : step.chunks) out += *chunk;
  return out;
}

struct Follower {
  explicit Follower(const std::shared_ptr<Flight>& flight)
      : reader(FlightReader::Join(flight, [this] { ++wakes; })) {}
  int wakes = 0;
  std::unique_ptr<FlightReader> reader;
};

TEST(Flight, ALateReaderSeesTheWholeStream) {
  auto flight = std::make_shared<Flight>(1000);
  flight->Begin(200, "text/event-stream");
  flight->Append("one ");
  Follower late(flight);
  flight->Append("two");
  flight->Complete();
  const auto step = late.reader->Read(1 << 20);
  EXPECT_EQ(Text(step), "one two");
  EXPECT_EQ(step.state, Flight::State::kComplete);
  EXPECT_FALSE(step.more);
}

TEST(Flight, AReaderIsWokenOnceUntilItReads) {
  auto flight = std::make_shared<Flight>(1000);
  Follower follower(flight);
  flight->Begin(200, "");
  flight->Append("a");
  flight->Append("b");
  EXPECT_EQ(follower.wakes, 1);
  EXPECT_EQ(Text(follower.reader->Read(100)), "ab");
  flight->Append("c");
  EXPECT_EQ(follower.wakes, 2);
}

TEST(Flight, AReaderTakesNoMoreThanItWants) {
  auto flight = std::make_shared<Flight>(1000);
  Follower follower(flight);
  flight->Begin(200, "");
  flight->Append("aaaa");
  flight->Append("bbbb");
  auto step = follower.reader->Read(3);
  EXPECT_EQ(Text(step), "aaaa");
  EXPECT_TRUE(step.more);
  EXPECT_EQ(Text(follower.reader->Read(3)), "bbbb");
}

TEST(Flight, AFailureBeforeTheFirstByteMakesTheFirstReaderLead) {
  auto flight = std::make_shared<Flight>(1000);
  Follower first(flight), second(flight);
  flight->Abandon();
  EXPECT_EQ(second.wakes, 0);
  EXPECT_EQ(first.wakes, 1);
  EXPECT_TRUE(first.reader->Read(100).promoted);
  first.reader.reset();
  flight->Begin(200, "");
  flight->Append("x");
  EXPECT_EQ(Text(second.reader->Read(100)), "x");
}

TEST(Flight, APromotedReaderThatLeavesHandsTheLeadOn) {
  auto flight = std::make_shared<Flight>(1000);
  Follower first(flight), second(flight);
  flight->Abandon();
  first.reader.reset();
  EXPECT_TRUE(second.reader->Read(100).promoted);
}

TEST(Flight, AFailureAfterTheFirstByteFailsTheReaders) {
  auto flight = std::make_shared<Flight>(1000);
  Follower follower(flight);
  flight->Begin(200, "");
  flight->Append("half");
  flight->Abandon();
  const auto step = follower.reader->Read(100);
  EXPECT_EQ(Text(step), "half");
  EXPECT_EQ(step.state, Flight::State::kFailed);
}

TEST(Flight, PastItsLimitItTakesNoNewReadersAndServesThoseItHas) {
  auto flight = std::make_shared<Flight>(10);
  Follower follower(flight);
  flight->Begin(200, "");
  for (int i = 0; i < 4; ++i) flight->Append("0123456789");
  EXPECT_EQ(FlightReader::Join(flight, [] {}), nullptr);
  EXPECT_EQ(Text(follower.reader->Read(1000)).size(), 40u);
}

TEST(Flight, AReaderThatFallsTooFarBehindFails) {
  auto flight = std::make_shared<Flight>(10);
  Follower follower(flight);
  flight->Begin(200, "");
  for (int i = 0; i < 10; ++i) flight->Append("0123456789");
  EXPECT_EQ(follower.reader->Read(1000).state, Flight::State::kFailed);
}

TEST(Flight, ItTakesNoMoreReadersThanItsLimit) {
  auto flight = std::make_shared<Flight>(10, 1);
  Follower follower(flight);
  EXPECT_EQ(FlightReader::Join(flight, [] {}), nullptr);
}

TEST(Flight, WhatIsKeptComesInChunksOfOneSize) {
  const size_t size = Flight::kChunkBytes;
  auto flight = std::make_shared<Flight>(10 * size);
  flight->Begin(200, "text/plain");
  std::string text;
  for (const size_t bytes : {size_t{1}, size_t{7}, 2 * size + 5, size - 100}) {
    const std::string part(bytes, static_cast<char>('a' + text.size() % 26));
    flight->Append(part);
    text += part;
  }
  flight->Complete();
  const auto kept = flight->Compact();
  EXPECT_EQ(kept->bytes(), text.size());
  Follower reader(kept);
  auto step = reader.reader->Read(1);
  ASSERT_EQ(step.chunks.size(), 1u);
  EXPECT_EQ(step.chunks[0]->size(), size);
  std::string heard = Text(step);
  step = reader.reader->Read(10 * size);
  EXPECT_EQ(step.chunks.size(), 2u);
  EXPECT_EQ(heard + Text(step), text);
  EXPECT_FALSE(step.more);
}

TEST(Flight, AnAnswerOfNothingIsKeptToo) {
  auto flight = std::make_shared<Flight>(10);
  flight->Begin(200, "");
  flight->Complete();
  Follower reader(flight->Compact());
  EXPECT_TRUE(reader.reader->Read(1).chunks.empty());
}

}  // namespace
}  // namespace penstock
