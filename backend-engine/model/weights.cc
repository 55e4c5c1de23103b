// A CPU rank's weights, by the plan of weight_plan.h: matrices in the kernels'
// panels, vectors in fp32, all in one allocation.
#include "backend-engine/model/weights.h"

#include <cstdlib>
#include <cstring>

#include "backend-engine/model/weight_plan.h"

namespace penstock::engine {
namespace {

class Loader {
 public:
  Loader(const ModelConfig& config, const Shard& shard, std::optional<DType> dtype,
         Weights& weights)
      : config_(config), shard_(shard), dtype_(dtype), weights_(weights),
        plan_(PlanWeights(config, shard)) {
    weights_.layers.resize(static_cast<size_t>(config_.layer_count));
    for (const WeightTarget& target : plan_.targets) {
      if (!IsMatrix(target.role)) continue;
      MatrixOf(target).rows = target.rows;
      MatrixOf(target).cols = target.cols;
    }
  }

  bool Load(const TensorSource& source, const LoadProgress& progress, std::string& error) {
    if (!FindTensors(source, plan_, error)) return false;
    ChooseDTypes();
    if (!Place(error)) return false;
    int64_t done = 0;
    int64_t total = 0;
    for (const WeightPart& part : plan_.parts) total += SourceBytes(part);
    for (const WeightPart& part : plan_.parts) {
      const WeightTarget& target = plan_.targets[static_cast<size_t>(part.target)];
      IsMatrix(target.role) ? CopyRows(part, MatrixOf(target))
                            : CopyVector(part, const_cast<float*>(VectorOf(target)));
      done += SourceBytes(part);
      if (progress) progress(done, total);
    }
    if (config_.tied_embeddings) weights_.lm_head = weights_.embeddings;
    return true;
  }

 private:
  LayerWeights& LayerOf(const WeightTarget& target) {
    return weights_.layers[static_cast<size_t>(target.layer)];
  }

  Matrix& MatrixOf(const WeightTarget& target) {
    switch (target.role) {
      case WeightRole::kEmbeddings:
        return weights_.embeddings;
      case WeightRole::kLmHead:
        return weights_.lm_head;
      case WeightRole::kQkv:
        return LayerOf(target).qkv;
      case WeightRole::kOutput:
        return LayerOf(target).output;
      case WeightRole::kGateUp:
        return LayerOf(target).gate_up;
      default:
        return LayerOf(target).down;
    }
  }

  const float*& VectorOf(const WeightTarget& target) {
    switch (target.role) {
      case WeightRole::kFinalNorm:
        return weights_.final_norm;
      case WeightRole::kInputNorm:
        return LayerOf(target).input_norm;
      case WeightRole::kMlpNorm:
        return LayerOf(target).mlp_norm;
      case WeightRole::kQkvBias:
        return LayerOf(target).qkv_bias;
      case WeightRole::kOutputBias:
        return LayerOf(target).output_bias;
      case WeightRole::kGateUpBias:
        return LayerOf(target).gate_up_bias;
      default:
        return LayerOf(target).down_bias;
    }
  }

  // As stored; fp32 where a matrix is put together from different formats.
  void ChooseDTypes() {
    std::vector<bool> chosen(plan_.targets.size(), false);
    for (const WeightPart& part : plan_.parts) {
      const auto index = static_cast<size_t>(part.target);
      const WeightTarget& target = plan_.targets[index];
      if (!IsMatrix(target.role)) continue;
      DType& dtype = MatrixOf(target).dtype;
      if (dtype_.has_value()) {
        dtype = *dtype_;
      } else if (!chosen[index]) {
        dtype = part.view.dtype;
      } else if (dtype != part.view.dtype) {
        dtype = DType::kF32;
      }
      chosen[index] = true;
    }
  }

  // One zeroed allocation for all matrices and vectors.
  bool Place(std::string& error) {
    constexpr int64_t kAlign = 64;
    int64_t bytes = 0;
    std::vector<int64_t> offsets;
    for (const WeightTarget& target : plan_.targets) {
      offsets.push_back(bytes);
      const int64_t size = IsMatrix(target.role)
                               ? MatrixBytes(MatrixOf(target).dtype, target.rows, target.cols)
                               : target.rows * 4;
      bytes += (size + kAlign - 1) / kAlign * kAlign;
    }
    auto* storage = static_cast<std::byte*>(
        std::aligned_alloc(static_cast<size_t>(kAlign), static_cast<size_t>(bytes)));
    if (storage == nullptr) {
      error = "rank " + std::to_string(shard_.rank) + ": no memory for " + std::to_string(bytes) +
              " bytes of weights";
      return false;
    }
    std::memset(storage, 0, static_cast<size_t>(bytes));
    weights_.storage = {storage, &std::free};
    weights_.bytes = bytes;
    for (size_t i = 0; i < plan_.targets.size(); ++i) {
      const WeightTarget& target = plan_.targets[i];
      if (IsMatrix(target.role)) {
        MatrixOf(target).data = storage + offsets[i];
      } else {
        VectorOf(target) = reinterpret_cast<const float*>(storage + offsets[i]);
      }
    }
    return true;
  }

  // A matrix whose columns are padded takes the padding's zeros from a row of
  // its own width.
  void CopyRows(const WeightPart& part, Matrix& matrix) {
    const auto size = static_cast<int64_t>(SizeOf(part.view.dtype));
    const int64_t stride = part.shape[1] * size;
    row_.assign(static_cast<size_t>(matrix.cols * size), std::byte{0});
    for (int64_t row = 0; row < part.rows.count; ++row) {
      const std::byte* source = part.view.bytes.data() + (part.rows.first + row) * stride +
                                part.cols.first * size;
      if (part.cols.count < matrix.cols) {
        std::memcpy(row_.data(), source, static_cast<size_t>(part.cols.count * size));
        source = row_.data();
      }
      SetRow(matrix, part.at + row, source, part.view.dtype);
    }
  }

  void CopyVector(const WeightPart& part, float* vector) {
    const auto size = static_cast<int64_t>(SizeOf(part.view.dtype));
    ToFloat(part.view.bytes.data() + part.rows.first * size, part.view.dtype, part.rows.count,
            vector + part.at);
  }

  const ModelConfig& config_;
  const Shard& shard_;
  const std::optional<DType> dtype_;
  Weights& weights_;
  WeightPlan plan_;
  std::vector<std::byte> row_;
};

}  // namespace

bool LoadWeights(const ModelConfig& config, const Shard& shard, const TensorSource& source,
                 std::optional<DType> dtype, const LoadProgress& progress, Weights& weights,
                 std::string& error) {
  return Loader(config, shard, dtype, weights).Load(source, progress, error);
}

}  // namespace penstock::engine
