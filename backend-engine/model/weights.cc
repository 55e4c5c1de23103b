// Loading in three walks over one list of pieces: what each tensor must look
// like and where its part goes (Plan), is it so (Check), copy (Copy). The list
// is the only place that knows the checkpoint's names.
#include "backend-engine/model/weights.h"

#include <cstdlib>
#include <cstring>

namespace penstock::engine {
namespace {

// One tensor of the checkpoint, or this rank's part of it.
struct Piece {
  std::string name;
  std::vector<int64_t> shape;  // Expected, whole.
  Range rows;                  // Ours; of a vector: its elements.
  Range cols;                  // Ours; unused for a vector.
  Matrix* matrix = nullptr;    // Where it goes, from row `at` on ...
  const float** vector = nullptr;  // ... or the vector, from element `at` on.
  int64_t at = 0;
  int64_t vector_size = 0;     // Of the whole destination.
  TensorView view;
};

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

class Loader {
 public:
  Loader(const ModelConfig& config, const Shard& shard, std::optional<DType> dtype,
         Weights& weights)
      : config_(config), shard_(shard), dtype_(dtype), weights_(weights) {}

  void Plan() {
    const int64_t hidden = config_.hidden_size;
    weights_.layers.resize(static_cast<size_t>(config_.layer_count));
    const Range all{0, hidden};
    Shape(weights_.embeddings, shard_.vocab_padded, hidden);
    Rows("model.embed_tokens.weight", {config_.vocab_size, hidden}, shard_.vocab, all,
         weights_.embeddings, 0);
    for (int64_t i = 0; i < config_.layer_count; ++i) PlanLayer(i);
    Vector("model.norm.weight", hidden, all, weights_.final_norm, 0, hidden);
    if (!config_.tied_embeddings) {
      Shape(weights_.lm_head, shard_.vocab_padded, hidden);
      Rows("lm_head.weight", {config_.vocab_size, hidden}, shard_.vocab, all, weights_.lm_head, 0);
    }
  }

  bool Check(const TensorSource& source, std::string& error) {
    for (Piece& piece : pieces_) {
      const std::optional<TensorView> view = source(piece.name);
      if (!view.has_value()) {
        error = "tensor " + piece.name + " is missing; expected it with shape " +
                ShapeText(piece.shape);
        return false;
      }
      if (view->shape != piece.shape) {
        error = "tensor " + piece.name + " has shape " + ShapeText(view->shape) + ", expected " +
                ShapeText(piece.shape) + " by config.json";
        return false;
      }
      int64_t bytes = static_cast<int64_t>(SizeOf(view->dtype));
      for (const int64_t dim : piece.shape) bytes *= dim;
      if (static_cast<int64_t>(view->bytes.size()) != bytes) {
        error = "tensor " + piece.name + " has " + std::to_string(view->bytes.size()) +
                " bytes, expected " + std::to_string(bytes) + " for its shape";
        return false;
      }
      piece.view = *view;
      if (piece.matrix != nullptr) ChooseDType(piece);
    }
    return true;
  }

  bool Copy(const LoadProgress& progress, std::string& error) {
    if (!Place(error)) return false;
    int64_t done = 0;
    int64_t total = 0;
    for (const Piece& piece : pieces_) total += SourceBytes(piece);
    for (const Piece& piece : pieces_) {
      piece.matrix != nullptr ? CopyRows(piece) : CopyVector(piece);
      done += SourceBytes(piece);
      if (progress) progress(done, total);
    }
    if (config_.tied_embeddings) weights_.lm_head = weights_.embeddings;
    return true;
  }

 private:
  void Shape(Matrix& matrix, int64_t rows, int64_t cols) {
    matrix.rows = rows;
    matrix.cols = cols;
    matrices_.push_back({&matrix, dtype_.has_value()});
    if (dtype_.has_value()) matrix.dtype = *dtype_;
  }

  void Rows(std::string name, std::vector<int64_t> shape, Range rows, Range cols, Matrix& matrix,
            int64_t at) {
    pieces_.push_back({.name = std::move(name), .shape = std::move(shape), .rows = rows,
                       .cols = cols, .matrix = &matrix, .at = at});
  }

  void Vector(std::string name, int64_t size, Range range, const float*& vector, int64_t at,
              int64_t whole) {
    pieces_.push_back({.name = std::move(name), .shape = {size}, .rows = range,
                       .vector = &vector, .at = at, .vector_size = whole});
  }

  Range HeadRows(Range heads) const {
    return {heads.first * config_.head_dim, heads.count * config_.head_dim};
  }

  void PlanLayer(int64_t index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const Range all{0, config_.hidden_size};
    LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
    Vector(prefix + "input_layernorm.weight", all.count, all, layer.input_norm, 0, all.count);
    PlanAttention(prefix + "self_attn.", layer);
    Vector(prefix + "post_attention_layernorm.weight", all.count, all, layer.mlp_norm, 0,
           all.count);
    PlanMlp(prefix + "mlp.", layer);
  }

