// NCCL where there is none: ranks of the emulated GPU sum by their own kernels.
#include "backend-engine/parallel/nccl_comm.h"

namespace penstock::engine {

class NcclComm::State {};

bool NcclComm::Available() { return false; }
bool NcclComm::NewId(std::string&, std::string& error) {
  error = "the emulated GPU has no NCCL";
  return false;
}
std::unique_ptr<NcclComm> NcclComm::Create(int, int, const std::string&, cuda::Stream,
                                           const std::atomic<bool>&, std::string& error) {
  error = "the emulated GPU has no NCCL";
  return nullptr;
}
NcclComm::NcclComm(std::unique_ptr<State> state) : state_(std::move(state)) {}
NcclComm::~NcclComm() = default;
int NcclComm::rank() const { return 0; }
int NcclComm::size() const { return 0; }
bool NcclComm::AllReduceSum(float*, int64_t) { return false; }
bool NcclComm::AllReduceSumBf16(uint16_t*, int64_t) { return false; }
bool NcclComm::AllGather(const float*, int64_t, float*) { return false; }
bool NcclComm::Broadcast(float*, int64_t, int) { return false; }
bool NcclComm::Barrier() { return false; }
void NcclComm::Abort() {}
bool NcclComm::Healthy(std::string& error) {
  error = "the emulated GPU has no NCCL";
  return false;
}

}  // namespace penstock::engine
