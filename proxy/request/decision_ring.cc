#include "proxy/request/decision_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace penstock {
namespace {

std::string_view NameOf(const DecisionNames& names, lb::BackendId id) {
  for (const auto& [known, name] : names.backends) {
    if (known == id) return name;
  }
  return "?";
}

std::string_view RungName(lb::Rung rung) {
  switch (rung) {
    case lb::Rung::kPush: return "push";
    case lb::Rung::kPiggyback: return "piggyback";
    case lb::Rung::kPoll: return "poll";
    case lb::Rung::kOwn: return "own";
  }
  return "?";
}

// Three decimals: enough to follow the sum, short enough to read.
double Round(float value) { return static_cast<int64_t>(value * 1000.0 + (value < 0 ? -0.5 : 0.5)) / 1000.0; }

// What is negative is not known.
nlohmann::ordered_json IfKnown(float value) {
  return value < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(Round(value));
}

// Which candidates a record keeps: all of a few; of more the chosen one, then the best.
std::array<uint32_t, DecisionRing::kCandidates> Best(const DecisionRing::Choice& choice) {
  std::array<uint32_t, DecisionRing::kCandidates> best{0, 1, 2, 3, 4, 5, 6, 7};
  if (choice.candidates.size() <= best.size()) return best;
  best[0] = static_cast<uint32_t>(choice.chosen);
  size_t count = 1;
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    if (i == choice.chosen) continue;
    size_t at = count;
    while (at > 1 && choice.terms[i].score < choice.terms[best[at - 1]].score) --at;
    if (at == best.size()) continue;
    count = std::min(count + 1, best.size());
    for (size_t k = count - 1; k > at; --k) best[k] = best[k - 1];
    best[at] = static_cast<uint32_t>(i);
  }
  return best;
}

nlohmann::ordered_json ToJson(const lb::Candidate& c, const lb::Terms& terms, std::string_view name,
                              bool chosen) {
  nlohmann::ordered_json out{
      {"backend", name},
      {"chosen", chosen},
      {"score", Round(terms.score)},
      {"terms",
       {{"latency", Round(terms.latency)},
        {"queue", Round(terms.queue)},
        {"kv", Round(terms.kv)},
        {"prefix", Round(terms.prefix)}}},
      {"t_s", Round(terms.t_s)},
      {"u", Round(terms.u)},
      {"signal", {{"rung", RungName(c.rung)}, {"age_s", IfKnown(c.report_age_s)}}},
      {"reported_total", Round(c.reported_total)},
      {"sent_since", Round(c.sent_since)},
      {"inflight", Round(c.inflight)},
      {"max_running", Round(c.max_running)},
      {"weight", Round(c.weight)},
      {"slow_start", Round(c.slow_start)},
      {"oldest_wait_s", Round(c.oldest_wait_s)}};
  out["ttft_s"] = IfKnown(c.ttft_s);
  out["ttft_age_s"] = IfKnown(c.ttft_age_s);
  out["kv_used"] = IfKnown(c.kv_used);
  return out;
}

}  // namespace

DecisionRing::DecisionRing(uint32_t capacity)
    : capacity_(capacity),
      heads_(std::make_unique_for_overwrite<Head[]>(capacity)),
      id_ends_(std::make_unique_for_overwrite<IdEnd[]>(capacity)) {
  for (auto& column : entries_) column = std::make_unique_for_overwrite<Entry[]>(capacity);
}

std::string DecisionRing::IdOf(size_t index) const {
  const Head& head = heads_[index];
  std::string id(head.id, std::min<size_t>(head.id_size, Head::kIdBegin));
  if (head.id_size > Head::kIdBegin) id.append(id_ends_[index].data(), head.id_size - Head::kIdBegin);
  return id;
}

