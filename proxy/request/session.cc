#include "proxy/request/session.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/net/proxy_protocol_stream.h"
#include "proxy/request/exchange.h"
#include "proxy/request/h1_session.h"
#include "proxy/request/h2_session.h"
#include "proxy/request/request_id.h"

namespace penstock {

namespace {

// The stream behind its PROXY header; null: its peer may not send one.
std::unique_ptr<Stream> BehindProxyHeader(std::unique_ptr<Stream> stream, const Entrance& entrance,
                                          WorkerContext& context) {
  auto& faults = context.metrics.proxy_header_faults;
  const std::optional<Ip> ip = ParseIp(IpOfPeer(stream->peer()));
  const bool allowed =
      entrance.proxy_header_from.empty() ||
      (ip && std::any_of(entrance.proxy_header_from.begin(), entrance.proxy_header_from.end(),
                         [&](const IpRange& range) { return range.Contains(*ip); }));
  if (!allowed) {
    faults[static_cast<size_t>(ProxyHeaderFault::kUntrusted)].Add();
    return nullptr;
  }
  return std::make_unique<ProxyProtocolStream>(
      std::move(stream), context.loop.deadlines(), [&faults](ProxyProtocolStream::Fault fault) {
        const bool late = fault == ProxyProtocolStream::Fault::kTimeout;
        faults[static_cast<size_t>(late ? ProxyHeaderFault::kTimeout : ProxyHeaderFault::kInvalid)].Add();
      });
}

}  // namespace

Entrance EntranceOf(const config::Listener& listener) {
  Entrance entrance;
  entrance.name = listener.name;
  entrance.debug_headers = listener.debug_headers;
  const auto speaks = [&](std::string_view name) {
    return std::find(listener.protocols.begin(), listener.protocols.end(), name) !=
           listener.protocols.end();
  };
  entrance.http1 = speaks("http1");
  entrance.h2 = speaks("http2");
  entrance.proxy_header = listener.proxy_protocol == config::ProxyProtocol::kRequired;
  for (const std::string& range : listener.proxy_protocol_from) {
    const std::optional<IpRange> parsed = ParseIpRange(range);
    if (parsed) entrance.proxy_header_from.push_back(*parsed);
  }
  return entrance;
}

CodecLimits LimitsOf(const config::Server& server) {
  const config::Limits& limits = server.limits;
  CodecLimits out;
  out.paths = server.path_normalization == config::PathNormalization::kStrict ? PathRule::kStrict
                                                                              : PathRule::kNormalize;
  out.header_bytes = limits.header_bytes;
  out.header_count = limits.header_count;
  out.request_line_bytes = limits.request_line_bytes;
  out.h2.concurrent_streams = limits.streams_per_connection;
  // Events go out whole, and what came behind one before its backend was paused follows.
  out.h2.unsent_bytes = std::max<size_t>(out.h2.unsent_bytes, limits.event_bytes) + 4 * Codec::kUnsentMark;
  return out;
}

ReplyCode ReplyFor(uint16_t status) {
  switch (status) {
    case 405: return ReplyCode::kMethodNotAllowed;
    case 408: return ReplyCode::kRequestTimeout;
    case 413: return ReplyCode::kBodyTooLarge;
    case 414: return ReplyCode::kUriTooLong;
    case 431: return ReplyCode::kHeadersTooLarge;
    case 501:
    case 505: return ReplyCode::kNotImplemented;
    default: return ReplyCode::kBadRequest;
  }
}

void Session::Refuse(Codec& codec, MessageId id, const ProtocolError& error) {
  context_.metrics.protocol_errors.Add();
  context_.no_pool.AddRequest(error.status, false, 0);
  const Flag flag = error.status == 408 ? Flag::kHT : Flag::kIH;
  context_.no_pool.AddFlag(flag);
  const ReplyCode code = ReplyFor(error.status);
  std::array<char, kRequestIdBytes> id_bytes;
  const std::string_view request_id = MakeRequestId(context_.random, id_bytes.data());
  if (context_.access_log != nullptr) {
    context_.access_log->Write({.start = context_.loop.wall_now(), .request_id = request_id,
                                .protocol = version(), .flag = kFlagNames[static_cast<size_t>(flag)],
                                .details = InfoOf(code).code, .client = peer(), .status = error.status});
  }
  const std::string body = ErrorBody(code, error.message);
  std::array<Header, 4> fields{
      {{"content-type", "application/json", KnownHeader::kContentType},
       {"x-request-id", request_id, KnownHeader::kXRequestId},
       {"x-should-retry", InfoOf(code).should_retry ? "true" : "false", KnownHeader::kXShouldRetry},
       {"allow", kMethods}}};
  ResponseHead head;
  head.status = error.status;
  head.headers = std::span(fields).first(error.status == 405 ? 4 : 3);
  head.framing = Framing::kLength;
  head.content_length = body.size();
  codec.WriteResponse(writer_.out(), id, head, {});
  codec.WriteBody(writer_.out(), id, body);
  codec.WriteEnd(writer_.out(), id);
  writer_.Flush();  // The body ends here.
}

SessionSet::~SessionSet() { CloseAll(); }

void SessionSet::Accept(std::unique_ptr<Stream> stream, std::shared_ptr<const Entrance> entrance) {
  Turn::Scope scope(context_.turn);
  const uint32_t limit = std::min(context_.snapshot->server().limits.connections,
                                  context_.totals.connections_max.load(std::memory_order_relaxed));
  if (context_.draining || context_.totals.connections.fetch_add(1) >= limit) {
    if (!context_.draining) context_.totals.connections.fetch_sub(1);
    context_.metrics.client_connections_refused.Add();
    return;  // The stream closes as it goes out of scope.
  }
  if (entrance->proxy_header) stream = BehindProxyHeader(std::move(stream), *entrance, context_);
  if (stream == nullptr) {
    context_.totals.connections.fetch_sub(1);
    return;
  }
  context_.metrics.client_connections_total.Add();
  Count(ClientProtocol::kHttp1, +1);    // Until it says otherwise.
  if (entrance->door == nullptr || entrance->door->context() == nullptr) {
    return Begin(std::move(stream), std::move(entrance));
  }
  const auto done = [this, entrance](TlsAcceptor::Outcome outcome) {
    Turn::Scope scope(context_.turn);
    TlsDoor& door = *entrance->door;
    if (outcome.stream == nullptr) {
      door.Failed(outcome.failure, outcome.why, outcome.peer, context_.loop.now());
      return Uncount(1);
    }
    door.Opened(*outcome.stream->tls());
    Begin(std::move(outcome.stream), entrance);
  };
  handshakes_.Accept(entrance->door->context(), std::move(stream),
                     ToMicros(context_.snapshot->server().tls_handshake_timeout), done);
}

void SessionSet::Begin(std::unique_ptr<Stream> stream, std::shared_ptr<const Entrance> entrance) {
  if (stream->alpn() == "h2" || !entrance->http1) {
    sessions_.push_back(
        std::make_unique<H2Session>(*this, context_, std::move(stream), std::move(entrance)));
  } else {
    sessions_.push_back(
        std::make_unique<H1Session>(*this, context_, std::move(stream), std::move(entrance)));
  }
  Count(ClientProtocol::kHttp1, -1);    // As what it was accepted.
  Count(sessions_.back()->protocol(), +1);
  sessions_.back()->index_ = sessions_.size() - 1;
}

void SessionSet::Remove(Session& session) {
  const size_t index = session.index_;
  context_.totals.connections.fetch_sub(1);
  Count(session.protocol(), -1);
  CHECK(sessions_[index].get() == &session);
  context_.turn.Bury(std::move(sessions_[index]));
  if (index + 1 != sessions_.size()) {
    sessions_[index] = std::move(sessions_.back());
    sessions_[index]->index_ = index;
  }
  sessions_.pop_back();
}

void SessionSet::Replace(Session& session, std::unique_ptr<Session> next) {
  Count(session.protocol(), -1);
  Count(next->protocol(), +1);
  next->index_ = session.index_;
  context_.turn.Bury(std::exchange(sessions_[session.index_], std::move(next)));
}

// Those that were in their handshake.
void SessionSet::Uncount(uint32_t connections) {
  context_.totals.connections.fetch_sub(connections);
  Count(ClientProtocol::kHttp1, -static_cast<int64_t>(connections));
}

void SessionSet::Count(ClientProtocol protocol, int64_t connections) {
  context_.metrics.Connections(protocol).Add(connections);
}

void SessionSet::CloseHandshakes() {
  Uncount(static_cast<uint32_t>(handshakes_.size()));
  handshakes_.CloseAll();
}

void SessionSet::Drain(MonoTime idle_for, const Entrance* only) {
  if (only == nullptr && idle_for != kNever) CloseHandshakes();
  for (size_t i = sessions_.size(); i-- > 0;) {
    if (only == nullptr || sessions_[i]->entrance_.get() == only) sessions_[i]->Drain(idle_for);
  }
}

void SessionSet::CloseIdle(MonoTime idle_for) {
  for (size_t i = sessions_.size(); i-- > 0;) sessions_[i]->CloseIdle(idle_for);
}

void SessionSet::EndWhole() {
  Turn::Scope scope(context_.turn);
  for (size_t i = sessions_.size(); i-- > 0;) sessions_[i]->EndWhole();
}

void SessionSet::CloseAll() {
  Turn::Scope scope(context_.turn);
  CloseHandshakes();
  while (!sessions_.empty()) sessions_.back()->Close();
}

size_t SessionSet::busy() const {
  size_t count = 0;
  for (const auto& session : sessions_) count += session->busy();
  return count;
}

}  // namespace penstock
