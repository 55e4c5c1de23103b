// How much memory this process uses, and how much it may: figures of /proc and of
// the control groups. A figure that cannot be read is 0.
//
// Threads: any; each call reads small files of the kernel, which do not block.
#pragma once

#include <cstdint>
#include <string>

namespace penstock {

// Bytes in memory that are this process's own.
uint64_t ResidentBytes();

// The smallest of the limits of the control groups that this process is in (version 1
// and 2) and of the machine's memory. `root` stands before each path, for tests.
uint64_t MemoryLimit(const std::string& root = "");

}  // namespace penstock
