// A client's connection, as its exchanges and its worker see it: HTTP/1 carries one
// exchange at a time (h1_session.h), HTTP/2 many (h2_session.h). It owns its stream
// and its live exchanges; closing it cancels them all.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/backends/worker_metrics.h"
#include "proxy/base/ip.h"
#include "proxy/http/codec.h"
#include "proxy/http/error_reply.h"
#include "proxy/net/stream.h"
#include "proxy/net/tls_acceptor.h"
#include "proxy/net/turn.h"
#include "proxy/request/tls_door.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class Exchange;
class SessionSet;

// The listener that connections came by. Belongs to the worker's thread.
struct Entrance {
  std::string name;
  bool debug_headers = false;
  bool http1 = true, h2 = true;          // What is spoken there.
  bool proxy_header = false;             // Connections begin with one (net/proxy_protocol.h) ...
  std::vector<IpRange> proxy_header_from;  // ... sent by these; empty: by everybody.
  bool gone = false;                     // It was closed: its connections end after their answer.
  std::unique_ptr<TlsDoor> door;         // None: plain.
};

class Session {
 public:
  virtual ~Session() = default;

  // --- for its exchanges, each under the id that it was started with ---
  virtual void WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) = 0;
  virtual void WriteContinue(MessageId id) = 0;
  // `data` stays valid until the turn ends.
  virtual void WriteBody(MessageId id, std::string_view data) = 0;
  virtual void WriteEnd(MessageId id, std::span<const Header> trailers) = 0;
  // Cuts the answer so that every client sees that it is not whole: by a reset, as
  // soon as what was said so far has had the time to arrive (`at_once`: now).
  // REQUIRES: the exchange has finished; it is given back to the worker.
  virtual void Cut(MessageId id, bool at_once) = 0;
  // The rest of the request will not be read. On HTTP/1 no request can follow it, and
  // the answer, whose head comes after this, says so.
  virtual void CloseAfterAnswer(MessageId id) = 0;
  virtual void PauseBody(MessageId id) = 0;
  virtual void ResumeBody(MessageId id) = 0;
  // Bytes of this answer that the client has not taken yet.
  virtual size_t unsent(MessageId id) const = 0;
  // Whoever stops because of it hears of OnClientWritable.
  virtual bool above_mark(MessageId id) = 0;
  // The exchange is over, answered whole; it is given back to the worker.
  virtual void ExchangeDone(MessageId id, bool request_complete) = 0;
  virtual ClientProtocol protocol() const = 0;
  virtual std::string_view version() const = 0;   // "HTTP/1.1", for the access log.
  // The connection failed: what was on its way may not have come.
  bool broken() const { return broken_; }
  std::string_view peer() const { return stream_->peer(); }
  bool secure() const { return stream_->secure(); }
  bool debug_headers() const { return entrance_->debug_headers; }

  // --- for the worker ---
  // Takes no more requests: closes when those that it has are answered, or when it has
  // had none for `idle_for`, as one may be on its way. Called again and again while the
  // worker drains.
  virtual void Drain(MonoTime idle_for) = 0;
  // Closes if it has had no request for `idle_for`.
  virtual void CloseIdle(MonoTime idle_for) = 0;
  // Ends requests that are not streams.
  virtual void EndWhole() = 0;
  virtual size_t busy() const = 0;  // Requests in progress.
  virtual void Close() = 0;

 protected:
  // No new request is taken on this connection.
  bool ending() const { return context_.closing() || entrance_->gone; }
  Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
          std::shared_ptr<const Entrance> entrance)
      : set_(set),
        context_(context),
        stream_(std::move(stream)),
        writer_(context.turn),
        entrance_(std::move(entrance)) {
    writer_.Attach(*stream_);
  }
  // Answers a request that became no exchange.
  void Refuse(Codec& codec, MessageId id, const ProtocolError& error);

  SessionSet& set_;
  WorkerContext& context_;
  std::unique_ptr<Stream> stream_;
  Writer writer_;
  const std::shared_ptr<const Entrance> entrance_;
  bool broken_ = false;

 private:
  friend class SessionSet;
  size_t index_ = 0;             // In the set.
};

// What may be asked of a path; 405 and OPTIONS say so.
inline constexpr std::string_view kMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

// Without a door.
Entrance EntranceOf(const config::Listener& listener);
// What the policy file allows a client's connection.
CodecLimits LimitsOf(const config::Server& server);
// The error that a codec's verdict is told as.
ReplyCode ReplyFor(uint16_t status);

// The sessions of one worker.
class SessionSet {
 public:
  explicit SessionSet(WorkerContext& context)
      : context_(context), handshakes_(context.loop.deadlines()) {}
  ~SessionSet();

  // Accepted, then TLS where its listener speaks it, then a session. It counts as a
  // connection from the start.
  void Accept(std::unique_ptr<Stream> stream, std::shared_ptr<const Entrance> entrance);
  // All, or those that came by one entrance. Handshakes may end while idle connections
  // may stay; a connection that comes of one takes its request.
  void Drain(MonoTime idle_for, const Entrance* only = nullptr);
  void CloseIdle(MonoTime idle_for);
  void EndWhole();
  void CloseAll();
  size_t size() const { return sessions_.size() + handshakes_.size(); }
  size_t busy() const;

  // --- for its sessions ---
  void Remove(Session& session);
  void Replace(Session& session, std::unique_ptr<Session> next);  // On the same connection.

 private:
  void Begin(std::unique_ptr<Stream> stream, std::shared_ptr<const Entrance> entrance);
  void CloseHandshakes();
  void Uncount(uint32_t connections);
  void Count(ClientProtocol protocol, int64_t connections);

  WorkerContext& context_;
  std::vector<std::unique_ptr<Session>> sessions_;
  TlsAcceptor handshakes_;       // Connections that are no sessions yet.
};

}  // namespace penstock
