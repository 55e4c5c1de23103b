// What the policy file says of one listener. Read it beside config.h.
#pragma once

#include <string>
#include <vector>

#include "config/forwarding.h"
#include "config/tls.h"

namespace penstock::config {

struct Listener {
  std::string name = "public";
  std::string address = "127.0.0.1:8080";    // HOST:PORT, [V6]:PORT; port 0: any free one.
  bool debug_headers = false;                // Adds x-penstock-backend and x-penstock-decision.
  std::vector<std::string> protocols = {"http1", "http2"};
  ListenerTls tls;
  ProxyProtocol proxy_protocol = ProxyProtocol::kOff;
  std::vector<std::string> proxy_protocol_from;  // Who may send it; empty: everybody.
};

}  // namespace penstock::config
