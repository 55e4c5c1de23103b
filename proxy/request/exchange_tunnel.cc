// A connection that changes to another protocol (WebSocket): it is asked for where the
// pool allows it, and becomes a tunnel only when the backend has agreed with a 101. What
// the client sent before that has waited in its session.
#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/session.h"

namespace penstock {

void Exchange::FindUpgrade() {
  const bool fits = head_.method == "GET" && head_.framing == Framing::kNone && head_.minor_version >= 1;
  if (!fits || pool_->settings.upgrades.empty()) return;
  size_t fields = 0;
  for (const Header& header : head_.headers) {
    if (header.id != KnownHeader::kUpgrade) continue;
    ++fields;
    for (const std::string& allowed : pool_->settings.upgrades) {
      if (EqualsIgnoringCase(header.value, allowed)) upgrade_ = header.value;
    }
  }
  if (fields != 1) upgrade_ = {};
}

void Exchange::BeginTunnel(Try& one, ResponseHead& head) {
  Header* agreed = nullptr;
  for (Header& header : head.headers) {
    if (header.id == KnownHeader::kUpgrade) agreed = &header;
  }
  if (session_ == nullptr || agreed == nullptr || !EqualsIgnoringCase(agreed->value, upgrade_)) {
    return Broken(ReplyCode::kBackendBadAnswer,
                  fmt::format("backend {} changed to a protocol that was not asked for", one.backend_name));
  }
  agreed->dropped = false;
  Promote(one);
  status_ = head.status;
  tunnel_ = true;
  due_.idle = context_.loop.now() + quiet_limit();
  SendHead(head);
  Rearm();
}

void Exchange::OnTunnelBytes(std::string_view data) {
  due_.idle = context_.loop.now() + quiet_limit();
  Rearm();
  answer_->call->WriteBody(data);
  if (answer_->call->above_mark()) HoldBody();
}

void Exchange::OnTunnelIdle() {
  pool_->cells.AddTimeout(TimeoutKind::kTunnel);
  EndTries(Outcome::kOk);
  Fail(ReplyCode::kIdleTimeout, "nothing moved on the connection");
}

}  // namespace penstock
