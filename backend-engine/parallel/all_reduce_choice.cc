#include "backend-engine/parallel/all_reduce_choice.h"

#include <algorithm>
#include <cstdio>
#include <functional>

namespace penstock::engine {

const char* NameOf(AllReduceWay way) {
  switch (way) {
    case AllReduceWay::kOneShot: return "one_shot";
    case AllReduceWay::kTwoShot: return "two_shot";
    case AllReduceWay::kNccl: return "nccl";
    case AllReduceWay::kHierarchical: return "hierarchical";
  }
  return "";
}

std::vector<AllReduceWay> WaysFor(const RankTopology& topology) {
  std::vector<AllReduceWay> ways;
  const auto& hosts = topology.of_host;
  const bool one_host = hosts.size() <= 1;
  if (one_host && topology.peers) ways = {AllReduceWay::kOneShot, AllReduceWay::kTwoShot};
  if (topology.library) ways.push_back(AllReduceWay::kNccl);
  // Parts are the same on every host only where all have as many ranks.
  const bool alike = std::adjacent_find(hosts.begin(), hosts.end(), std::not_equal_to<>()) ==
                     hosts.end();
  if (!one_host && topology.library && topology.peers && alike && hosts.front() > 1) {
    ways.push_back(AllReduceWay::kHierarchical);
  }
  return ways;
}

void AllReduceTable::Add(int64_t bytes, AllReduceWay way, double microseconds) {
  if (rows_.empty() || rows_.back().bytes != bytes) rows_.push_back({bytes, {}});
  rows_.back().times.emplace_back(way, microseconds);
}

AllReduceWay AllReduceTable::BestOf(const Row& row) {
  return std::min_element(row.times.begin(), row.times.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

AllReduceWay AllReduceTable::Best(int64_t bytes) const {
  if (rows_.empty()) return AllReduceWay::kOneShot;
  for (const Row& row : rows_) {
    if (row.bytes >= bytes) return BestOf(row);
  }
  return BestOf(rows_.back());
}

std::vector<AllReduceTable::Entry> AllReduceTable::entries() const {
  std::vector<Entry> all;
  for (const Row& row : rows_) {
    for (const auto& [way, microseconds] : row.times) all.push_back({row.bytes, way, microseconds});
  }
  return all;
}

std::string AllReduceTable::Text() const {
  std::string text;
  for (const Row& row : rows_) {
    text += std::to_string(row.bytes / 1024) + " KiB:";
    for (const auto& [way, microseconds] : row.times) {
      char number[32];
      std::snprintf(number, sizeof number, " %.1f,", microseconds);
      text += std::string(" ") + NameOf(way) + number;
    }
    text.back() = ' ';
    text += std::string("us -> ") + NameOf(BestOf(row)) + "\n";
  }
  return text;
}

}  // namespace penstock::engine
