#include "proxy/http/error_reply.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(ErrorReply, ABodyHasTheShapeThatOpenAiClientsRead) {
  EXPECT_EQ(ErrorBody(ReplyCode::kModelNotFound, "no model is named \"x\"", "model"),
            R"({"error":{"message":"no model is named \"x\"","type":"invalid_request_error",)"
            R"("param":"model","code":"model_not_found"}})");
  EXPECT_EQ(
      ErrorBody(ReplyCode::kQueueFull, ""),
      R"({"error":{"message":"","type":"rate_limit_error","param":null,"code":"queue_full"}})");
}

TEST(ErrorReply, AnEventIsOneDataLine) {
  const std::string event = ErrorEvent(ReplyCode::kBackendReset, "line\nbreak");
  EXPECT_TRUE(event.starts_with("data: {\"error\":{\"message\":\"line\\u000abreak\""));
  EXPECT_TRUE(event.ends_with("}}\n\n"));
  EXPECT_EQ(event.find('\n'), event.size() - 2);
}

TEST(ErrorReply, WhatIsNotUtf8IsReplacedAndControlsAreEscaped) {
  const std::string body =
      ErrorBody(ReplyCode::kBadRequest, "\xff\xc3\xa9\xe2\x82\x1b\\\xed\xa0\x80");
  EXPECT_NE(body.find("\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\\u001b\\\\\xef\xbf\xbd"),
            std::string::npos)
      << body;
}

TEST(ErrorReply, EveryCodeHasItsRow) {
  EXPECT_EQ(InfoOf(ReplyCode::kBadRequest).status, 400);
  EXPECT_EQ(InfoOf(ReplyCode::kInternal).code, "internal_error");
  EXPECT_EQ(InfoOf(ReplyCode::kDraining).code, "draining");
  EXPECT_EQ(InfoOf(ReplyCode::kIdleTimeout).code, "backend_idle_timeout");
  EXPECT_EQ(InfoOf(ReplyCode::kDeadlineExceeded).code, "deadline_exceeded");
}

TEST(ErrorReply, OnlyWhatMayGoBetterNextTimeIsToBeRetried) {
  for (const ReplyCode code : {ReplyCode::kBackendReset, ReplyCode::kNoHealthyBackend,
                               ReplyCode::kDraining, ReplyCode::kQueueFull}) {
    EXPECT_TRUE(InfoOf(code).should_retry) << InfoOf(code).code;
  }
  for (const ReplyCode code : {ReplyCode::kBadRequest, ReplyCode::kOverloaded,
                               ReplyCode::kFirstTokenTimeout, ReplyCode::kDeadlineExceeded}) {
    EXPECT_FALSE(InfoOf(code).should_retry) << InfoOf(code).code;
  }
}

}  // namespace
}  // namespace penstock
