// penstock-engine: one model, split over tensor-parallel ranks, behind the OpenAI API.
#include <variant>

#include "backend-engine/api/serve.h"

int main(int argc, char** argv) {
  const auto parsed = penstock::engine::ParseCommandLine(argc, argv);
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  return penstock::engine::Serve(std::get<penstock::engine::ServeOptions>(parsed));
}
