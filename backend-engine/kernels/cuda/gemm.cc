// gemm.h by cuBLASLt. Its matrices stand column after column, ours row after
// row, so it is asked for the transposed product: y^T [rows x tokens] =
// W [rows x cols] x^T [cols x tokens], where W is its transposed first operand
// and nothing is moved.
#include "backend-engine/kernels/cuda/gemm.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <vector>

namespace penstock::engine::cuda {
namespace {

constexpr GpuError kLibraryFailed = cudaErrorUnknown;
constexpr int kRunsMeasured = 5;

// rows, cols, tokens, fp32 result, bias.
using Shape = std::tuple<int32_t, int32_t, int32_t, bool, bool>;

Shape ShapeOf(const GemvCall& call) {
  return {call.rows, call.cols, GemmTokens(call.token_count), call.y_float != nullptr,
          call.bias != nullptr};
}

// Descriptors of one shape, and the algorithm chosen for it.
class Product {
 public:
  Product() = default;
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;
  ~Product() {
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
    for (cublasLtMatrixLayout_t layout : {weight_, x_, y_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }

  bool Make(const Shape& shape) {
    const auto [rows, cols, tokens, wide, biased] = shape;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t result = wide ? CUDA_R_32F : CUDA_R_16BF;
    return Ok(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           Ok(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof transposed)) &&
           (!biased ||
            Ok(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                              &epilogue, sizeof epilogue))) &&
           Ok(cublasLtMatrixLayoutCreate(&weight_, CUDA_R_16BF, cols, rows, cols)) &&
           Ok(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, cols, tokens, cols)) &&
           Ok(cublasLtMatrixLayoutCreate(&y_, result, rows, tokens, rows));
  }

  // Asks cuBLASLt for its best guesses, best first.
  std::vector<cublasLtMatmulAlgo_t> Guesses(cublasLtHandle_t library, const GemvCall& call,
                                            int count) {
    std::vector<cublasLtMatmulAlgo_t> guesses;
    cublasLtMatmulPreference_t preference = nullptr;
    if (!Ok(cublasLtMatmulPreferenceCreate(&preference))) return guesses;
    const auto workspace = static_cast<uint64_t>(Gemm::kWorkspaceBytes);
    // Where a sum is cut into parts, the parts stay fp32 until they are added.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    std::array<cublasLtMatmulHeuristicResult_t, Gemm::kGuessesMax> found{};
    int found_count = 0;
    if (SetBias(call) &&
        Ok(cublasLtMatmulPreferenceSetAttribute(preference,
                                                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace, sizeof workspace)) &&
        Ok(cublasLtMatmulPreferenceSetAttribute(preference,
                                                CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                &reductions, sizeof reductions)) &&
        Ok(cublasLtMatmulAlgoGetHeuristic(library, operation_, weight_, x_, y_, y_, preference,
                                          std::min(count, Gemm::kGuessesMax), found.data(),
                                          &found_count))) {
      for (int i = 0; i < found_count; ++i) {
        if (found[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
          guesses.push_back(found[static_cast<size_t>(i)].algo);
        }
      }
    }
    cublasLtMatmulPreferenceDestroy(preference);
    return guesses;
  }

  GpuError Run(cublasLtHandle_t library, const cublasLtMatmulAlgo_t& algorithm,
               const GemvCall& call, void* workspace, Stream stream) {
    const float one = 1.0f, zero = 0.0f;
    void* y = call.y != nullptr ? static_cast<void*>(call.y) : call.y_float;
    if (!SetBias(call)) return kLibraryFailed;
    const bool ok = Ok(cublasLtMatmul(library, operation_, &one, call.weight, weight_, call.x, x_,
                                      &zero, y, y_, y, y_, &algorithm, workspace,
                                      static_cast<size_t>(Gemm::kWorkspaceBytes), stream));
    return ok ? kGpuOk : kLibraryFailed;
  }

  bool chosen = false;
  cublasLtMatmulAlgo_t algorithm{};

 private:
  static bool Ok(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; }

  bool SetBias(const GemvCall& call) {
    if (call.bias == nullptr) return true;
    const void* bias = call.bias;
    return Ok(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                             sizeof bias));
  }

  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, y_ = nullptr;
};

}  // namespace

class Gemm::State {
 public:
  ~State() {
    products_.clear();
    for (const Event event : events_) {
      if (event != nullptr) DestroyEvent(event);
    }
    Free(workspace_);
    if (library_ != nullptr) cublasLtDestroy(library_);
  }

