// Places on this machine where nobody listens.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "backend-engine/parallel/inet_address.h"

namespace penstock::engine {

// A port of 127.0.0.1 that was free a moment ago.
inline std::string FreeAddress() {
  InetAddress address = InetAddress::Loopback();
  const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(bind(file, address.get(), address.size), 0);
  EXPECT_EQ(getsockname(file, address.get(), &address.size), 0);
  close(file);
  return address.Text();
}

// The same port under another name or address of this machine.
inline std::string FreeAddressAt(const std::string& host) {
  const std::string address = FreeAddress();
  return host + address.substr(address.rfind(':'));
}

}  // namespace penstock::engine
