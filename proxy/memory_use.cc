#include "proxy/memory_use.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string_view>

namespace penstock {
namespace {

constexpr std::string_view kV2 = "/sys/fs/cgroup";
constexpr std::string_view kV1 = "/sys/fs/cgroup/memory";

// The number in a file; 0: there is none ("max", or no such file).
uint64_t NumberIn(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  uint64_t number = 0;
  std::from_chars(word.data(), word.data() + word.size(), number);
  return number;
}

void Lower(uint64_t& limit, uint64_t found) {
  // Version 1 says "no limit" with a number near 2^63.
  constexpr uint64_t kNoLimit = uint64_t{1} << 60;
  if (found > 0 && found < kNoLimit) limit = limit == 0 ? found : std::min(limit, found);
}

// The limits of a group and of those above it: each holds.
void LowerByGroup(const std::string& mount, std::string group, std::string_view file, uint64_t& limit) {
  while (true) {
    if (group == "/") group.clear();
    Lower(limit, NumberIn(mount + group + "/" + std::string(file)));
    if (group.empty()) return;
    group.erase(group.rfind('/'));
  }
}

}  // namespace

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t MemoryLimit(const std::string& root) {
  uint64_t limit = 0;
  std::ifstream machine(root + "/proc/meminfo");
  for (std::string word; machine >> word;) {
    uint64_t kilobytes = 0;
    if (word != "MemTotal:" || !(machine >> kilobytes)) continue;
    limit = kilobytes * 1024;
    break;
  }
  // "0::/group" for version 2, "5:memory:/group" for version 1.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (group.empty() || group.front() != '/') continue;
    if (controllers.empty()) LowerByGroup(root + std::string(kV2), group, "memory.max", limit);
    const std::string padded = "," + std::string(controllers) + ",";
    if (padded.find(",memory,") != std::string::npos) {
      LowerByGroup(root + std::string(kV1), group, "memory.limit_in_bytes", limit);
    }
  }
  return limit;
}

}  // namespace penstock
