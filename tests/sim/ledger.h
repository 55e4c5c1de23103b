// The books of a simulation: what clients asked, what backends heard of it and said to
// it, what came back, and what the proxy wrote down. Everything that must agree is
// compared here; a disagreement is a failed test.
//
// Every request has a nonce, which is its x-request-id and so stands in the proxy's
// log; every answer of a backend has an id, which stands at the front of its body.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/time.h"

namespace penstock::sim {

// One line of the proxy's access log.
struct LogLine {
  std::string id, pool, flag, details;
  int status = 0;
  uint32_t attempts = 0;
  uint64_t bytes_sent = 0;
  MonoTime duration = 0;
};

struct Asked {
  enum class End {
    kNone,        // It waits.
    kWhole,       // An answer came, to its end.
    kBroken,      // An answer began and was cut.
    kUnanswered,  // The connection (or the stream) ended without a byte of one.
    kLeft,        // The client went.
  };

  std::string nonce, question, method, path, body;
  MonoTime limit = kNever;      // The client's own deadline.
  bool inference = false;
  bool refusable = false;       // Broken on purpose: it becomes no request of the proxy's.
  bool shared = false;          // Others ask the same.

  uint32_t arrivals = 0;        // Backends that heard of it.
  End end = End::kNone;
  bool excused = false;         // Its connection was broken, or read too slowly, on purpose.
  bool sent = false;            // The proxy has been given all of it,
  bool prompt = false;          // and at once.
  int status = 0;               // Of the answer; 0: no head has come.
  std::string got;              // Body of the answer.
  std::vector<LogLine> lines;
};

struct Said {
  std::string id, question;
  int status = 200;
  bool events = false;
  std::string body;             // As it has to arrive.
  bool whole = false;           // The backend has said all of it, and that it was all.
};

class Ledger {
 public:
  Asked& Ask(bool shared_question, std::string question);
  Said& Say(std::string question, int status, bool events);
  Asked* Find(std::string_view nonce);
  size_t asked() const { return asked_.size(); }

  void OnLog(std::string_view line);
  // A backend has heard the head of a request; then, if it comes, all of its body.
  void OnArrival(std::string_view nonce);
  void OnWholeRequest(std::string_view nonce, std::string_view body);
  // Whether that is the id of an answer to what was no request.
  bool Refused(std::string_view id) const { return refused_.contains(id); }
  // More of an answer has come, or its end, whichever it is.
  void OnAnswer(Asked& asked, std::string_view data);
  void OnEnd(Asked& asked, Asked::End end);

  // Once everything is over. `stopped`: the proxy ended while there was work.
  void Check(bool stopped) const;
  // The text of /metrics against the log: each code of each pool as often as there.
  void CheckCounters(std::string_view metrics) const;
  // Of all runs of a seed the same.
  uint64_t digest() const { return digest_; }

 private:
  const Said* SaidIn(std::string_view body) const;
  void CheckBody(const Asked& asked, bool whole) const;
  void CheckOwn(const Asked& asked) const;
  void CheckLine(const Asked& asked, bool stopped) const;
  void Mix(std::string_view text);

  std::map<std::string, std::unique_ptr<Asked>, std::less<>> asked_;
  std::map<std::string, std::unique_ptr<Said>, std::less<>> said_;
  std::set<std::string, std::less<>> refused_;  // Ids of what became no request.
  size_t lines_ = 0;
  uint64_t digest_ = 0;
};

// The sum of a metric's samples whose labels contain `label` (empty: all of them).
double SumOf(std::string_view metrics, std::string_view name, std::string_view label = {});

}  // namespace penstock::sim
