#include "backend-engine/exec/thread_place.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace penstock::engine {
namespace {

using Cpus = std::vector<int>;

// A made tree like the kernel's, removed with the test.
class Sysfs {
 public:
  Sysfs() {
    char folder[] = "/tmp/penstock_sysfs_XXXXXX";
    root_ = mkdtemp(folder);
  }
  ~Sysfs() { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = std::filesystem::path(root_) / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void Device(const std::string& text) const {
    Write("bus/pci/devices/0000:3b:00.0/numa_node", text);
  }
  void Node(int node, const std::string& text) const {
    Write("devices/system/node/node" + std::to_string(node) + "/cpulist", text);
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

struct Near {
  bool found;
  Cpus cpus;
  int node;
  std::string why_not;
};
Near Ask(const Sysfs& sysfs, const std::string& bus_id = "0000:3B:00.0") {
  Near near{};
  near.found = CpusNear(bus_id, sysfs.root(), near.cpus, near.node, near.why_not);
  return near;
}

TEST(CpuList, IsReadAsTheKernelWritesIt) {
  Cpus cpus;
  EXPECT_TRUE(ParseCpuList("0-3,8,10-11\n", cpus));
  EXPECT_EQ(cpus, (Cpus{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_TRUE(ParseCpuList("7", cpus));
  EXPECT_EQ(cpus, Cpus{7});
  EXPECT_TRUE(ParseCpuList("5,2-5", cpus));
  EXPECT_EQ(cpus, (Cpus{2, 3, 4, 5}));
  EXPECT_TRUE(ParseCpuList("\n", cpus));  // A node of memory alone.
  EXPECT_TRUE(cpus.empty());
}

TEST(CpuList, AnythingElseIsRefused) {
  Cpus cpus;
  for (const char* text : {"a", "1-", "-1", "3-1", "1,,2", "1,", "1 2", "0-8192", "99999999999",
                           "1-2-3", "0x3"}) {
    EXPECT_FALSE(ParseCpuList(text, cpus)) << text;
  }
  EXPECT_TRUE(ParseCpuList("8191", cpus));
}

TEST(CpusNear, AreThoseOfTheDevicesNodeThatAreOurs) {
  const Sysfs sysfs;
  const int ours = CpusOfThisThread().front();
  sysfs.Device("1\n");
  sysfs.Node(0, "8000-8010\n");
  sysfs.Node(1, std::to_string(ours) + ",8100-8110\n");
  const Near near = Ask(sysfs);
  EXPECT_TRUE(near.found) << near.why_not;
  EXPECT_EQ(near.node, 1);
  EXPECT_EQ(near.cpus, Cpus{ours});
}

TEST(CpusNear, WhereTheSystemDoesNotSayThereIsAReason) {
  const Sysfs sysfs;
  EXPECT_EQ(Ask(sysfs, "").why_not, "its bus id is not known");
  EXPECT_EQ(Ask(sysfs).why_not,
            sysfs.root() + "/bus/pci/devices/0000:3b:00.0/numa_node cannot be read");
  for (const char* text : {"-1\n", "", "x", "1x"}) {
    sysfs.Device(text);
    EXPECT_FALSE(Ask(sysfs).found) << text;
    EXPECT_EQ(Ask(sysfs).why_not, "the system does not say which NUMA node it is on") << text;
  }
  sysfs.Device("2");
  EXPECT_EQ(Ask(sysfs).why_not, sysfs.root() + "/devices/system/node/node2/cpulist cannot be read");
  sysfs.Node(2, "nonsense");
  EXPECT_EQ(Ask(sysfs).why_not, sysfs.root() + "/devices/system/node/node2/cpulist cannot be read");
  for (const char* text : {"", "8000-8191"}) {  // Of memory alone; outside of our container.
    sysfs.Node(2, text);
    EXPECT_EQ(Ask(sysfs).why_not, "none of the CPUs of NUMA node 2 is ours to use") << text;
  }
}

TEST(Thread, StaysWhereItWasPutAndComesBack) {
  std::thread([] {
    const Cpus before = CpusOfThisThread();
    ASSERT_FALSE(before.empty());
    {
      const PlaceRestored restored;
      EXPECT_TRUE(KeepThisThreadOn({before.back()}));
      EXPECT_EQ(CpusOfThisThread(), Cpus{before.back()});
      EXPECT_FALSE(KeepThisThreadOn({}));
      EXPECT_EQ(CpusOfThisThread(), Cpus{before.back()});
    }
    EXPECT_EQ(CpusOfThisThread(), before);
  }).join();
}

}  // namespace
}  // namespace penstock::engine
