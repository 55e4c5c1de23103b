#include "proxy/net/turn.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/memory_stream.h"

namespace penstock {
namespace {

struct Ear final : StreamReceiver {
  std::vector<std::string> reads;
  void OnData(std::string_view data) override { reads.emplace_back(data); }
  void OnStreamEnd(const absl::Status&) override {}
  void OnWritable() override {}
};

struct Pair {
  Pair() {
    pair.b->SetReceiver(&ear);
    pair.b->Resume();
  }
  Ear ear;
  MemoryPair pair;
};

TEST(Turn, WhatIsGatheredIsWrittenWhenTheOutermostScopeCloses) {
  Pair p;
  Turn turn;
  Writer writer(turn);
  writer.Attach(*p.pair.a);
  {
    const Turn::Scope outer(turn);
    {
      const Turn::Scope inner(turn);
      writer.out().Copy("one ");
    }
    writer.out().Copy("two");
    EXPECT_EQ(writer.pending(), 7u);
    EXPECT_FALSE(p.pair.link->Step());
  }
  EXPECT_TRUE(p.pair.link->Step());
  EXPECT_EQ(p.ear.reads, (std::vector<std::string>{"one two"}));
  EXPECT_EQ(writer.pending(), 0u);
}

TEST(Turn, AWriterIsAskedForItsLastBytesOnceBeforeItsTurnsEnd) {
  Pair p;
  Turn turn;
  Writer writer(turn);
  writer.Attach(*p.pair.a);
  writer.AtEnd(&writer, [](void* owner, Gather& out) {
    EXPECT_EQ(&static_cast<Writer*>(owner)->out(), &out);
    out.Copy("last");
  });
  {
    const Turn::Scope scope(turn);
  }
  EXPECT_FALSE(p.pair.link->Step());
  {
    const Turn::Scope scope(turn);
    writer.out().Copy("first, ");
    writer.out().Copy("second, ");
  }
  EXPECT_TRUE(p.pair.link->Step());
  {
    const Turn::Scope scope(turn);
    writer.out();
  }
  EXPECT_TRUE(p.pair.link->Step());
  EXPECT_EQ(p.ear.reads, (std::vector<std::string>{"first, second, last", "last"}));
}

TEST(Turn, AWriterMayBeDroppedInsteadOfGivingItsLastBytes) {
  Pair p;
  Turn turn;
  Writer writer(turn);
  writer.Attach(*p.pair.a);
  writer.AtEnd(&writer, [](void* owner, Gather&) { static_cast<Writer*>(owner)->Drop(); });
  {
    const Turn::Scope scope(turn);
    writer.out().Copy("never");
  }
  EXPECT_FALSE(p.pair.link->Step());
}

TEST(Turn, AWriterThatGoesAwayWritesNothing) {
  Pair p;
  Turn turn;
  {
    const Turn::Scope scope(turn);
    Writer gone(turn);
    gone.Attach(*p.pair.a);
    gone.out().Copy("never");
  }
  EXPECT_FALSE(p.pair.link->Step());
}

TEST(Turn, TheBuriedGoAfterTheBytesAndMayBuryMore) {
  Pair p;
  Turn turn;
  std::string order;
  struct Inner {
    std::string& order;
    ~Inner() { order += "inner "; }
  };
  struct Outer {
    Turn& turn;
    std::string& order;
    ~Outer() {
      order += "outer ";
      turn.Bury(std::unique_ptr<Inner>(new Inner{order}));
    }
  };
  {
    const Turn::Scope scope(turn);
    turn.Bury(std::unique_ptr<Outer>(new Outer{turn, order}));
    turn.Bury(std::unique_ptr<Outer>());
    order += "body ";
  }
  EXPECT_EQ(order, "body outer inner ");
}

TEST(Turn, ManyWritersShareAFewGathers) {
  Pair first, second;
  Turn turn;
  Writer a(turn), b(turn);
  a.Attach(*first.pair.a);
  b.Attach(*second.pair.a);
  for (int i = 0; i < 3; ++i) {
    const Turn::Scope scope(turn);
    a.out().Copy("a");
    b.out().Copy("b");
    a.Flush();
  }
  while (first.pair.link->Step() || second.pair.link->Step()) {
  }
  EXPECT_EQ(first.ear.reads, (std::vector<std::string>{"aaa"}));
  EXPECT_EQ(second.ear.reads, (std::vector<std::string>{"bbb"}));
}

// A turn whose owner writes what is held.
struct Holding : Pair {
  Holding() {
    turn.Hold();
    writer.Attach(*pair.a);
  }
  void Say(std::string_view bytes) {
    const Turn::Scope scope(turn);
    writer.out().Copy(bytes);
  }
  Turn turn;
  Writer writer{turn};
};

TEST(Turn, SmallBytesOfSeveralTurnsAreOneWriteBeforeTheLoopWaits) {
  Holding h;
  h.Say("one ");
  h.Say("two");
  EXPECT_FALSE(h.pair.link->Step());
  EXPECT_EQ(h.writer.pending(), 7u);
  h.turn.WriteHeld();
  EXPECT_TRUE(h.pair.link->Step());
  h.turn.WriteHeld();
  EXPECT_FALSE(h.pair.link->Step());
  h.Say("three");
  h.turn.WriteHeld();
  EXPECT_TRUE(h.pair.link->Step());
  EXPECT_EQ(h.ear.reads, (std::vector<std::string>{"one two", "three"}));
}

TEST(Turn, AWriterIsAskedForItsLastBytesInEachTurnAlsoWhileItHolds) {
  Holding h;
  int asked = 0;
  h.writer.AtEnd(&asked, [](void* count, Gather& out) {
    ++*static_cast<int*>(count);
    out.Copy("!");
  });
  h.Say("a");
  h.Say("b");
  h.turn.WriteHeld();
  EXPECT_TRUE(h.pair.link->Step());
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(h.ear.reads, (std::vector<std::string>{"a!b!"}));
}

TEST(Turn, WhatPointsAtBytesOfOthersGoesOutWithItsTurnAndWhatWasHeldBeforeIt) {
  Holding h;
  h.Say("held ");
  {
    std::string body(1000, 'b');
    const Turn::Scope scope(h.turn);
    h.writer.out().Reference(body);
    h.turn.Bury(std::make_unique<std::string>(std::move(body)));
  }
  EXPECT_TRUE(h.pair.link->Step());
  EXPECT_EQ(h.ear.reads, (std::vector<std::string>{"held " + std::string(1000, 'b')}));
  h.turn.WriteHeld();
  EXPECT_FALSE(h.pair.link->Step());
}

TEST(Turn, MoreThanAGatherHoldsIsNotHeld) {
  Holding h;
  const std::string most(Gather::kScratch, 'm');
  h.Say(most);
  EXPECT_FALSE(h.pair.link->Step());
  h.Say("more");
  EXPECT_TRUE(h.pair.link->Step());
  EXPECT_EQ(h.ear.reads, (std::vector<std::string>{most + "more"}));
}

TEST(Turn, DroppingAWriterWritesWhatEarlierTurnsLeftAndNothingElse) {
  Holding h;
  h.Say("said");
  {
    const Turn::Scope scope(h.turn);
    h.writer.out().Copy(" never");
    h.writer.Drop();
  }
  EXPECT_TRUE(h.pair.link->Step());
  h.Say("again");
  {
    const Turn::Scope scope(h.turn);
    h.writer.out().Copy(std::string(2 * Gather::kScratch, 'n'));   // Moves what was held.
    h.writer.Drop();
  }
  EXPECT_TRUE(h.pair.link->Step());
  h.turn.WriteHeld();
  EXPECT_FALSE(h.pair.link->Step());
  EXPECT_EQ(h.ear.reads, (std::vector<std::string>{"said", "again"}));
}

TEST(Turn, AWriterThatGoesAwayWritesWhatItHeld) {
  Pair p;
  Turn turn;
  turn.Hold();
  {
    const Turn::Scope scope(turn);
    Writer gone(turn);
    gone.Attach(*p.pair.a);
    gone.out().Copy("never");
  }
  EXPECT_FALSE(p.pair.link->Step());   // It went before its turn ended.
  {
    Writer gone(turn);
    gone.Attach(*p.pair.a);
    {
      const Turn::Scope scope(turn);
      gone.out().Copy("held");
    }
    EXPECT_FALSE(p.pair.link->Step());
  }
  turn.WriteHeld();
  EXPECT_TRUE(p.pair.link->Step());
  EXPECT_EQ(p.ear.reads, (std::vector<std::string>{"held"}));
}

struct Crowd {
  explicit Crowd(size_t size) {
    turn.Hold();
    for (size_t i = 0; i < size; ++i) {
      pairs.push_back(std::make_unique<Pair>());
      writers.push_back(std::make_unique<Writer>(turn));
      writers.back()->Attach(*pairs.back()->pair.a);
    }
  }
  size_t Deliver() {
    size_t written = 0;
    for (const auto& one : pairs) written += one->pair.link->Step() ? 1 : 0;
    return written;
  }
  Turn turn;
  std::vector<std::unique_ptr<Pair>> pairs;
  std::vector<std::unique_ptr<Writer>> writers;
};

TEST(Turn, WhenOneMoreThanMayHoldHoldsTheOthersWrite) {
  Crowd crowd(Turn::kHeldMax + 2);
  for (const auto& writer : crowd.writers) {
    const Turn::Scope scope(crowd.turn);
    writer->out().Copy("x");
  }
  EXPECT_EQ(crowd.Deliver(), Turn::kHeldMax);
  crowd.turn.WriteHeld();
  EXPECT_EQ(crowd.Deliver(), 2u);
}

TEST(Turn, OfTheOthersThoseThatStillGatherWriteWhenTheyHaveAll) {
  Crowd crowd(Turn::kHeldMax + 1);
  for (const auto& writer : crowd.writers) {
    if (writer == crowd.writers.back()) break;
    const Turn::Scope scope(crowd.turn);
    writer->out().Copy("x");
  }
  {
    const Turn::Scope scope(crowd.turn);
    crowd.writers[0]->AtEnd(nullptr, [](void*, Gather& out) { out.Copy("z"); });
    crowd.writers[0]->out().Copy("y");
    crowd.writers.back()->out().Copy("x");  // Ends first.
  }
  EXPECT_EQ(crowd.Deliver(), Turn::kHeldMax - 1);
  crowd.turn.WriteHeld();
  EXPECT_EQ(crowd.Deliver(), 2u);
  EXPECT_EQ(crowd.pairs[0]->ear.reads, (std::vector<std::string>{"xyz"}));
}

}  // namespace
}  // namespace penstock
