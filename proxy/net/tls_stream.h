// TLS over another stream (TCP, or memory in tests), both sides.
//
// It begins with a handshake, within a time, told to a Waiter; whoever is given the
// stream after that finds tls() complete and uses it as any other. Until the owner
// resumes it, nothing is read.
//
// One read of the stream below is one OnData, however many records it brings, and
// one Write is as few records as hold it, written below with one call; so an event
// stays one small record in the turn that it came in. Nothing is kept here but a
// record that is not whole: what the stream below does not take is its buffer and
// its mark. An idle connection owns no buffer.
//
// An end without close_notify is an error: what came may be only the beginning of
// what was sent. TLS over TLS is not foreseen.
//
// Threads: the loop's thread only.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/deadline_wheel.h"
#include "proxy/net/stream.h"
#include "proxy/net/tls_client_context.h"
#include "proxy/net/tls_server_context.h"

struct ssl_st;

namespace penstock {

struct TlsPeerState;

class TlsStream final : public Stream, private StreamReceiver {
 public:
  // Who awaits the end of the handshake: told once, last in a callback; it may take
  // the stream over, or destroy it.
  class Waiter {
   public:
    virtual void OnTlsReady(TlsStream& stream) = 0;
    // `why` names no peer.
    virtual void OnTlsFailed(TlsStream& stream, TlsFailure failure, std::string_view why) = 0;

   protected:
    ~Waiter() = default;
  };
  // Key updates that a peer may ask for, and one more with each MiB that it sends.
  static constexpr uint32_t kKeyUpdatesMax = 16;

  // The handshake begins with Start().
  TlsStream(std::shared_ptr<const TlsServerContext> context, std::unique_ptr<Stream> inner,
            DeadlineWheel& wheel, Waiter& waiter);
  TlsStream(std::shared_ptr<const TlsTarget> target, std::string_view alpn_wire,
            std::unique_ptr<Stream> inner, DeadlineWheel& wheel, Waiter& waiter);
  ~TlsStream();

  // Begins the handshake, which has until then. The waiter is not told from inside
  // this call. REQUIRES: once.
  void Start(MonoTime until);

  void SetReceiver(StreamReceiver* receiver) override { receiver_ = receiver; }
  void Resume() override;
  void Pause() override;
  using Stream::Write;
  void Write(std::span<const std::string_view> pieces) override;
  size_t buffered() const override { return inner_->buffered(); }
  size_t high_mark() const override { return inner_->high_mark(); }
  void Shutdown() override;
  void Reset() override;
  std::string_view peer() const override { return inner_->peer(); }
  const TlsInfo* tls() const override { return &info_; }

 private:
  enum class State : uint8_t { kHandshake, kOpen, kEnded };

  TlsStream(std::shared_ptr<const TlsServerContext> context, std::shared_ptr<const TlsTarget> target,
            ssl_st* ssl, std::unique_ptr<Stream> inner, DeadlineWheel& wheel, Waiter& waiter);

  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  static void OnDeadline(void* self);

  bool Shake();                 // False: this may be gone.
  void Established();
  void HandshakeFailed();
  void FailHandshake(TlsFailure failure, std::string why);
  bool Deliver();
  bool DeliverEnd();
  std::optional<absl::Status> Decrypt(std::vector<char>& plain, size_t& size);
  bool TooManyKeyUpdates() const;
  void Encrypt(const char* data, size_t size);
  void Flush();                 // Gives what OpenSSL has written to the stream below.

  const std::shared_ptr<const TlsServerContext> server_;   // One of these two.
  const std::shared_ptr<const TlsTarget> target_;
  ssl_st* const ssl_;           // Owned.
  const std::unique_ptr<TlsPeerState> peer_state_;
  std::unique_ptr<Stream> inner_;
  Waiter* waiter_;              // Null after the handshake.
  StreamReceiver* receiver_ = nullptr;
  Deadline deadline_;           // Of the handshake; later: what is held is to be delivered.
  std::string_view incoming_;   // Of the stream below, not yet taken by OpenSSL.
  std::string held_;            // The same, while the owner is not ready for it.
  std::optional<absl::Status> end_;   // Not told yet, for the same reason.
  TlsInfo info_;
  uint64_t received_ = 0;       // Bytes of data, for the measure of key updates.
  bool* gone_ = nullptr;        // Set when this is destroyed inside a callback.
  State state_ = State::kHandshake;
  bool paused_ = true;
  bool shut_ = false;           // Our direction has ended.
  bool broken_ = false;         // Nothing more is written.

  friend struct TlsBio;
};

}  // namespace penstock