std::string DecisionRing::ToJson(size_t index) const {
  const Head& head = heads_[index];
  static const DecisionNames kForgotten{"?", "?", {}};
  const DecisionNames& names = head.names < first_names_ ? kForgotten : names_[head.names - first_names_];
  nlohmann::ordered_json candidates = nlohmann::ordered_json::array();
  for (size_t i = 0; i < head.entry_count; ++i) {
    const Entry& entry = entries_[i][index];
    const auto candidate = std::bit_cast<lb::Candidate>(entry.candidate);
    candidates.push_back(penstock::ToJson(candidate, std::bit_cast<lb::Terms>(entry.terms),
                                          NameOf(names, candidate.id), candidate.id == head.chosen));
  }
  const absl::Time time = absl::FromUnixNanos(head.time_ns);
  nlohmann::ordered_json out{{"request_id", IdOf(index)},
                             {"time", absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone())},
                             {"pool", names.pool},
                             {"algorithm", names.algorithm},
                             {"attempt", head.attempt},
                             {"kind", kTryKindNames[static_cast<size_t>(head.kind)]},
                             {"chosen", NameOf(names, head.chosen)},
                             {"candidate_count", head.candidate_count},
                             {"candidates", std::move(candidates)}};
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The key of these names; most pools are as they were before the last reload.
uint32_t DecisionRing::Learn(const PoolState& pool) {
  DecisionNames names{pool.settings.name, pool.settings.load_balancing.algorithm, {}};
  for (const auto& backend : pool.backends) names.backends.emplace_back(backend->id, backend->name);
  const auto known = std::ranges::find(names_, names);
  const auto key = first_names_ + static_cast<uint32_t>(known - names_.begin());
  if (known != names_.end()) return key;
  names_.push_back(std::move(names));
  if (names_.size() > kNamesMax) {
    names_.pop_front();
    ++first_names_;
  }
  return key;
}

// The ring is larger than the nearest caches, and processors do not guess a step of one
// record in a request's time: memory for the next one is on its way before it is written.
void DecisionRing::FetchForWriting(size_t index, size_t entry_count) const {
  __builtin_prefetch(&heads_[index], 1);
  for (size_t i = 0; i < entry_count; ++i) {
    __builtin_prefetch(&entries_[i][index], 1);
    __builtin_prefetch(&entries_[i][index].terms, 1);
  }
}

void DecisionRing::Add(const Choice& choice, const PoolState& pool, uint32_t& names) {
  if (capacity_ == 0) return;
  if (names < first_names_) names = Learn(pool);
  const size_t index = next_++ % capacity_;
  const size_t count = std::min(choice.candidates.size(), kCandidates);
  FetchForWriting(next_ % capacity_, count);
  Head& head = heads_[index];
  head.time_ns = absl::ToUnixNanos(choice.time);
  head.names = names;
  head.attempt = choice.attempt;
  head.candidate_count = static_cast<uint32_t>(choice.candidates.size());
  head.chosen = choice.candidates[choice.chosen].id;
  head.kind = choice.kind;
  head.entry_count = static_cast<uint8_t>(count);
  const std::string_view id = choice.request_id.substr(0, kIdBytes - 1);
  head.id_size = static_cast<uint8_t>(id.size());
  const size_t begun = id.copy(head.id, Head::kIdBegin);
  if (begun < id.size()) id.substr(begun).copy(id_ends_[index].data(), sizeof(IdEnd));
  const std::array<uint32_t, kCandidates> kept = Best(choice);
  for (size_t i = 0; i < count; ++i) {
    Entry& entry = entries_[i][index];
    std::memcpy(&entry.candidate, &choice.candidates[kept[i]], sizeof entry.candidate);
    std::memcpy(&entry.terms, &choice.terms[kept[i]], sizeof entry.terms);
  }
}

void DecisionRing::Find(std::string_view request_id, std::vector<std::string>& out) const {
  request_id = request_id.substr(0, kIdBytes - 1);
  for (uint64_t i = next_ - std::min<uint64_t>(next_, capacity_); i < next_; ++i) {
    const size_t index = i % capacity_;
    if (IdOf(index) == request_id) out.push_back(ToJson(index));
  }
}

void DecisionRing::Newest(size_t count, std::vector<std::string>& out) const {
  const uint64_t kept = std::min<uint64_t>(next_, capacity_);
  for (uint64_t i = 0; i < std::min<uint64_t>(count, kept); ++i) {
    out.push_back(ToJson((next_ - 1 - i) % capacity_));
  }
}

}  // namespace penstock
