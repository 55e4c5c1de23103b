// One try of a request at one backend: its connection, and what is held of its answer
// until that is the one for the client. An exchange has two, the second for hedges.
// A try decides nothing; it tells its exchange.
//
//   kNone -> kConnecting -> kAwaiting -> (kHolding) -> kRelaying
//
// kHolding: the head of an event stream is there, its first token is not.
//
// Threads: the worker's thread only. Reused: Begin() makes a try blank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/backends/backend_call.h"
#include "proxy/backends/conn_pool.h"
#include "proxy/backends/pool_table.h"
#include "proxy/http/message.h"
#include "proxy/http/sse.h"
#include "proxy/request/decision_ring.h"
#include "proxy/request/held_head.h"

namespace penstock {

class Exchange;

struct Try final : BackendCall::User {
  enum class Stage : uint8_t { kNone, kConnecting, kAwaiting, kHolding, kRelaying };

  explicit Try(Exchange& exchange_in) : exchange(exchange_in) {}
  Try(const Try&) = delete;
  Try& operator=(const Try&) = delete;

  bool live() const { return stage != Stage::kNone; }
  bool sent() const { return stage >= Stage::kAwaiting; }

  void Begin(TryKind kind, std::string_view backend_name, bool fresh);
  // Keeps bytes of events before the first token: whole ones in `events`, the rest in
  // `partial`. `data` has been scanned.
  void Keep(std::string_view data);
  // Gives its connection up, or the wait for one. Views of what it held stay valid.
  void Leave();

  // --- called by the connection ---
  void OnConnReady(BackendCall& ready) override;
  void OnAnswerHead(ResponseHead& head) override;
  void OnAnswerInterim(ResponseHead&) override {}  // 100 is ours to give; others say nothing we need.
  void OnAnswerBody(std::string_view data) override;
  void OnAnswerEnd(std::span<Header> trailers) override;
  void OnConnFailed(const ConnFailure& failure) override;
  void OnConnWritable() override;

  Exchange& exchange;
  Attempt attempt;                 // The backend's side of it: in flight, latency, breaker.
  BackendCall* call = nullptr;
  ConnPool* dialing = nullptr;
  Stage stage = Stage::kNone;
  TryKind kind = TryKind::kFirst;
  bool fresh = false;              // Takes no reused connection.
  bool unwell = false;             // Its backend was unhealthy already: that is no news.
  bool busy = false;               // It said so, in the answer that the client gets,
  MonoTime rest = 0;               // and for how long; 0: not said.
  MonoTime when = 0;               // It was sent.
  MonoTime limit = kNever;         // Without an answer, or a first token, it has failed.
  MonoTime patience = kNever;      // Another one is better from then on, if it may be.
  std::string backend_name;
  SseScanner scanner;
  bool unclean = false;            // Of `events`: see CleanEvents.
  bool error_first = false;        // A prompt's events began with an error that counts for its backend.
  int64_t event_count = 0;
  bool error = false;              // One of them told of an error.
  std::string events;              // Whole events before the first token.
  std::string partial;             // The part of an event that is not whole.
  HeldHead head;                   // Of an event stream.
};

}  // namespace penstock
