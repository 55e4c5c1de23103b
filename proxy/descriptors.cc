#include "proxy/descriptors.h"

#include <sys/resource.h>

#include <algorithm>

namespace penstock {

uint64_t RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlim_t soft = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : soft;
}

uint32_t ConnectionsFor(uint64_t descriptors, size_t workers) {
  // Logs, listeners, polls, health checks and load streams, the admin page.
  const uint64_t others = std::min<uint64_t>(descriptors / 2, 100 + 16 * workers);
  const uint64_t left = (descriptors - others) / 2;
  return static_cast<uint32_t>(std::clamp<uint64_t>(left, 1, UINT32_MAX));
}

}  // namespace penstock
