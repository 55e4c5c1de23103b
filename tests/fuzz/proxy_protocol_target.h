// What must hold for any bytes given to the reader of PROXY headers: once they are
// refused or a header is whole, no further byte changes that, and however they are
// cut the same is read.
#pragma once

#include <string>
#include <string_view>

#include "proxy/base/check.h"
#include "proxy/base/ip.h"
#include "proxy/net/proxy_protocol.h"

namespace penstock {

inline void FuzzProxyProtocol(std::string_view bytes) {
  ProxyHeader whole;
  const ProxyVerdict verdict = ReadProxyHeader(bytes, whole);
  CHECK(verdict.length <= bytes.size() && verdict.length <= kProxyHeaderMax);
  if (verdict.kind == ProxyVerdict::Kind::kDone && !whole.client.empty()) {
    CHECK(ParseIp(IpOfPeer(whole.client)).has_value());
  }
  for (size_t size = 0; size <= bytes.size(); size += size < 256 ? 1 : 61) {
    ProxyHeader header;
    const ProxyVerdict early = ReadProxyHeader(bytes.substr(0, size), header);
    if (early.kind == ProxyVerdict::Kind::kMore) {
      CHECK(size < kProxyHeaderMax);
      continue;
    }
    // Decided: on all of the bytes it is the same.
    CHECK(early.kind == verdict.kind && early.length == verdict.length);
    CHECK(header.client == whole.client && header.tls == whole.tls);
    return;
  }
}

}  // namespace penstock
