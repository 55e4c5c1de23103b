// One request from its head to the last byte of its answer, and the only place
// where a request ends. See docs/life-of-a-request.md for the hops.
//   kBody -> (kFollowing) | kQueued | kBackOff -> kTrying -> kRelaying -> kDone
//
// kBody: an inference request's body is read whole; other bodies stream through.
// kFollowing: the answer comes from the cache or from an identical request.
// kQueued: every healthy backend is busy. kBackOff: before a paid retry.
// kTrying: one try, or two when the first is hedged, and no answer for the client yet.
// kRelaying: one try has been promoted, the other one is over.
// A failed try goes back to the choice of a backend as retry.h allows.
// One deadline is set to the earliest moment that matters in the phase (Rearm).
//
// Threads: the worker's thread only. Reused: Start() begins a new life.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/base/deadline_wheel.h"
#include "proxy/http/error_reply.h"
#include "proxy/http/message.h"
#include "proxy/request/body_pace.h"
#include "proxy/request/deadline.h"
#include "proxy/request/grpc.h"
#include "proxy/request/shared_answer.h"
#include "proxy/request/try.h"
#include "proxy/request/worker_context.h"

namespace penstock {
class Session;

class Exchange final {
 public:
  static constexpr size_t kTriedMax = 16;  // More than fail with retry.attempts at its most, 10.
  static constexpr size_t kHeldMax = 64 * 1024;  // Body of a streamed request before its backend is known.

  explicit Exchange(WorkerContext& context);
  ~Exchange();

  // --- called by the session ---
  // `head` stays valid until ExchangeDone (its session keeps the codec's storage).
  void Start(Session& session, MessageId id, RequestHead& head);
  void OnRequestBody(std::string_view data);
  void OnRequestEnd(std::span<Header> trailers);
  void OnBadRequestBody(ReplyCode code, std::string_view message);
  void OnClientWritable();
  void OnDrainLimit();           // The time that a drain leaves to whole answers is over.
  // `self` is this exchange: it cancels, or lives on while others follow its answer.
  void OnClientGone(std::unique_ptr<Exchange> self);
  void TryAgain();               // By the queue: room may have appeared.
  std::optional<MonoTime> patience() const;  // With a client that takes nothing; none: no pool.

  // --- called by its tries ---
  void OnTryReady(Try& one) { SendRequest(one); }
  void OnTryHead(Try& one, ResponseHead& head);
  void OnTryBody(Try& one, std::string_view data);
  void OnTryEnd(Try& one, std::span<Header> trailers);
  void OnTryFailed(Try& one, const ConnFailure& failure);
  void OnTryWritable();

 private:
  friend struct WorkerContext;
  enum class Phase : uint8_t { kBody, kQueued, kBackOff, kTrying, kRelaying, kFollowing, kDone };

  // exchange.cc: beginning
  void SetRequestId();
  bool Admit(), AnswerLocally(), TakesEncoding();
  void OnBodyWhole(), HoldBody(), TakeBody();
  bool FindPool(std::string_view model);
  bool Authorize(), UseOwnName();
  bool Buffer(std::string_view data);
  bool body_kept() const { return inference_ || !body_lost_; }
  // exchange_choice.cc: which backend
  void Dispatch(bool waited = false);  // REQUIRES: no try is live.
  std::optional<size_t> Pick(std::span<const lb::Candidate> candidates, TryKind kind);
  bool Begin(lb::BackendId id, TryKind kind);
  void Enqueue(), LeaveQueue();
  // exchange_backend.cc: a try there
  Try* Live();                        // One that is live, or null.
  Try* Other(const Try& one);         // The other one, if it is live.
  void SendRequest(Try& one);
  void EndTry(Try& one, Outcome outcome, MonoTime retry_after = 0, bool shared = false);
  void OnRefused(Try& one, const ConnFailure& failure);
  void EndTries(Outcome outcome);
  // exchange_retry.cc: another one, after it or beside it
  void TryFailed(Try& one, RetryQuestion question, Failure failure, RetryReason reason,
                 bool shared = false);
  RetryVerdict Judge(RetryQuestion question, const Tries& used);
  bool MoveOn(const RetryQuestion& question, Failure failure, RetryReason reason);
  bool LeaveBusy(Try& one, MonoTime retry_after);
  bool MayReplace(const Try& one);
  void BackOff(), ArmHedge(MonoTime now), Hedge(MonoTime now);
  void EndHedge(HedgeResult result);
  void NoteBudget(uint64_t refused_before);
  // exchange_relay.cc: its answer
  void Promote(Try& one);
  void BeginAnswer(Try& one, ResponseHead& head);
  void SendHead(const ResponseHead& head);
  void BeginEvents(Try& one);
  void RelayEvents(Try& one, std::string_view data);
  void RelayBytes(std::string_view data);
  void FirstToken(Try* one);
  Outcome HowItEnded(const Try& one, std::span<const Header> trailers);
  void KeepAlive(MonoTime now);
  void Broken(ReplyCode code, const std::string& message);
  // Our own comments behind a head are nothing of an answer.
  bool answer_sent() const { return head_sent_ && !bridged_; }
  // exchange_tunnel.cc: another protocol
  void FindUpgrade(), OnTunnelIdle();
  void BeginTunnel(Try& one, ResponseHead& head);
  void OnTunnelBytes(std::string_view data);
  MonoTime quiet_limit() const { return tunnel_ ? pool_->tunnel_timeout : pool_->idle_timeout; }
  // exchange_time.cc: what may last how long
  static void OnDeadline(void* self);
  void Rearm();
  MonoTime NextOfTries(MonoTime now) const, BodyDue() const;
  void OnTimeout(), GiveUp();
  Stage StageNow();
  void BodyStopped(), QueuedTooLong(), AnswerStopped(), CheckClient();
  void AwaitAnswer(Try& one);
  void LookAtTries(MonoTime now);
  bool LookAt(Try& one, MonoTime now);
  bool events_wanted() const { return inference_ && stream_; }
  // exchange_end.cc: end
  void Fail(ReplyCode code, std::string_view message, std::string_view param = {},
            MonoTime retry_after = 0);
  void ReplyGrpc(ReplyCode code, std::string_view message);
  void Reply(uint16_t status, std::string_view body, std::span<const Header> extra);
  bool SaidDone() const, WorthKeeping(const Try& one) const;
  void EndUnread(), Finish(), Clear(), Record();
  // exchange_cache.cc: results shared with other requests
  bool UseCache();                    // True: the answer comes from there.
  bool Follow(std::shared_ptr<Flight> flight), BeginFollowing(Flight::State state);
  void SendFollowersHead(std::string_view type, int64_t length = -1);
  void OnFollow(), StopFollowing(), LeadAlone(), OnDeserted(), LeadFlight();
  void BeginFlight(const ResponseHead& head), CloseFlight(bool complete, bool keep = false);
  void AddCacheStatus(std::array<Header, 12>& extra, size_t& count);

