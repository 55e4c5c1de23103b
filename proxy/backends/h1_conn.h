// One HTTP/1 connection to a backend. It carries one request at a time and goes
// back to its pool when the answer is whole; one that is dirty after that is closed.
//
// Threads: the worker's thread only.
#pragma once

#include <memory>
#include <string>

#include "proxy/backends/backend_call.h"
#include "proxy/base/time.h"
#include "proxy/http/codec.h"
#include "proxy/net/stream.h"
#include "proxy/net/turn.h"

namespace penstock {

class ConnPool;

class H1Conn final : public BackendCall, public StreamReceiver, public CodecReceiver {
 public:
  // `place`: Backend::moves() when it was dialled.
  H1Conn(ConnPool& pool, std::unique_ptr<Stream> stream, uint32_t place);

  // --- for the user ---
  void WriteRequest(const RequestHead& head, std::span<const Header> extra) override;
  void WriteBody(std::string_view data) override;
  void WriteKept(std::string_view body) override {
    if (!body.empty()) WriteBody(body);
  }
  void WriteEnd(std::span<const Header> trailers) override;
  bool above_mark() override;
  void PauseAnswer() override;
  void ResumeAnswer() override;
  void Leave() override;

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnResponse(MessageId id, ResponseHead& head) override;
  void OnInterim(MessageId id, ResponseHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  friend class ConnPool;
  void Fail(ConnFailure::Kind kind, std::string message);
  void Close();

  ConnPool& pool_;
  const uint32_t place_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Codec> codec_;
  Writer writer_;
  User* user_ = nullptr;
  MessageId message_ = 0;
  bool reused_ = false;
  bool answer_begun_ = false;
  bool request_ended_ = false;
  bool tunnel_ = false;        // The answer was 101.
  bool ended_ = false;         // The backend sends no more.
  bool closed_ = false;
  bool feeding_ = false;       // Inside OnData.
  MonoTime idle_since_ = 0;
  size_t index_ = 0;           // In the pool's list of connections.
};

}  // namespace penstock
