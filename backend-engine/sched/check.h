// ENGINE_CHECK for the compute library, which has nothing but the C++ library:
// a promise of our own code is broken, so say where, with which numbers, and
// stop. Never for anything that a client, a file or a device can cause.
#pragma once

#include <cstdio>
#include <cstdlib>

// ENGINE_CHECK(condition, "sequence %d", id): the text is printf's.
#define ENGINE_CHECK(condition, ...)                                                 \
  do {                                                                               \
    if (!(condition)) [[unlikely]] {                                                 \
      std::fprintf(stderr, "%s:%d: check failed: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                             \
      std::fputc('\n', stderr);                                                      \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)
