// Which processors are near a GPU, and how a thread stays on them: its launches
// and the memory that it touches first then do not cross between sockets.
//
// Where the system does not say which those are (one node, a virtual machine, no
// sysfs), or a container allows none of them, the thread stays where it is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::engine {

// The kernel's way to write a set of processors: "0-3,8,10-11". False where it is
// not that, or a number is beyond kCpusMax. Nothing, or white space, is no CPU.
inline constexpr int kCpusMax = 8192;
bool ParseCpuList(std::string_view text, std::vector<int>& cpus);

// The processors of the NUMA node of a PCI device, as CUDA writes its bus id
// ("0000:3B:00.0"), that this thread may run on. `sysfs`: "/sys". False: `why_not`.
bool CpusNear(const std::string& bus_id, const std::string& sysfs, std::vector<int>& cpus,
              int& node, std::string& why_not);

// Keeps the calling thread on `cpus`. False: it stays where it is.
bool KeepThisThreadOn(const std::vector<int>& cpus);

// Where the calling thread may run now.
std::vector<int> CpusOfThisThread();

// Brings the thread that made it back to where it was.
class PlaceRestored {
 public:
  PlaceRestored() : cpus_(CpusOfThisThread()) {}
  ~PlaceRestored() { (void)KeepThisThreadOn(cpus_); }
  PlaceRestored(const PlaceRestored&) = delete;
  PlaceRestored& operator=(const PlaceRestored&) = delete;

 private:
  const std::vector<int> cpus_;
};

}  // namespace penstock::engine
