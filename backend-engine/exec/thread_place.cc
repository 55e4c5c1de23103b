#include "backend-engine/exec/thread_place.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>

namespace penstock::engine {
namespace {

constexpr std::string_view kWhite = " \t\r\n";
constexpr std::streamsize kFileBytesMax = 64 << 10;

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kWhite);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhite) - first + 1);
}

// Takes a number off the front.
bool TakeNumber(std::string_view& text, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

bool ReadText(const std::string& path, std::string& text) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  text.resize(static_cast<size_t>(kFileBytesMax));
  file.read(text.data(), kFileBytesMax);
  text.resize(static_cast<size_t>(file.gcount()));
  return !file.bad();
}

struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};
using CpuSet = std::unique_ptr<cpu_set_t, FreeCpuSet>;
constexpr size_t kSetBytes = CPU_ALLOC_SIZE(kCpusMax);

CpuSet EmptySet() {
  CpuSet set(CPU_ALLOC(kCpusMax));
  if (set != nullptr) CPU_ZERO_S(kSetBytes, set.get());
  return set;
}

}  // namespace

bool ParseCpuList(std::string_view text, std::vector<int>& cpus) {
  cpus.clear();
  text = Trimmed(text);
  while (!text.empty()) {
    int first = 0;
    if (!TakeNumber(text, first)) return false;
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!TakeNumber(text, last)) return false;
    }
    if (last < first || last >= kCpusMax) return false;
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (text.empty()) break;
    if (!text.starts_with(',') || text.size() == 1) return false;
    text.remove_prefix(1);
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return true;
}

bool CpusNear(const std::string& bus_id, const std::string& sysfs, std::vector<int>& cpus,
              int& node, std::string& why_not) {
  cpus.clear();
  node = -1;
  if (bus_id.empty()) {
    why_not = "its bus id is not known";
    return false;
  }
  std::string device = bus_id;
  std::transform(device.begin(), device.end(), device.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  const std::string of_device = sysfs + "/bus/pci/devices/" + device + "/numa_node";
  std::string text;
  if (!ReadText(of_device, text)) {
    why_not = of_device + " cannot be read";
    return false;
  }
  const std::string_view number = Trimmed(text);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), node);
  if (error != std::errc() || end != number.data() + number.size() || node < 0) {
    node = -1;
    why_not = "the system does not say which NUMA node it is on";
    return false;
  }
  const std::string of_node =
      sysfs + "/devices/system/node/node" + std::to_string(node) + "/cpulist";
  std::vector<int> all;
  if (!ReadText(of_node, text) || !ParseCpuList(text, all)) {
    why_not = of_node + " cannot be read";
    return false;
  }
  const std::vector<int> allowed = CpusOfThisThread();
  std::set_intersection(all.begin(), all.end(), allowed.begin(), allowed.end(),
                        std::back_inserter(cpus));
  if (cpus.empty()) {
    why_not = "none of the CPUs of NUMA node " + std::to_string(node) + " is ours to use";
    return false;
  }
  return true;
}

bool KeepThisThreadOn(const std::vector<int>& cpus) {
  const CpuSet set = EmptySet();
  if (set == nullptr) return false;
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < kCpusMax) CPU_SET_S(static_cast<size_t>(cpu), kSetBytes, set.get());
  }
  return sched_setaffinity(0, kSetBytes, set.get()) == 0;
}

std::vector<int> CpusOfThisThread() {
  std::vector<int> cpus;
  const CpuSet set = EmptySet();
  if (set == nullptr || sched_getaffinity(0, kSetBytes, set.get()) != 0) return cpus;
  for (int cpu = 0; cpu < kCpusMax; ++cpu) {
    if (CPU_ISSET_S(static_cast<size_t>(cpu), kSetBytes, set.get())) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace penstock::engine