  void PlanAttention(const std::string& prefix, LayerWeights& layer) {
    const int64_t hidden = config_.hidden_size;
    const int64_t q_size = config_.head_count * config_.head_dim;
    const int64_t kv_size = config_.kv_head_count * config_.head_dim;
    const Range q = HeadRows(shard_.heads);
    const Range kv = HeadRows(shard_.kv_heads);
    const int64_t rows = q.count + 2 * kv.count;
    const Range all{0, hidden};
    Shape(layer.qkv, rows, hidden);
    Rows(prefix + "q_proj.weight", {q_size, hidden}, q, all, layer.qkv, 0);
    Rows(prefix + "k_proj.weight", {kv_size, hidden}, kv, all, layer.qkv, q.count);
    Rows(prefix + "v_proj.weight", {kv_size, hidden}, kv, all, layer.qkv, q.count + kv.count);
    if (config_.qkv_bias) {
      Vector(prefix + "q_proj.bias", q_size, q, layer.qkv_bias, 0, rows);
      Vector(prefix + "k_proj.bias", kv_size, kv, layer.qkv_bias, q.count, rows);
      Vector(prefix + "v_proj.bias", kv_size, kv, layer.qkv_bias, q.count + kv.count, rows);
    }
    Shape(layer.output, hidden, q.count);
    Rows(prefix + "o_proj.weight", {hidden, q_size}, all, q, layer.output, 0);
    if (config_.output_bias && shard_.rank == 0) {
      Vector(prefix + "o_proj.bias", hidden, all, layer.output_bias, 0, hidden);
    }
  }

  void PlanMlp(const std::string& prefix, LayerWeights& layer) {
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.intermediate_size;
    const int64_t padded = shard_.intermediate_padded;
    const Range ours = shard_.intermediate;
    const Range all{0, hidden};
    Shape(layer.gate_up, 2 * padded, hidden);
    Rows(prefix + "gate_proj.weight", {inner, hidden}, ours, all, layer.gate_up, 0);
    Rows(prefix + "up_proj.weight", {inner, hidden}, ours, all, layer.gate_up, padded);
    Shape(layer.down, hidden, padded);
    Rows(prefix + "down_proj.weight", {hidden, inner}, all, ours, layer.down, 0);
    if (!config_.mlp_bias) return;
    Vector(prefix + "gate_proj.bias", inner, ours, layer.gate_up_bias, 0, 2 * padded);
    Vector(prefix + "up_proj.bias", inner, ours, layer.gate_up_bias, padded, 2 * padded);
    if (shard_.rank == 0) {
      Vector(prefix + "down_proj.bias", hidden, all, layer.down_bias, 0, hidden);
    }
  }

  // As stored; fp32 where a matrix is put together from different formats.
  void ChooseDType(const Piece& piece) {
    for (auto& [matrix, chosen] : matrices_) {
      if (matrix != piece.matrix || dtype_.has_value()) continue;
      if (chosen && matrix->dtype != piece.view.dtype) {
        matrix->dtype = DType::kF32;
      } else if (!chosen) {
        matrix->dtype = piece.view.dtype;
        chosen = true;
      }
    }
  }

  // One zeroed allocation for all matrices and vectors.
  bool Place(std::string& error) {
    constexpr int64_t kAlign = 64;
    int64_t bytes = 0;
    const auto take = [&bytes](int64_t size) {
      const int64_t at = bytes;
      bytes += (size + kAlign - 1) / kAlign * kAlign;
      return at;
    };
    std::vector<int64_t> offsets;
    for (const auto& [matrix, chosen] : matrices_) {
      offsets.push_back(take(MatrixBytes(matrix->dtype, matrix->rows, matrix->cols)));
    }
    for (const Piece& piece : pieces_) {
      if (piece.vector != nullptr && piece.at == 0) offsets.push_back(take(piece.vector_size * 4));
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
    size_t next = 0;
    for (const auto& [matrix, chosen] : matrices_) matrix->data = storage + offsets[next++];
    for (const Piece& piece : pieces_) {
      if (piece.vector != nullptr && piece.at == 0) {
        *piece.vector = reinterpret_cast<const float*>(storage + offsets[next++]);
      }
    }
    return true;
  }

  int64_t SourceBytes(const Piece& piece) const {
    const int64_t cols = piece.matrix != nullptr ? piece.cols.count : 1;
    return piece.rows.count * cols * static_cast<int64_t>(SizeOf(piece.view.dtype));
  }

  // A matrix whose columns are padded takes the padding's zeros from a row of
  // its own width.
  void CopyRows(const Piece& piece) {
    Matrix& matrix = *piece.matrix;
    const auto size = static_cast<int64_t>(SizeOf(piece.view.dtype));
    const int64_t stride = piece.shape[1] * size;
    row_.assign(static_cast<size_t>(matrix.cols * size), std::byte{0});
    for (int64_t row = 0; row < piece.rows.count; ++row) {
      const std::byte* source = piece.view.bytes.data() + (piece.rows.first + row) * stride +
                                piece.cols.first * size;
      if (piece.cols.count < matrix.cols) {
        std::memcpy(row_.data(), source, static_cast<size_t>(piece.cols.count * size));
        source = row_.data();
      }
      SetRow(matrix, piece.at + row, source, piece.view.dtype);
    }
  }

  void CopyVector(const Piece& piece) {
    const auto size = static_cast<int64_t>(SizeOf(piece.view.dtype));
    ToFloat(piece.view.bytes.data() + piece.rows.first * size, piece.view.dtype, piece.rows.count,
            const_cast<float*>(*piece.vector) + piece.at);
  }

  const ModelConfig& config_;
  const Shard& shard_;
  const std::optional<DType> dtype_;
  Weights& weights_;
  std::vector<Piece> pieces_;
  std::vector<std::pair<Matrix*, bool>> matrices_;  // And whether its format is chosen.
  std::vector<std::byte> row_;
};

}  // namespace

bool LoadWeights(const ModelConfig& config, const Shard& shard, const TensorSource& source,
                 std::optional<DType> dtype, const LoadProgress& progress, Weights& weights,
                 std::string& error) {
  Loader loader(config, shard, dtype, weights);
  loader.Plan();
  return loader.Check(source, error) && loader.Copy(progress, error);
}

}  // namespace penstock::engine
