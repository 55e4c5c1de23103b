// penstock-engine with GPUs that are this machine's processor, for tests of what
// processes with GPUs do together: `serve --device cuda` works, slowly.
#include <variant>

#include "backend-engine/api/serve.h"
#include "backend-engine/kernels/cuda/emulated/recording.h"

int main(int argc, char** argv) {
  penstock::engine::emulated::SetGpuCount(8);
  const auto parsed = penstock::engine::ParseCommandLine(argc, argv);
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  return penstock::engine::Serve(std::get<penstock::engine::ServeOptions>(parsed));
}
