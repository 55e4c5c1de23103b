// One request from its head to the last byte of its answer, and the only place
// where a request ends. See docs/life-of-a-request.md for the hops.
//
//   kBody -> (kFollowing) | kQueued -> kConnecting -> kAwaiting -> kRelaying -> kDone
//
// kBody: an inference request's body is read whole; other bodies stream through.
// kFollowing: the answer comes from the cache or from an identical request.
// kQueued: every healthy backend is busy. kAwaiting: sent, no answer yet.
// A failed try goes back to the choice of a backend as retry.h allows.
//
// Threads: the worker's thread only. Reused: Start() begins a new life.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/backends/conn_pool.h"
#include "proxy/backends/pool_table.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/cache/result_cache.h"
#include "proxy/http/error_reply.h"
#include "proxy/http/message.h"
#include "proxy/http/sse.h"
#include "proxy/request/grpc.h"
#include "proxy/request/held_head.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class Session;

class Exchange final : public BackendCall::User {
 public:
  static constexpr size_t kTriedMax = 8;
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
  // The time that a drain leaves to whole answers is over.
  void OnDrainLimit();
  // The client left. `self` is this exchange: it cancels, or lives on by itself
  // while others follow its answer.
  void OnClientGone(std::unique_ptr<Exchange> self);

  // --- called by the queue ---
  void TryAgain();               // Room may have appeared.

  // --- called by the connection to the backend ---
  void OnConnReady(BackendCall& call) override;
  void OnAnswerHead(ResponseHead& head) override;
  void OnAnswerInterim(ResponseHead& head) override;
  void OnAnswerBody(std::string_view data) override;
  void OnAnswerEnd(std::span<Header> trailers) override;
  void OnConnFailed(const ConnFailure& failure) override;
  void OnConnWritable() override;

 private:
  friend struct WorkerContext;
  enum class Phase : uint8_t { kBody, kQueued, kConnecting, kAwaiting, kRelaying, kFollowing, kDone };
  enum class CacheUse : uint8_t { kNone, kHit, kJoined, kLead, kBypass };

  // exchange.cc: beginning
  void SetRequestId();
  bool Admit();
  bool AnswerLocally();
  bool TakesEncoding();
  bool Hold(std::string_view data);
  void OnBodyWhole();
  bool FindPool(std::string_view model);
  bool Authorize();
  bool body_kept() const { return inference_ || !body_streamed_; }

  // exchange_choice.cc: which backend
  void Dispatch();
  bool Choose(std::span<const lb::Candidate> candidates);
  void Enqueue();
  void LeaveQueue();
  // exchange_backend.cc: a try there
  void SendRequest();
  RetryVerdict Judge(RetryQuestion question, const Tries& tries);
  bool MoveOn(const RetryQuestion& question, Failure failure, RetryReason reason);
  void OnBusy(MonoTime retry_after);
  void OnRefused(const ConnFailure& failure);
  void EndAttempt(Outcome outcome, MonoTime retry_after = 0, bool shared = false);
  void LeaveConnection();
  // exchange_relay.cc: its answer
  void BeginAnswer(ResponseHead& head);
  void RelayHead(const ResponseHead& head);
  void RelayEvents(std::string_view data);
  void RelayBytes(std::string_view data);
  void FirstToken();
  Outcome HowItEnded(std::span<const Header> trailers);
  void Broken(ReplyCode code, const std::string& message);
  bool answer_sent() const { return head_sent_; }

  // exchange_tunnel.cc: another protocol
  void FindUpgrade(), OnTunnelIdle();
  void BeginTunnel(ResponseHead& head);
  void OnTunnelBytes(std::string_view data);
  MonoTime quiet_limit() const { return tunnel_ ? pool_->tunnel_timeout : pool_->idle_timeout; }

