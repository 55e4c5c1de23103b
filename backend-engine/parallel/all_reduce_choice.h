// Which way of summing over the ranks is the fastest for a message of a given
// size: a table of what was measured at start. Plain arithmetic; the same table
// on every rank, so that all choose alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::engine {

// kHierarchical: summed in parts over the peers of each host, the parts over the
// hosts by NCCL, and gathered over the peers again: 1 / peers of a message crosses
// the network, once for each of a host's links.
enum class AllReduceWay { kOneShot, kTwoShot, kNccl, kHierarchical };
const char* NameOf(AllReduceWay way);

struct RankTopology {
  std::vector<int> of_host;  // Ranks of each host.
  bool peers = false;        // Ranks of a host read each other's memory (NVLink, PCIe peers).
  bool library = false;      // There is NCCL between all of them.
};

// The ways that are possible at all, simplest first; none: these ranks cannot talk.
std::vector<AllReduceWay> WaysFor(const RankTopology& topology);

class AllReduceTable {
 public:
  // A message of `bytes` took so long. REQUIRES: sizes come in ascending order.
  void Add(int64_t bytes, AllReduceWay way, double microseconds);

  // The fastest at the nearest measured size that is not smaller, or at the
  // largest one; the first added of equals. Without measurements: kOneShot.
  AllReduceWay Best(int64_t bytes) const;

  // What was added, for ranks elsewhere to add it, too.
  struct Entry {
    int64_t bytes;
    AllReduceWay way;
    double microseconds;
  };
  std::vector<Entry> entries() const;

  // One line a size: "8 KiB: one_shot 2.5, two_shot 4.1, nccl 6.7 us -> one_shot".
  std::string Text() const;

 private:
  struct Row {
    int64_t bytes;
    std::vector<std::pair<AllReduceWay, double>> times;
  };
  static AllReduceWay BestOf(const Row& row);

  std::vector<Row> rows_;
};

}  // namespace penstock::engine
