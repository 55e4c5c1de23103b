// CHECK: a broken promise of our own code ends the process with the condition
// and the place. Never for what the outside can cause.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace penstock::internal {
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition,
                                     const char* note = "") {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s %s\n", file, line, condition, note);
  std::abort();
}
}  // namespace penstock::internal

#define CHECK(condition, ...)           \
  (static_cast<bool>(condition)         \
       ? static_cast<void>(0)           \
       : ::penstock::internal::CheckFailed(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__))
