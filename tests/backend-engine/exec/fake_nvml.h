// What a test tells the library of fake_nvml.cc to say. The test opens it by
// name, as the engine does, and asks it for this by fake_nvml().
#pragma once

#include <atomic>

#include "backend-engine/exec/nvml_api.h"

struct FakeNvml {
  std::atomic<int> init{0};        // What nvmlInit_v2 returns.
  std::atomic<int> fails{0};       // What every figure returns.
  std::atomic<int> links{2};       // NVLinks of the GPU; the last of them is down.
  std::atomic<bool> hangs{false};  // Utilisation does not return before this is false.
  std::atomic<int> started{0};     // Init minus shutdown.
  std::atomic<int> asked{0};       // Calls for utilisation that came back.
};

using FakeNvmlCall = FakeNvml*();