  bool Start(std::string& error) {
    if (cublasLtCreate(&library_) != CUBLAS_STATUS_SUCCESS) {
      error = "cuBLASLt does not start on this GPU";
      return false;
    }
    for (Event& event : events_) {
      if (const GpuError failed = MakeEvent(event); failed != kGpuOk) {
        error = "an event: " + ErrorText(failed);
        return false;
      }
    }
    const GpuError failed = Allocate(kWorkspaceBytes, &workspace_);
    if (failed != kGpuOk) {
      error = std::to_string(kWorkspaceBytes) + " bytes for cuBLASLt: " + ErrorText(failed);
    }
    return failed == kGpuOk;
  }

  GpuError Run(const GemvCall& call, Stream stream) {
    const bool one_result = (call.y == nullptr) != (call.y_float == nullptr);
    if (call.token_count < 1 || call.rows < 1 || call.cols < 8 || call.cols % 8 != 0 ||
        !one_result || (call.y == nullptr && call.bias != nullptr)) {
      return kGpuInvalid;
    }
    Product* product = Find(call);
    if (product == nullptr) return kLibraryFailed;
    return product->Run(library_, product->algorithm, call, workspace_, stream);
  }

  bool Tune(std::span<const GemvCall> calls, int count, Stream stream, std::string& error) {
    const GemvCall& call = calls.front();
    Product* product = Find(call);
    float best_ms = 0;
    bool measured = false;
    if (product != nullptr) {
      for (const auto& guess : product->Guesses(library_, call, count)) {
        float ms = 0;
        if (!Measure(*product, guess, calls, count > 1 ? kRunsMeasured : 0, stream, ms)) continue;
        if (measured && ms >= best_ms) continue;
        best_ms = ms;
        product->algorithm = guess;
        measured = true;
      }
    }
    if (measured) return true;
    error = "no algorithm of cuBLASLt multiplies [" + std::to_string(call.rows) + ", " +
            std::to_string(call.cols) + "] by " + std::to_string(call.token_count) + " tokens";
    return false;
  }

 private:
  Product* Find(const GemvCall& call) {
    Product& product = products_[ShapeOf(call)];
    if (product.chosen) return &product;
    const bool made = product.Make(ShapeOf(call));
    const auto guesses = made ? product.Guesses(library_, call, 1)
                              : std::vector<cublasLtMatmulAlgo_t>();
    if (guesses.empty()) {
      products_.erase(ShapeOf(call));
      return nullptr;
    }
    product.algorithm = guesses.front();
    product.chosen = true;
    return &product;
  }

  bool Measure(Product& product, const cublasLtMatmulAlgo_t& algorithm,
               std::span<const GemvCall> calls, int runs, Stream stream, float& ms) {
    // The first run also loads the kernel.
    if (product.Run(library_, algorithm, calls.front(), workspace_, stream) != kGpuOk) return false;
    if (Record(events_[0], stream) != kGpuOk) return false;
    for (int run = 1; run <= runs; ++run) {
      const GemvCall& call = calls[static_cast<size_t>(run) % calls.size()];
      if (product.Run(library_, algorithm, call, workspace_, stream) != kGpuOk) return false;
    }
    return Record(events_[1], stream) == kGpuOk && Synchronize(stream) == kGpuOk &&
           Milliseconds(events_[0], events_[1], ms) == kGpuOk;
  }

  cublasLtHandle_t library_ = nullptr;
  std::array<Event, 2> events_{};
  void* workspace_ = nullptr;
  std::map<Shape, Product> products_;
};

Gemm::Gemm() : state_(std::make_unique<State>()) {}
Gemm::~Gemm() = default;
bool Gemm::Start(std::string& error) { return state_->Start(error); }
GpuError Gemm::Run(const GemvCall& call, Stream stream) { return state_->Run(call, stream); }
bool Gemm::Tune(std::span<const GemvCall> calls, int guesses, Stream stream, std::string& error) {
  return state_->Tune(calls, guesses, stream, error);
}

}  // namespace penstock::engine::cuda
