#include "backend-engine/exec/nvml.h"

#include <dlfcn.h>

#include <utility>

#include "backend-engine/exec/nvml_api.h"

namespace penstock::engine {

// Found by name; those that may be null are newer, or not of every driver.
struct Nvml::Calls {
  nvml::Init* init = nullptr;
  nvml::Shutdown* shutdown = nullptr;
  nvml::HandleByPciBusId* handle = nullptr;
  nvml::ErrorString* error_string = nullptr;      // May be null, as all below.
  nvml::UtilizationRates* utilization = nullptr;
  nvml::MemoryInfo* memory = nullptr;
  nvml::Temperature* temperature = nullptr;
  nvml::PowerUsage* power = nullptr;
  nvml::NvLinkState* link_state = nullptr;
  nvml::FieldValues* field_values = nullptr;

  std::string Text(nvml::Return failed) const {
    const char* text = error_string != nullptr ? error_string(failed) : nullptr;
    return text != nullptr ? text : "error " + std::to_string(failed);
  }
};

namespace {

template <typename Call>
bool Find(void* library, const char* name, Call*& call) {
  call = reinterpret_cast<Call*>(dlsym(library, name));
  return call != nullptr;
}

// A counter of KiB as bytes, whatever type the driver counts in.
double BytesOf(const nvml::FieldValue& field) {
  constexpr double kKibi = 1024;
  if (field.result != nvml::kSuccess) return GpuFigures::kUnknown;
  switch (field.type) {
    case nvml::kDouble: return field.value.of_double * kKibi;
    case nvml::kUnsignedInt: return field.value.of_unsigned * kKibi;
    case nvml::kUnsignedLong: return static_cast<double>(field.value.of_unsigned_long) * kKibi;
    case nvml::kUnsignedLongLong:
      return static_cast<double>(field.value.of_unsigned_long_long) * kKibi;
    case nvml::kLongLong: return static_cast<double>(field.value.of_long_long) * kKibi;
  }
  return GpuFigures::kUnknown;
}

}  // namespace

std::unique_ptr<Nvml> Nvml::Open(const std::string& library, std::string& why_not) {
  void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* reason = dlerror();
    why_not = reason != nullptr ? reason : library + " cannot be opened";
    return nullptr;
  }
  auto calls = std::make_unique<Calls>();
  if (!engine::Find(opened, "nvmlInit_v2", calls->init) ||
      !engine::Find(opened, "nvmlShutdown", calls->shutdown) ||
      !engine::Find(opened, "nvmlDeviceGetHandleByPciBusId_v2", calls->handle)) {
    why_not = library + " is not a management library that we know: nvmlInit_v2, nvmlShutdown or "
              "nvmlDeviceGetHandleByPciBusId_v2 is missing";
    dlclose(opened);
    return nullptr;
  }
  engine::Find(opened, "nvmlErrorString", calls->error_string);
  engine::Find(opened, "nvmlDeviceGetUtilizationRates", calls->utilization);
  engine::Find(opened, "nvmlDeviceGetMemoryInfo", calls->memory);
  engine::Find(opened, "nvmlDeviceGetTemperature", calls->temperature);
  engine::Find(opened, "nvmlDeviceGetPowerUsage", calls->power);
  engine::Find(opened, "nvmlDeviceGetNvLinkState", calls->link_state);
  engine::Find(opened, "nvmlDeviceGetFieldValues", calls->field_values);
  if (const nvml::Return failed = calls->init(); failed != nvml::kSuccess) {
    why_not = library + " does not start: " + calls->Text(failed);
    dlclose(opened);
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(opened, std::move(calls)));
}

Nvml::Nvml(void* library, std::unique_ptr<Calls> calls)
    : library_(library), calls_(std::move(calls)) {}

Nvml::~Nvml() {
  (void)calls_->shutdown();
  dlclose(library_);
}

void* Nvml::Find(const std::string& bus_id, std::string& why_not) const {
  nvml::Device gpu = nullptr;
  const nvml::Return failed = calls_->handle(bus_id.c_str(), &gpu);
  if (failed == nvml::kSuccess && gpu != nullptr) return gpu;
  why_not = "the GPU at " + bus_id + ": " + calls_->Text(failed);
  return nullptr;
}

GpuFigures Nvml::Read(void* gpu) const {
  GpuFigures figures;
  if (nvml::Utilization of = {};
      calls_->utilization != nullptr && calls_->utilization(gpu, &of) == nvml::kSuccess) {
    figures.utilization = of.gpu / 100.0;
  }
  if (nvml::Memory of = {};
      calls_->memory != nullptr && calls_->memory(gpu, &of) == nvml::kSuccess) {
    figures.memory_used = static_cast<double>(of.used);
    figures.memory_total = static_cast<double>(of.total);
  }
  if (unsigned int celsius = 0;
      calls_->temperature != nullptr &&
      calls_->temperature(gpu, nvml::kTemperatureGpu, &celsius) == nvml::kSuccess) {
    figures.temperature = celsius;
  }
  if (unsigned int milliwatts = 0;
      calls_->power != nullptr && calls_->power(gpu, &milliwatts) == nvml::kSuccess) {
    figures.power = milliwatts / 1e3;
  }
  int links[2] = {};  // Inactive, active.
  for (unsigned int link = 0; link < nvml::kLinksMax && calls_->link_state != nullptr; ++link) {
    int active = 0;
    if (calls_->link_state(gpu, link, &active) == nvml::kSuccess) ++links[active != 0 ? 1 : 0];
  }
  if (links[0] + links[1] == 0) return figures;
  figures.links_inactive = links[0];
  figures.links_active = links[1];
  nvml::FieldValue fields[] = {{.field = nvml::kLinkDataSent, .scope = nvml::kAllLinks},
                               {.field = nvml::kLinkDataReceived, .scope = nvml::kAllLinks}};
  if (calls_->field_values != nullptr &&
      calls_->field_values(gpu, 2, fields) == nvml::kSuccess) {
    figures.link_bytes_sent = BytesOf(fields[0]);
    figures.link_bytes_received = BytesOf(fields[1]);
  }
  return figures;
}

}  // namespace penstock::engine
