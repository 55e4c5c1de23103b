// A backend of the simulation: takes requests over HTTP/1 or HTTP/2 and does to them
// what its mood and chance say, well or badly; answers health checks; reports a load
// that is true, frozen or a lie.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/base/random.h"
#include "tests/sim/ledger.h"
#include "tests/support/manual_loop.h"

namespace penstock::sim {

class Backend;

// What all peers of the proxy share.
struct Outside {
  MemoryNetwork& network;
  ManualLoop& loop;
  Ledger& ledger;
  Random& random;

  bool Chance(uint32_t percent) { return random.Below(100) < percent; }
  uint32_t Between(uint32_t least, uint32_t most) { return least + random.Below(most - least + 1); }
  MonoTime Millis(uint32_t least, uint32_t most) { return Between(least, most) * kMillisecond; }
};

using Fields = std::vector<std::pair<std::string, std::string>>;

// One request at a backend: what has come of it, and the means to answer it. What is
// done to it happens in steps, each some time after the one before.
class Call {
 public:
  explicit Call(Backend& backend_in) : backend(backend_in) {}
  virtual ~Call() = default;

  enum class Ends { kLength, kChunked, kWithConnection };
  virtual void Head(int status, Fields fields, Ends ends, size_t length) = 0;
  virtual void Body(std::string_view bytes) = 0;
  virtual void End() = 0;            // The answer is whole.
  virtual void Break(bool cleanly) = 0;  // The connection (HTTP/2: the stream) ends: FIN, or a reset.
  virtual void Raw(std::string_view bytes) = 0;  // Past all framing.
  virtual void Beyond(std::string_view bytes) = 0;  // The same, arriving with what was said before.
  virtual bool Refuse(int how) = 0;  // HTTP/2: in one of its own ways. False: there are none.
  virtual bool full() const = 0;     // What was said has not been taken.

  void Then(MonoTime delay, std::function<void()> step);
  void Stop();                       // Nothing more is done.

  Backend& backend;
  std::string method, path, nonce, question, body;
  bool events = false;               // The client asked for them.
  bool answering = false;            // What is to happen has been decided,
  bool answered = false;             // and the end of the answer has been said.

 private:
  void Arm();

  std::deque<std::pair<MonoTime, std::function<void()>>> steps_;
  TimerQueue::Timer timer_;
};

// A connection to a backend.
class Line {
 public:
  virtual ~Line() = default;
  virtual bool closed() const = 0;
  virtual void CheckRest() const = 0;  // While nothing is under way.
};

enum class Mood { kFine, kSlow, kHangs, kBusy, kErrors, kBreaks, kMixed };
enum class Speech { kTrue, kFrozen, kLies, kNone };

class Backend {
 public:
  Backend(Outside& outside, std::string address, bool http2);

  void Open();                       // Listens.
  void Refuse() { listener_.reset(); }
  void Kill();                       // As SIGKILL: nothing listens, connections are reset.
  void Reap();                       // Forgets connections that are gone.
  void CheckRest() const;            // What must hold while nothing is under way.
  void Calm();                       // Does only good from now on.

  // --- for its connections ---
  void OnHead(Call& call);
  void OnWhole(Call& call);
  void Gone(Call& call);
  Outside& outside() { return outside_; }
  const std::string& address() const { return address_; }
  size_t lines() const { return lines_.size(); }

  Mood mood = Mood::kFine;
  Speech speech = Speech::kTrue;
  bool healthy = true;
  bool calm = false;                 // Takes its time with nothing.

 private:
  void Answer(Call& call);
  void AnswerWell(Call& call, MonoTime before);
  void Finish(Call& call, Said& said);
  void AnswerBusy(Call& call);
  void AnswerWrong(Call& call);
  void BreakOff(Call& call);
  void SayBody(Call& call, Said& said, size_t bytes, MonoTime gap, std::function<void()> then = nullptr);
  Said& Compose(Call& call, int status);
  Fields FieldsOf(const Said& said);
  bool AnswerControl(Call& call);
  void Speak(Call& call);
  std::string Load();

  Outside& outside_;
  const std::string address_;
  const bool http2_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::unique_ptr<Line>> lines_;
  uint64_t seq_ = 0;
  uint64_t epoch_ = 1;
  size_t running_ = 0;
};

// --- backend_lines.cc ---
std::unique_ptr<Line> MakeHttp1Line(Backend& backend, std::unique_ptr<Stream> stream);
std::unique_ptr<Line> MakeHttp2Line(Backend& backend, std::unique_ptr<Stream> stream);

}  // namespace penstock::sim
