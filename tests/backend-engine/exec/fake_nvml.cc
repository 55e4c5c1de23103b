// A management library for tests that says so in its every answer: no GPU, no
// driver, one made-up GPU at 0000:01:00.0. Its calls have NVML's names and the
// types of nvml_api.h. FAKE_NVML_OLD leaves out what an old driver may lack.
#include "tests/backend-engine/exec/fake_nvml.h"

#include <cstring>
#include <thread>

namespace nvml = penstock::engine::nvml;

namespace {

FakeNvml g_fake;
int g_gpu;  // Its address is the handle.

nvml::Return Answer(nvml::Device gpu) { return gpu == &g_gpu ? g_fake.fails.load() : 2; }

}  // namespace

extern "C" {

FakeNvml* fake_nvml() { return &g_fake; }

nvml::Return nvmlInit_v2() {
  if (g_fake.init == 0) ++g_fake.started;
  return g_fake.init;
}
nvml::Return nvmlShutdown() {
  --g_fake.started;
  return nvml::kSuccess;
}
nvml::Return nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, nvml::Device* gpu) {
  if (std::strcmp(bus_id, "0000:01:00.0") != 0) return 6;  // NVML_ERROR_NOT_FOUND
  *gpu = &g_gpu;
  return nvml::kSuccess;
}
nvml::Return nvmlDeviceGetUtilizationRates(nvml::Device gpu, nvml::Utilization* of) {
  while (g_fake.hangs) std::this_thread::yield();
  ++g_fake.asked;
  *of = {75, 30};
  return Answer(gpu);
}
nvml::Return nvmlDeviceGetMemoryInfo(nvml::Device gpu, nvml::Memory* of) {
  *of = {80ull << 30, 60ull << 30, 20ull << 30};
  return Answer(gpu);
}

#ifndef FAKE_NVML_OLD
const char* nvmlErrorString(nvml::Return) { return "fake error"; }
nvml::Return nvmlDeviceGetTemperature(nvml::Device gpu, int sensor, unsigned int* celsius) {
  *celsius = sensor == 0 ? 41 : 99;
  return Answer(gpu);
}
nvml::Return nvmlDeviceGetPowerUsage(nvml::Device gpu, unsigned int* milliwatts) {
  *milliwatts = 312500;
  return Answer(gpu);
}
nvml::Return nvmlDeviceGetNvLinkState(nvml::Device gpu, unsigned int link, int* active) {
  if (static_cast<int>(link) >= g_fake.links) return 3;  // NVML_ERROR_NOT_SUPPORTED
  *active = static_cast<int>(link) + 1 < g_fake.links ? 1 : 0;
  return Answer(gpu);
}
nvml::Return nvmlDeviceGetFieldValues(nvml::Device gpu, int count, nvml::FieldValue* fields) {
  for (int i = 0; i < count; ++i) {
    if (fields[i].scope != nvml::kAllLinks) return 2;
    fields[i].result = nvml::kSuccess;
    fields[i].type = nvml::kUnsignedLongLong;
    fields[i].value.of_unsigned_long_long = fields[i].field == nvml::kLinkDataSent ? 3000 : 5000;
  }
  return Answer(gpu);
}
#endif

}  // extern "C"
