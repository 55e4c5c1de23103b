// Waiting for another thread of this process: spin for a moment, because the
// peer is usually a few microseconds behind, then sleep, because two cores may
// be running three engines.
#pragma once

#include <atomic>

namespace penstock::engine {

// A pause takes 10 to 50 ns on the processors we know: at most 20 us in all.
inline constexpr int kSpinPauses = 400;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `word` differs from `old`. Whoever changes it calls notify_all.
inline void WaitWhile(const std::atomic<int>& word, int old) {
  for (int pause = 0; pause < kSpinPauses; ++pause) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  word.wait(old, std::memory_order_acquire);
}

}  // namespace penstock::engine
