#include "proxy/request/decision_ring.h"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace penstock {
namespace {

template <size_t N>
void Put(std::array<char, N>& out, std::string_view text) {
  const size_t size = std::min(text.size(), N - 1);
  text.copy(out.data(), size);
  out[size] = '\0';
}

template <size_t N>
std::string_view Get(const std::array<char, N>& text) {
  return std::string_view(text.data());
}

// The ring is larger than the nearer caches: the next record is on its way before it
// is written, as far as two candidates fill it.
void FetchForWriting(const DecisionRecord& record) {
  constexpr size_t kLine = 64;
  const char* const at = reinterpret_cast<const char*>(&record);
  for (size_t offset = 0; offset < offsetof(DecisionRecord, entries) + 2 * sizeof(DecisionRecord::Entry);
       offset += kLine) {
    __builtin_prefetch(at + offset, 1);
  }
}

std::string_view NameOf(const PoolState& pool, lb::BackendId id) {
  for (const auto& backend : pool.backends) {
    if (backend->id == id) return backend->name;
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

nlohmann::ordered_json ToJson(const DecisionRecord::Entry& entry, bool chosen) {
  const lb::Candidate& c = entry.candidate;
  nlohmann::ordered_json out{
      {"backend", Get(entry.name)},
      {"chosen", chosen},
      {"score", Round(entry.terms.score)},
      {"terms",
       {{"latency", Round(entry.terms.latency)},
        {"queue", Round(entry.terms.queue)},
        {"kv", Round(entry.terms.kv)},
        {"prefix", Round(entry.terms.prefix)}}},
      {"t_s", Round(entry.terms.t_s)},
      {"u", Round(entry.terms.u)},
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

std::string ToJson(const DecisionRecord& record) {
  nlohmann::ordered_json candidates = nlohmann::ordered_json::array();
  std::string_view chosen_name;
  for (size_t i = 0; i < record.entry_count; ++i) {
    const auto& entry = record.entries[i];
    const bool chosen = entry.candidate.id == record.chosen;
    if (chosen) chosen_name = Get(entry.name);
    candidates.push_back(ToJson(entry, chosen));
  }
  nlohmann::ordered_json out{{"request_id", Get(record.request_id)},
                             {"time", absl::FormatTime(absl::RFC3339_full, record.time, absl::UTCTimeZone())},
                             {"pool", Get(record.pool)},
                             {"algorithm", Get(record.algorithm)},
                             {"attempt", record.attempt},
                             {"kind", kTryKindNames[static_cast<size_t>(record.kind)]},
                             {"chosen", chosen_name},
                             {"candidate_count", record.candidate_count},
                             {"candidates", std::move(candidates)}};
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void DecisionRing::Add(const Choice& choice, const PoolState& pool) {
  if (records_.empty()) return;
  DecisionRecord& record = records_[next_++ % records_.size()];
  FetchForWriting(records_[next_ % records_.size()]);
  Put(record.request_id, choice.request_id);
  Put(record.pool, choice.pool);
  Put(record.algorithm, choice.algorithm);
  record.time = choice.time;
  record.attempt = choice.attempt;
  record.kind = choice.kind;
  record.candidate_count = static_cast<uint32_t>(choice.candidates.size());
  record.chosen = choice.candidates[choice.chosen].id;
  record.entry_count = 0;
  const auto add = [&](size_t index) {
    auto& entry = record.entries[record.entry_count++];
    entry.candidate = choice.candidates[index];
    entry.terms = choice.terms[index];
    Put(entry.name, NameOf(pool, entry.candidate.id));
  };
  if (choice.candidates.size() <= DecisionRecord::kCandidates) {
    for (size_t i = 0; i < choice.candidates.size(); ++i) add(i);
    return;
  }
  // The chosen one and the best of the rest, by score.
  std::array<uint32_t, DecisionRecord::kCandidates> best;
  size_t count = 0;
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    if (i == choice.chosen) continue;
    size_t at = count;
    while (at > 0 && choice.terms[i].score < choice.terms[best[at - 1]].score) --at;
    if (at >= best.size() - 1) continue;
    count = std::min(count + 1, best.size() - 1);
    for (size_t k = count - 1; k > at; --k) best[k] = best[k - 1];
    best[at] = static_cast<uint32_t>(i);
  }
  add(choice.chosen);
  for (size_t i = 0; i < count; ++i) add(best[i]);
}

void DecisionRing::Find(std::string_view request_id, std::vector<std::string>& out) const {
  const uint64_t first = next_ > records_.size() ? next_ - records_.size() : 0;
  for (uint64_t i = first; i < next_; ++i) {
    const DecisionRecord& record = records_[i % records_.size()];
    if (Get(record.request_id) == request_id.substr(0, DecisionRecord::kIdBytes - 1)) {
      out.push_back(ToJson(record));
    }
  }
}

void DecisionRing::Newest(size_t count, std::vector<std::string>& out) const {
  const uint64_t kept = std::min<uint64_t>(next_, records_.size());
  for (uint64_t i = 0; i < std::min<uint64_t>(count, kept); ++i) {
    out.push_back(ToJson(records_[(next_ - 1 - i) % records_.size()]));
  }
}

}  // namespace penstock