  // exchange_time.cc: what may last how long
  static void OnDeadline(void* self);
  void OnTimeout();
  void BodyStopped();
  void CheckClient();
  void AwaitAnswer();
  void CheckAwaiting();
  // exchange_end.cc: end
  void Fail(ReplyCode code, std::string_view message, std::string_view param = {},
            MonoTime retry_after = 0);
  void ReplyGrpc(ReplyCode code, std::string_view message);
  void Reply(uint16_t status, std::string_view body, std::span<const Header> extra);
  void Finish();
  void Clear();
  void Record();

  // exchange_cache.cc: results shared with other requests
  bool UseCache();                    // True: the answer comes from there.
  bool Follow(std::shared_ptr<Flight> flight);
  void OnFollow();
  void LeadAlone();
  void OnDeserted();
  void LeadFlight();
  void CloseFlight(bool complete);
  void AddCacheStatus(std::array<Header, 12>& extra, size_t& count);

  WorkerContext& context_;
  Deadline deadline_;
  Attempt attempt_;
  SseScanner scanner_;
  std::string body_;                  // Kept for sending again, or held until a backend is known.
  std::string held_event_;            // A partial event of the answer.
  std::string field_;                 // Scratch for generated header values.
  Forwarding forwarding_;

  // Everything below is a new request's blank state after Clear().
  Session* session_ = nullptr;        // Null: the client has left.
  MessageId id_ = 0;
  RequestHead head_;
  std::shared_ptr<Snapshot> snapshot_;
  PoolContext* pool_ = nullptr;
  std::string_view route_;
  BackendCall* conn_ = nullptr;
  ConnPool* dialing_ = nullptr;
  WaitQueue::iterator queue_place_;
  std::string_view model_;            // Into model_storage_.
  std::string model_storage_;
  std::array<char, 64> request_id_storage_;
  std::string_view request_id_;
  Failure last_failure_;
  std::array<lb::BackendId, kTriedMax> tried_;
  size_t tried_count_ = 0;
  Tries tries_;
  uint32_t attempts_ = 0;
  size_t unsent_ = 0;                 // To the client, when it was last looked at.
  Phase phase_ = Phase::kDone;
  CacheUse cache_use_ = CacheUse::kNone;
  std::string_view cache_detail_;
  std::shared_ptr<Flight> flight_;    // That this exchange leads.
  std::unique_ptr<FlightReader> reader_;
  std::shared_ptr<Exchange*> wake_;   // Null inside once this life is over.
  MonoTime cache_age_ = 0, cache_ttl_ = 0;
  bool inference_ = false, grpc_ = false;
  std::string_view upgrade_;          // The protocol that is asked for, if any.
  bool tunnel_ = false, stream_ = false;   // It is spoken; the client asked for events.
  bool deterministic_ = false, request_complete_ = false;
  bool body_streamed_ = false;        // Body bytes have gone to a backend and are not kept.
  bool body_held_ = false;            // gRPC: all of them still are, for a backend that gives them back.
  bool head_sent_ = false;
  bool events_ = false;               // The answer is an event stream.
  bool first_token_seen_ = false, answer_paused_ = false;
  bool fresh_ = false;                // The next try takes no reused connection.
  bool stale_retried_ = false, admitted_ = false;
  bool budget_spent_ = false;         // A try was not made because the budget was spent.
  uint16_t status_ = 0;
  std::optional<GrpcStatus> grpc_status_;
  std::string_view flag_;             // Why it failed, for the log: letters of kFlagNames,
  std::string_view details_;          // and the error's code.
  uint32_t prompt_tokens_ = 0;
  uint64_t bytes_received_ = 0, bytes_sent_ = 0, buffered_ = 0;
  int64_t event_count_ = 0;
  MonoTime body_whole_ = 0, queued_since_ = 0;   // The former for our own overhead.
  MonoTime start_ = 0, sent_ = 0, limit_ = 0, first_token_at_ = 0;
  std::string backend_name_, client_;  // Its address, for the access log.
  HeldHead held_head_;                // Of an event stream.
};

}  // namespace penstock
