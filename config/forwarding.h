// What the policy file says of the edge: who the client is, what backends are told of
// it, how paths are spelt. Read it beside config.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::config {

// Whether a listener's connections begin with a header of the PROXY protocol.
enum class ProxyProtocol { kOff, kRequired };

// How request paths are spelt before they are routed: proxy/http/request_target.h.
enum class PathNormalization { kNormalize, kStrict };

// What is done with a field that says where a request comes from. Append: added to
// what a trusted peer said. Ignore: passed on as it came, from anybody.
enum class ForwardAction { kAppend, kReplace, kIgnore, kRemove };

enum class ClientCertDetails { kSanitize, kAlwaysForwardOnly };

// Names and meanings as in Envoy, where Envoy has them.
struct Forwarding {
  bool use_remote_address = true;            // The client is who connects; false: X-Forwarded-For tells.
  uint32_t xff_num_trusted_hops = 0;         // Proxies in front of this one whose word counts.
  std::vector<std::string> xff_trusted_cidrs;  // Or by address: peers whose word counts.
  ForwardAction x_forwarded_for = ForwardAction::kAppend;
  ForwardAction x_forwarded_proto = ForwardAction::kAppend;
  ForwardAction x_forwarded_host = ForwardAction::kRemove;
  ForwardAction forwarded = ForwardAction::kRemove;   // RFC 7239.
  ClientCertDetails client_cert = ClientCertDetails::kSanitize;  // x-forwarded-client-cert.
  bool preserve_external_request_id = true;  // A valid x-request-id of anybody is kept.
  std::string via;                           // Our name in Via, both ways; empty: none.
  std::vector<std::string> internal_only_headers;  // Dropped unless a trusted peer sent them.
};

}  // namespace penstock::config
