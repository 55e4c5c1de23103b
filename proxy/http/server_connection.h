// One client's connection to an HttpServer: requests one after the other, each
// handed to the handler when it is whole. Private to http/server.cc.
//
// Several callers may find out that the connection is over while one of its own
// functions runs, so it is only marked dead and removed when the outermost call
// returns (Scope).
#pragma once

#include <list>
#include <memory>
#include <string>

#include "proxy/base/deadline_wheel.h"
#include "proxy/base/gather.h"
#include "proxy/http/server.h"

namespace penstock {

class ServerConnection;

// What connections share.
struct ServerShared {
  Loop& loop;
  HttpServerOptions options;
  HttpServer::Handler handler;
  bool closing = false;
  Gather gather;   // Empty between calls.
  std::list<std::unique_ptr<ServerConnection>> connections;
};

class ServerAnswer final : public HttpAnswer {
 public:
  explicit ServerAnswer(ServerConnection& connection) : connection_(&connection) {}
  ~ServerAnswer() override;

  void Send(int status, std::string_view content_type, std::string_view body,
            const HeaderList& headers) override;
  void Begin(int status, std::string_view content_type, const HeaderList& headers) override;
  void Write(std::string_view data) override;
  void End(const HeaderList& trailers) override;
  void Cut() override;
  void CutAfter(std::string_view last) override;
  size_t buffered() const override;
  bool client_gone() const override { return gone_; }
  void OnClientGone(absl::AnyInvocable<void()> callback) override;

 private:
  friend class ServerConnection;
  ServerConnection* connection_;     // nullptr: answered, or the client left.
  bool begun_ = false;
  bool gone_ = false;
  absl::AnyInvocable<void()> on_gone_;
};

class ServerConnection final : public StreamReceiver, public CodecReceiver {
 public:
  ServerConnection(ServerShared& shared, std::unique_ptr<Stream> stream);
  ~ServerConnection();

  std::list<std::unique_ptr<ServerConnection>>::iterator self;

  void StopTaking();   // Closes now if idle, else after the current answer.
  size_t buffered() const { return stream_->buffered(); }

  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override {}
  void OnRequest(MessageId id, RequestHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  friend class ServerAnswer;
  class Scope;

  void Feed(std::string_view data);
  void OnDeadline();
  void RefuseBody();
  void Refuse(int status, std::string_view body);
  void WriteHead(int status, std::string_view content_type, const HeaderList& headers,
                 Framing framing, size_t length);
  void Flush();
  void FinishExchange();
  void Linger();
  void AwaitPeer();
  void CutSoon();
  void Die();

  ServerShared& shared_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Codec> codec_;
  Deadline deadline_;
  MessageId id_ = 0;
  HttpRequest request_;
  ServerAnswer* answer_ = nullptr;   // Of the request that the handler has.
  std::string pending_;              // Bytes behind the current request; not empty: paused.
  size_t lingered_ = 0;
  size_t unsent_ = 0;                // Of finished and cut answers, when last looked at,
  MonoTime give_up_ = 0;             // and when some of it must have been taken.
  int depth_ = 0;
  bool in_feed_ = false;
  bool refused_ = false;             // An error was answered: only the close is left.
  bool lingering_ = false;           // Our direction is ended; waiting for the peer's end.
  bool cutting_ = false;             // To be reset once its last bytes are gone,
  MonoTime cut_by_ = 0;              // or by then, if none of them is taken.
  bool dead_ = false;
};

}  // namespace penstock
