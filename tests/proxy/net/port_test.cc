#include "proxy/net/port.h"

#include <gtest/gtest.h>

#include "proxy/net/loop.h"

namespace penstock {
namespace {

TEST(Port, OneThatSomebodySharesIsNotFree) {
  for (const char* any : {"127.0.0.1:0", "[::1]:0"}) {
    const auto loop = Loop::Create();
    auto listener = loop->Listen(*Address::Parse(any), [](auto) {});
    ASSERT_TRUE(listener.ok());
    const Address address = (*listener)->address();
    const absl::Status busy = CheckPortFree(address);
    EXPECT_EQ(busy.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_NE(busy.ToString().find(address.text), std::string::npos);
    listener->reset();
    EXPECT_TRUE(CheckPortFree(address).ok());
  }
}

}  // namespace
}  // namespace penstock
