#include "proxy/request/access_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/base/status.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

class AccessLogFile : public ::testing::Test {
 protected:
  AccessLogFile() {
    std::string name = ::testing::TempDir() + "penstock-access-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/log";
  }
  ~AccessLogFile() override {
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
  std::vector<Json> Lines() const {
    std::ifstream file(path_);
    std::vector<Json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  std::string folder_, path_;
};

TEST_F(AccessLogFile, ARequestIsOneLineOfJson) {
  AccessLogEntry entry;
  entry.start = absl::UnixEpoch() + absl::Milliseconds(1500);
  entry.request_id = "r1";
  entry.path = "/v1/chat/completions";
  entry.backend = "b0";
  entry.status = 200;
  entry.stream = true;
  entry.bytes_sent = 5'000'000'000;
  entry.duration_us = 1'234'567;
  {
    auto log = AccessLog::Open(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write(entry);
    entry.ttft_us = 250;
    (*log)->Write(entry);
  }
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["start_time"], "1970-01-01T00:00:01.500000Z");
  EXPECT_EQ(lines[0]["request_id"], "r1");
  EXPECT_EQ(lines[0]["response_code"], 200);
  EXPECT_EQ(lines[0]["bytes_sent"], 5'000'000'000);
  EXPECT_EQ(lines[0]["duration_ms"], 1234.567);
  EXPECT_FALSE(lines[0].contains("ttft_ms"));
  EXPECT_EQ(lines[1]["ttft_ms"], 0.25);
}

TEST_F(AccessLogFile, WhatAClientSentCannotForgeALine) {
  AccessLogEntry entry;
  entry.path = "/\"}\n{\"path\":\"\\\xff\x01";
  {
    auto log = AccessLog::Open(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write(entry);
  }
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["path"], "/\"}\n{\"path\":\"\\\u00ff\u0001");
}

TEST_F(AccessLogFile, ARestartAddsToTheFile) {
  for (int i = 0; i < 2; ++i) {
    auto log = AccessLog::Open(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write({});
  }
  EXPECT_EQ(Lines().size(), 2u);
}

TEST_F(AccessLogFile, AFileThatCannotBeOpenedIsNamedWithTheReason) {
  const auto log = AccessLog::Open(folder_ + "/none/log");
  ASSERT_FALSE(log.ok());
  EXPECT_EQ(S(log.status().message()),
            "access log " + folder_ + "/none/log: cannot be opened: No such file or directory");
}

// A pipe that nobody empties stands for a disk that is too slow.
TEST_F(AccessLogFile, WhatIsNotWrittenInTimeIsDroppedAndCountedUpToALimit) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int reader = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto log = AccessLog::Open(path_);
  ASSERT_TRUE(log.ok()) << log.status();
  const std::string path(1000, 'p');
  AccessLogEntry entry;
  entry.path = path;
  constexpr size_t kWritten = 3 * AccessLog::kBufferMax / 1000;
  for (size_t i = 0; i < kWritten; ++i) (*log)->Write(entry);
  EXPECT_GT((*log)->dropped(), 0u);
  EXPECT_LT((*log)->dropped(), kWritten);
  ::signal(SIGPIPE, SIG_IGN);  // As the proxy does.
  ::close(reader);
  log->reset();
}

TEST(AccessLogInto, GivesEachLineToItsSinkAtOnce) {
  std::vector<Json> lines;
  const auto log = AccessLog::Into([&](std::string_view line) { lines.push_back(Json::parse(line)); });
  AccessLogEntry entry;
  entry.request_id = "r1";
  log->Write(entry);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["request_id"], "r1");
  log->Reopen();
  EXPECT_EQ(log->dropped(), 0u);
}

TEST_F(AccessLogFile, LinesOfManyThreadsStayWhole) {
  {
    auto log = AccessLog::Open(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&log] {
        for (int k = 0; k < 200; ++k) (*log)->Write({});
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(Lines().size(), 800u);
}

}  // namespace
}  // namespace penstock
