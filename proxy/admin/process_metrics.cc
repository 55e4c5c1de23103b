// The process_* metrics that every Prometheus client library has, from /proc.
// What cannot be read is left out.
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "proxy/admin/families.h"

namespace penstock {
namespace {

// The fields of /proc/self/stat from the third on: the second, the program's name
// in parentheses, may hold anything.
std::vector<double> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  std::string state;
  rest >> state;
  std::vector<double> fields = {0};
  for (double value; rest >> value;) fields.push_back(value);
  return fields;
}

// Seconds since the epoch at which the machine started; 0: unknown.
double BootTime() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

double OpenFiles() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int entries = 0;
  while (readdir(folder) != nullptr) ++entries;
  closedir(folder);
  return entries - 3;  // ".", "..", and the folder itself, open for this.
}

}  // namespace

void AddProcess(Families& families) {
  // Positions in proc(5), counted from the third field.
  constexpr size_t kUserTime = 11, kSystemTime = 12, kThreads = 17, kStartTime = 19, kVirtual = 20,
                   kResident = 21;
  const std::vector<double> stat = StatFields();
  if (stat.size() > kResident) {
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    families.Add("process_cpu_seconds_total", {}, (stat[kUserTime] + stat[kSystemTime]) / ticks);
    families.Add("process_resident_memory_bytes", {},
                 stat[kResident] * static_cast<double>(sysconf(_SC_PAGESIZE)));
    families.Add("process_virtual_memory_bytes", {}, stat[kVirtual]);
    families.Add("process_threads", {}, stat[kThreads]);
    families.Add("process_start_time_seconds", {}, BootTime() + stat[kStartTime] / ticks);
  }
  families.Add("process_open_fds", {}, OpenFiles());
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    families.Add("process_max_fds", {}, static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace penstock
