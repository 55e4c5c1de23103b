#include "tests/sim/ledger.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace penstock::sim {
namespace {

constexpr std::string_view kComment = ": keep-alive\n\n";
constexpr std::string_view kErrorEvent = "data: {\"error\"";
constexpr size_t kIdSize = 8;
// Deadlines are looked at in ticks, and in the turn that follows.
constexpr MonoTime kLateMax = 100 * kMillisecond;

std::string Text(Asked::End end) {
  static constexpr const char* kNames[] = {"waiting", "whole", "broken", "unanswered", "left"};
  return kNames[static_cast<size_t>(end)];
}

std::string Describe(const Asked& asked) {
  std::string text = fmt::format("request {} {} {} question {}: {} status {} after {} bytes; arrivals {}",
                                 asked.nonce, asked.method, asked.path, asked.question,
                                 Text(asked.end), asked.status, asked.got.size(), asked.arrivals);
  for (const LogLine& line : asked.lines) {
    text += fmt::format("\n  log: {} pool {} flag '{}' details '{}' attempts {} bytes {} after {} ms",
                        line.status, line.pool, line.flag, line.details, line.attempts, line.bytes_sent,
                        line.duration / kMillisecond);
  }
  return text;
}

void Remove(std::string& text, std::string_view what) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos;) text.erase(at, what.size());
}

}  // namespace

Asked& Ledger::Ask(bool shared_question, std::string question) {
  auto asked = std::make_unique<Asked>();
  asked->nonce = fmt::format("Q{:06}", asked_.size() + 1);
  asked->shared = shared_question;
  asked->question = shared_question ? std::move(question) : asked->nonce;
  return *(asked_[asked->nonce] = std::move(asked));
}

Said& Ledger::Say(std::string question, int status, bool events) {
  auto said = std::make_unique<Said>();
  said->id = fmt::format("A{:07}", said_.size() + 1);
  said->question = std::move(question);
  said->status = status;
  said->events = events;
  return *(said_[said->id] = std::move(said));
}

Asked* Ledger::Find(std::string_view nonce) {
  const auto found = asked_.find(nonce);
  return found == asked_.end() ? nullptr : found->second.get();
}

void Ledger::Mix(std::string_view text) {
  for (const char c : text) digest_ = (digest_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
}

void Ledger::OnLog(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) {
    ADD_FAILURE() << "not a line of JSON in the access log: " << text;
    return;
  }
  ++lines_;
  Mix(text);
  LogLine line{.id = json["request_id"], .pool = json["pool"], .flag = json["response_flags"],
               .details = json["response_code_details"], .status = json["response_code"],
               .attempts = json["attempts"], .bytes_sent = json["bytes_sent"],
               .duration = static_cast<MonoTime>(json["duration_ms"].get<double>() * kMillisecond)};
  Asked* const asked = Find(line.id);
  if (asked == nullptr && json["method"] == "" && line.status >= 400 && line.pool.empty()) {
    refused_.insert(line.id);
    return;
  }
  if (asked == nullptr) {
    ADD_FAILURE() << "the log has a request that nobody made: " << text;
    return;
  }
  asked->lines.push_back(std::move(line));
}

void Ledger::OnArrival(std::string_view nonce) {
  if (Asked* const asked = Find(nonce)) {
    ++asked->arrivals;
  } else {
    ADD_FAILURE() << "a backend got a request that nobody made: " << nonce;
  }
}

void Ledger::OnWholeRequest(std::string_view nonce, std::string_view body) {
  const Asked* const asked = Find(nonce);
  if (asked == nullptr || body == asked->body) return;
  ADD_FAILURE() << "a backend got another body, " << body.size() << " bytes for " << asked->body.size()
                << ": " << Describe(*asked);
}

void Ledger::OnAnswer(Asked& asked, std::string_view data) { asked.got += data; }

void Ledger::OnEnd(Asked& asked, Asked::End end) {
  if (asked.end != Asked::End::kNone) {
    ADD_FAILURE() << "over twice, now " << Text(end) << ": " << Describe(asked);
    return;
  }
  asked.end = end;
  Mix(fmt::format("{} {} {} {}", asked.nonce, Text(end), asked.status, asked.got.size()));
  if (asked.status != 0 && asked.method != "HEAD") CheckBody(asked, end == Asked::End::kWhole);
}

const Said* Ledger::SaidIn(std::string_view body) const {
  const size_t at = body.find("\"id\":\"A");
  if (at == std::string_view::npos || at > 16) return nullptr;
  const auto found = said_.find(body.substr(at + 6, kIdSize));
  return found == said_.end() ? nullptr : found->second.get();
}

void Ledger::CheckBody(const Asked& asked, bool whole) const {
  std::string body = asked.got;
  Remove(body, kComment);
  const Said* const said = SaidIn(body);
  if (said == nullptr) {
    if (whole) CheckOwn(asked);
    return;
  }
  if (said->question != asked.question) {
    ADD_FAILURE() << "the answer to " << said->question << " came to another: " << Describe(asked);
    return;
  }
  EXPECT_EQ(said->status, asked.status) << Describe(asked);
  if (whole) {
    EXPECT_TRUE(said->whole) << "a broken answer looks whole: " << Describe(asked);
    EXPECT_TRUE(body == said->body) << "not the bytes of " << said->id << ", " << body.size() << " of "
                                    << said->body.size() << ": " << Describe(asked) << "\n" << body.substr(0, 300);
    return;
  }
  if (said->events) {
    const size_t error = body.find(kErrorEvent);
    if (error != std::string::npos) body.erase(error);  // The end of it is checked by tests of its own.
    // Of one that was cut as well only the beginning may have come.
    for (size_t some = kErrorEvent.size() - 1; some > 0 && !said->body.starts_with(body); --some) {
      if (body.ends_with(kErrorEvent.substr(0, some))) body.erase(body.size() - some);
    }
  }
  EXPECT_TRUE(said->body.starts_with(body)) << "not the first bytes of " << said->id << ": " << Describe(asked)
                                            << "\n" << body.substr(body.size() - std::min<size_t>(body.size(), 300));
}

