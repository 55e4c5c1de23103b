// One HTTP/2 connection to a backend: many calls side by side. A call that ends,
// is reset, refused or left alone leaves the others as they are; when the connection
// dies each call is told once, and only the first of them as the backend's fault.
//
// Threads: the worker's thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proxy/backends/backend_call.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/net/stream.h"
#include "proxy/net/turn.h"

namespace penstock {

class ConnPool;
class H2Conn;

// One stream. Reused: Begin() of its connection starts a new life.
class H2Call final : public BackendCall {
 public:
  explicit H2Call(H2Conn& conn) : conn_(conn) {}

  void WriteRequest(const RequestHead& head, std::span<const Header> extra) override;
  void WriteBody(std::string_view data) override;
  void WriteKept(std::string_view body) override;
  void WriteEnd(std::span<const Header> trailers) override;
  bool above_mark() override;
  void PauseAnswer() override;
  void ResumeAnswer() override;
  void Leave() override;

 private:
  friend class H2Conn;
  void Continue();

  H2Conn& conn_;
  User* user_ = nullptr;       // Null: left, or over.
  MessageId id_ = 0;           // 0: its request has not begun.
  bool reused_ = false;
  bool answer_begun_ = false;
  bool blocked_ = false;       // Its user waits for OnConnWritable.
  std::string_view kept_;      // What is still to be written of a kept body.
  size_t index_ = 0;           // In the connection's list.
};

class H2Conn final : public StreamReceiver, public CodecReceiver {
 public:
  // `place`: Backend::moves() when it was dialled.
  H2Conn(ConnPool& pool, std::unique_ptr<Stream> stream, uint32_t place);

  // How many more calls may begin now: what the backend and our limit leave.
  size_t room() const;
  // False: it ends with its last call.
  bool reusable() const { return !closed_ && !moved_ && codec_->reusable(); }
  // REQUIRES: room() > 0.
  BackendCall& Begin(BackendCall::User& user);
  size_t calls() const { return calls_.size(); }
  MonoTime idle_since() const { return idle_since_; }
  // Says goodbye and closes. REQUIRES: no call is under way.
  void CloseIdle();

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnResponse(MessageId id, ResponseHead& head) override;
  void OnInterim(MessageId id, ResponseHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnMessageReset(MessageId id, uint32_t error_code) override;
  void OnMessageWritable(MessageId id) override;
  void OnGoAway() override;
  void OnNearFlood() override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  friend class ConnPool;
  friend class H2Call;

  void Pump(Gather& out);
  H2Call* Find(MessageId id);
  void Leave(H2Call& call);
  void Forget(H2Call& call);
  void DropLeft();
  void TellWritable(H2Call& call);
  void Fail(ConnFailure::Kind kind, const std::string& message);
  void Close();
  void SetPing();
  static void OnPing(void* self);

  ConnPool& pool_;
  const uint32_t place_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Codec> codec_;
  Writer writer_;
  Deadline ping_;
  std::vector<std::unique_ptr<H2Call>> calls_;
  std::vector<std::unique_ptr<H2Call>> spare_;
  absl::flat_hash_map<MessageId, H2Call*> by_id_;
  std::optional<std::string> broken_;  // What was wrong with the backend's bytes.
  uint64_t answers_ = 0;
  MonoTime heard_ = 0;                 // The last bytes.
  MonoTime pinged_ = 0;                // 0: no PING is unanswered.
  MonoTime idle_since_ = 0;
  bool feeding_ = false;               // Inside Feed().
  bool left_ = false;                  // Some call was left meanwhile.
  bool moved_ = false;                 // The backend is elsewhere by now.
  bool near_flood_ = false;            // No more calls are to begin here.
  bool closed_ = false;
};

}  // namespace penstock
