#include "proxy/memory_use.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace penstock {
namespace {

// A machine with 8 GiB whose files are in a folder.
class Machine : public testing::Test {
 protected:
  Machine() {
    root_ = testing::TempDir() + "/machine-" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          1 kB\n");
  }
  ~Machine() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  std::string root_;
};

TEST_F(Machine, WithoutGroupsTheLimitIsItsMemory) { EXPECT_EQ(MemoryLimit(root_), 8ull << 30); }

TEST_F(Machine, OfAVersionTwoGroupTheSmallestLimitAboveHolds) {
  Write("/proc/self/cgroup", "0::/kube/pod/box\n");
  Write("/sys/fs/cgroup/kube/pod/box/memory.max", "max\n");
  Write("/sys/fs/cgroup/kube/pod/memory.max", "536870912\n");
  Write("/sys/fs/cgroup/kube/memory.max", "1073741824\n");
  EXPECT_EQ(MemoryLimit(root_), 512u << 20);
}

TEST_F(Machine, OfAVersionOneGroupTheLimitHoldsUnlessItMeansNone) {
  Write("/proc/self/cgroup", "12:cpu,cpuacct:/a\n7:memory:/box\n0::/\n");
  Write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "268435456\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(MemoryLimit(root_), 256u << 20);
  Write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(MemoryLimit(root_), 8ull << 30);
}

TEST_F(Machine, InsideAContainerTheGroupOfTheHostLeadsToTheRoot) {
  Write("/proc/self/cgroup", "0::/not/seen/from/here\n");
  Write("/sys/fs/cgroup/memory.max", "134217728\n");
  EXPECT_EQ(MemoryLimit(root_), 128u << 20);
}

TEST_F(Machine, FilesThatMakeNoSenseAreNoLimit) {
  Write("/proc/meminfo", "?\n");
  Write("/proc/self/cgroup", "\n::\nx\n0::\n1:memory:relative\n");
  Write("/sys/fs/cgroup/memory.max", "much\n");
  EXPECT_EQ(MemoryLimit(root_), 0u);
  EXPECT_EQ(MemoryLimit(root_ + "/nowhere"), 0u);
}

TEST(ResidentBytes, IsWhatThisProcessHas) {
  const uint64_t before = ResidentBytes();
  EXPECT_GT(before, 1u << 20);
  const std::string much(64 << 20, 'x');
  EXPECT_GT(ResidentBytes(), before + (48 << 20)) << much.size();
}

}  // namespace
}  // namespace penstock
