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

}  // namespace
}  // namespace penstock
