// Memory that runs out at any allocation of a request, a stream, a retry: the process
// ends there, by its own word and with its own status, and never goes on with half of
// something. Each life is a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include <gtest/gtest.h>

#include "proxy/base/out_of_memory.h"
#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"
#include "tests/support/allocations.h"

namespace penstock {
namespace {

constexpr int kRight = 0, kWrong = 3;
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

// True: everything was as it should be.
bool Live(World& world) {
  const auto client = world.Connect();
  world.backends[0]->answer = world.backends[1]->answer = Ok("fine");
  if (!world.Ask(*client, Post(R"({"model":"m"})")).ends_with("fine")) return false;
  world.backends[0]->answer = world.backends[1]->answer = std::string(kEventsHead) + Chunk(kToken) + Chunk("");
  if (StatusOf(world.Ask(*client, Post(R"({"model":"m","stream":true})"))) != 200) return false;
  world.backends[0]->answer = "nonsense\r\n\r\n";
  world.backends[1]->answer = Ok("fine");
  for (int i = 0; i < 2; ++i) {  // One of them goes elsewhere.
    client->stream->Write(Post(R"({"model":"m"})"));
    world.Wait(kSecond);
    if (!client->Take().ends_with("fine")) return false;
  }
  return StatusOf(world.Ask(*client, Post("{"))) == 400;
}

// The status of a process in which the allocation with that number fails, counted from
// the first request on; `count`: how many there were, if it got to its end.
int LifeWith(uint64_t failing, uint64_t* count) {
  int pipe_ends[2];
  EXPECT_EQ(::pipe(pipe_ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(kWrong);
    EndWhenOutOfMemory();
    World world(2);
    const uint64_t before = AllocationCount();
    if (failing > 0) FailAllocation(before + failing);
    const bool right = Live(world);
    const uint64_t used = AllocationCount() - before;
    FailAllocation(0);
    [[maybe_unused]] const ssize_t ignored = ::write(pipe_ends[1], &used, sizeof(used));
    ::_exit(right ? kRight : kWrong);
  }
  ::close(pipe_ends[1]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (count != nullptr) {
    EXPECT_EQ(::read(pipe_ends[0], count, sizeof(*count)), static_cast<ssize_t>(sizeof(*count)));
  }
  ::close(pipe_ends[0]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(NoMemory, AtAnyAllocationEndsTheProcessCleanlyAndNothingElse) {
  uint64_t all = 0;
  ASSERT_EQ(LifeWith(0, &all), kRight);
#ifdef PENSTOCK_SANITIZED
  GTEST_SKIP() << "a sanitizer has its own operator new";
#endif
  ASSERT_GT(all, 50u);
  // Every one at the beginning, then a sample.
  for (uint64_t failing = 1; failing <= all; failing += failing < 200 ? 1 : 7) {
    ASSERT_EQ(LifeWith(failing, nullptr), kExitOutOfMemory) << "allocation " << failing << " of " << all;
  }
}

}  // namespace
}  // namespace penstock