// An answer of the proxy's own making: an error in OpenAI's shape, or a list of models.
void Ledger::CheckOwn(const Asked& asked) const {
  const auto json = nlohmann::json::parse(asked.got, nullptr, false);
  if (asked.path.starts_with("/v1/models") && asked.status == 200) {
    EXPECT_TRUE(json.is_object() && json.contains("object")) << Describe(asked) << asked.got;
    return;
  }
  const bool error = json.is_object() && json.contains("error") && json["error"].contains("code");
  EXPECT_TRUE(error && asked.status >= 400) << "whose answer is it? " << Describe(asked) << "\n"
                                            << asked.got.substr(0, 300);
}

void Ledger::CheckLine(const Asked& asked, bool stopped) const {
  using End = Asked::End;
  if (asked.lines.size() > 1) ADD_FAILURE() << "ended more than once: " << Describe(asked);
  if (asked.lines.empty()) {
    EXPECT_EQ(asked.arrivals, 0u) << "a backend had it, the log has not: " << Describe(asked);
    EXPECT_FALSE(asked.end == End::kWhole && !asked.refusable) << "answered, not logged: " << Describe(asked);
    return;
  }
  const LogLine& line = asked.lines[0];
  EXPECT_GE(line.attempts, asked.arrivals) << "more backends had it than were tried: " << Describe(asked);
  // One that has left may lead an answer for others, who have limits of their own.
  if (asked.limit != kNever && !(asked.shared && asked.end == End::kLeft)) {
    EXPECT_LE(line.duration, asked.limit + kLateMax) << Describe(asked);
  }
  if (asked.end == End::kWhole) {
    EXPECT_EQ(line.status, asked.status) << Describe(asked);
    if (asked.method != "HEAD") {
      EXPECT_EQ(line.bytes_sent, asked.got.size()) << Describe(asked);
    }
    EXPECT_NE(line.details, "client_gone") << Describe(asked);
  }
  EXPECT_FALSE(line.status == 408 && asked.prompt && !asked.excused)
      << "the client is said to be slow, and was not: " << Describe(asked);
  const bool cut = asked.end == End::kBroken || (asked.end == End::kUnanswered && asked.sent);
  if (cut && !asked.excused && !stopped) {
    EXPECT_FALSE(line.details.empty()) << "the log calls it whole, the client was cut: " << Describe(asked);
  }
  if (asked.status != 0) {
    EXPECT_EQ(line.status, asked.status) << Describe(asked);
  }
}

void Ledger::Check(bool stopped) const {
  for (const auto& [nonce, asked] : asked_) {
    if (::testing::Test::HasFailure()) return;  // The first disagreement says enough.
    CheckLine(*asked, stopped);
    if (asked->sent) {
      EXPECT_NE(asked->end, Asked::End::kNone) << "never answered: " << Describe(*asked);
    }
  }
}

void Ledger::CheckCounters(std::string_view metrics) const {
  std::map<std::pair<std::string, int>, size_t> logged;
  uint64_t attempts = 0, again = 0;
  for (const auto& [nonce, asked] : asked_) {
    for (const LogLine& line : asked->lines) ++logged[{line.pool, line.status}];
    for (const LogLine& line : asked->lines) attempts += line.attempts;
    again += asked->arrivals > 1 ? asked->arrivals - 1 : 0;
  }
  for (const auto& [key, count] : logged) {
    const auto& [pool, status] = key;
    if (pool.empty()) continue;  // Beside those that became no request.
    const std::string label = fmt::format("pool=\"{}\",code=\"{}\"", pool, status);
    EXPECT_EQ(SumOf(metrics, "penstock_http_requests_total", label), static_cast<double>(count)) << label;
  }
  const double refused = SumOf(metrics, "penstock_client_protocol_errors_total");
  const double counted = SumOf(metrics, "penstock_http_requests_total");
  EXPECT_EQ(counted, static_cast<double>(lines_));
  EXPECT_GE(refused, static_cast<double>(refused_.size()));
  EXPECT_EQ(SumOf(metrics, "penstock_http_request_duration_seconds_count"), counted);
  const double picks = SumOf(metrics, "penstock_lb_decisions_total", "outcome=\"picked\"") +
                       SumOf(metrics, "penstock_lb_decisions_total", "outcome=\"panic\"");
  EXPECT_GE(picks, static_cast<double>(attempts));
  double hedges = 0;
  for (const char* how : {"won", "lost", "failed"}) {
    hedges += SumOf(metrics, "penstock_hedges_total", fmt::format("result=\"{}\"", how));
  }
  EXPECT_LE(static_cast<double>(again), SumOf(metrics, "penstock_retries_total") + hedges)
      << "requests began at a backend again without being counted as retried";
}

double SumOf(std::string_view metrics, std::string_view name, std::string_view label) {
  double sum = 0;
  for (size_t at = 0; at < metrics.size();) {
    const size_t end = std::min(metrics.find('\n', at), metrics.size());
    const std::string line(metrics.substr(at, end - at));
    at = end + 1;
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    if (line[name.size()] != '{' && line[name.size()] != ' ') continue;
    if (line.find(label) == std::string::npos) continue;
    sum += std::strtod(line.c_str() + line.rfind(' '), nullptr);
  }
  return sum;
}

}  // namespace penstock::sim
