// What happens when there is no memory: the process says so and ends at once, with a
// status of its own, and whoever runs it starts it again. Nobody has to go on with half
// of what he wanted to build; and a core file, which would hold prompts and keys, is not
// written. Long before that the memory guard has refused new requests.
#pragma once

#include <unistd.h>

#include <cstring>
#include <new>

namespace penstock {

inline constexpr int kExitOutOfMemory = 71;

// For the whole process; allocates nothing when it matters.
inline void EndWhenOutOfMemory() {
  std::set_new_handler([] {
    static constexpr char kLine[] = "penstock: out of memory; lower caches[].max_bytes or "
                                    "server.limits, or set server.overload.memory_limit\n";
    [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kLine, sizeof(kLine) - 1);
    ::_exit(kExitOutOfMemory);
  });
}

}  // namespace penstock
