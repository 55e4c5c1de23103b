// What must hold for any bytes as the value of Forwarded or X-Forwarded-For: what is
// read lies inside it and is what it is said to be, what we write can be read again,
// and cutting a list keeps its end.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/check.h"
#include "proxy/base/ip.h"
#include "proxy/http/forwarded.h"

namespace penstock {

inline void FuzzForwarded(std::string_view value) {
  std::vector<std::string_view> elements;
  ForEachFromTheEnd(value, [&](std::string_view element) {
    CHECK(!element.empty() && element.data() >= value.data() &&
          element.data() + element.size() <= value.data() + value.size());
    const std::string_view ip = AddressOfNode(element);
    CHECK(ip.empty() || ParseIp(ip).has_value());
    elements.push_back(element);
    return elements.size() < 64;
  });
  const std::string_view last = LastElements(value, kForwardedHopsMax);
  CHECK(last.size() <= value.size());
  size_t kept = 0;
  ForEachFromTheEnd(last, [&](std::string_view element) {
    CHECK(kept < elements.size() && element == elements[kept]);
    return ++kept < 64;
  });
  CHECK(kept <= kForwardedHopsMax);

  ForwardedList list;
  if (!ReadForwarded(value, list)) return;
  CHECK(list.count > 0 && list.count <= kForwardedHopsMax);
  const ForwardedHop& nearest = list.hops[0];
  std::string written;
  AppendForwarded(AddressOfNode(nearest.client), nearest.host, nearest.proto, written);
  ForwardedList again;
  CHECK(ReadForwarded(written, again) && again.count == 1);
  CHECK(again.hops[0].host == nearest.host && again.hops[0].proto == nearest.proto);
  CHECK(AddressOfNode(again.hops[0].client) == AddressOfNode(nearest.client));
}

}  // namespace penstock