  WorkerContext& context_;
  Deadline deadline_;
  std::shared_ptr<Snapshot> snapshot_;  // Above the tries, which need its tables to end.
  std::array<Try, 2> tries_{Try(*this), Try(*this)};
  TimerQueue::Timer back_off_;
  std::string body_;                  // Kept for sending again, or held until a backend is known.
  SseScanner scanner_;                // Of an answer that is followed.
  std::string field_;                 // Scratch for generated header values.
  Forwarding forwarding_;

  // Everything below is a new request's blank state after Clear().
  Session* session_ = nullptr;        // Null: the client has left.
  RequestHead head_;
  MessageId id_ = 0;
  PoolContext* pool_ = nullptr;
  Try* answer_ = nullptr;             // The try whose answer the client gets.
  WaitQueue::iterator queue_place_;
  std::string_view protocol_, route_, model_, renamed_;  // As asked for; its own name, if by an alias.
  std::string model_storage_, backend_name_;
  std::array<char, 64> request_id_storage_;
  std::string_view request_id_;
  Failure last_failure_;
  std::optional<RetryReason> retry_reason_;   // Of the try that is to come.
  std::array<lb::BackendId, kTriedMax> tried_;
  Tries used_;
  size_t tried_count_ = 0;
  size_t unsent_ = 0;                 // To the client, when it was last looked at.
  Phase phase_ = Phase::kDone;
  SharedAnswer shared_;
  std::shared_ptr<Exchange*> wake_;   // Null inside once this life is over.
  bool inference_ = false, deterministic_ = false, grpc_ = false;
  std::string_view upgrade_;          // The protocol that is asked for, if any.
  bool tunnel_ = false, stream_ = false;   // It is spoken; the client asked for events.
  bool request_complete_ = false, answer_paused_ = false;
  bool body_lost_ = false;            // Body bytes have gone to a backend and are not kept.
  bool body_held_ = false;            // gRPC: all of them still are, for a backend that gives them back.
  bool head_sent_ = false;
  bool bridged_ = false;              // Of an answer only the head has been sent, and comments of ours.
  bool events_ = false, until_close_ = false;  // The answer is an event stream; ends with its connection.
  bool fresh_ = false;                // The next try takes no reused connection.
  bool stale_retried_ = false, admitted_ = false, has_waited_ = false;  // In the queue.
  bool hedged_ = false;               // Its only hedge has begun, or was refused,
  bool hedge_paid_ = false;           // and holds a place of the budget.
  bool budget_spent_ = false;         // A try was not made because the budget was spent.
  uint16_t status_ = 0, left_with_ = 0;  // As it was when its client left; 499: nothing was there.
  std::optional<GrpcStatus> grpc_status_;
  std::string_view flag_, details_;   // Why it failed, for the log: of kFlagNames, and the error's code.
  uint32_t attempts_ = 0, prompt_tokens_ = 0;
  uint64_t bytes_received_ = 0, bytes_sent_ = 0, buffered_ = 0;
  MonoTime body_whole_ = 0;           // Clock at the body's last byte, for our own overhead.
  MonoTime start_ = 0, queued_since_ = 0, first_sent_ = 0, first_token_at_ = 0;
  ClientDeadline client_deadline_;
  Moments due_;
  BodyPace pace_;
  std::string client_;                // Address, for the access log.
};

}  // namespace penstock
