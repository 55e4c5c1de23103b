// The PROXY protocol: what a load balancer in front of us says of a connection
// before the connection's own bytes: who the client is. Version 1 is a line of
// text, version 2 is binary (haproxy.org, "The PROXY protocol").
//
// Read strictly, since whoever gets past it chooses an address: one spelling, exact
// lengths, a checksum that fits where there is one. What is not understood ends the
// connection. Pure: the verdict on a header does not depend on how it was cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

// Bytes of a header; version 2 could announce 64 KiB of extensions.
inline constexpr size_t kProxyHeaderMax = 4096;

struct ProxyHeader {
  // "10.0.0.7:4711" or "[::1]:4711". Empty: the connection's own address holds, as
  // for LOCAL (the balancer's own checks), UNKNOWN, and UNIX sockets.
  std::string client;
  // Version 2 with a TLS extension: the client spoke TLS to the balancer.
  bool tls = false;
};

struct ProxyVerdict {
  enum class Kind : uint8_t { kMore, kDone, kBad };
  Kind kind = Kind::kMore;
  size_t length = 0;            // kDone: of the header; the rest is the client's.
  std::string_view why;         // kBad: for people.
};

// `bytes`: everything that has come so far. `out` is filled with kDone.
ProxyVerdict ReadProxyHeader(std::string_view bytes, ProxyHeader& out);

}  // namespace penstock
