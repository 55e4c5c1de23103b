// The engine's HTTP API: which path does what, in which state of the node.
//
// It answers from the first moment: while the model loads, /health says 503 and
// how far it is, and /load says "loading". Ready() hands it the model and the
// engine; it is ready once the engine has really made a token.
//
// Threads: the loop's, but for sink() and on_load(), which the engine calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "backend-engine/api/engine_metrics.h"
#include "backend-engine/api/generations.h"
#include "backend-engine/api/json_fields.h"
#include "backend-engine/api/load_watch.h"
#include "backend-engine/api/served_model.h"
#include "backend-engine/exec/engine.h"
#include "proxy/http/server.h"
#include "proxy/net/loop.h"

namespace penstock::engine {

struct ServiceOptions {
  std::string name;              // Of the model, while it loads.
  std::string version;
  MetricNames metric_names = MetricNames::kPenstock;
  uint64_t epoch = 0;            // Changes when the process restarts.
  uint64_t seed = 0;             // Of request ids and of answers whose request gives no seed.
  size_t answers_max = 1024;     // In progress; one more is answered with 429.
  size_t inline_bytes = 16 * 1024;  // Prompts above this are prepared beside the loop,
  size_t preparing_bytes = 64 << 20;  // all of them together; beyond: 429.
};

class Service {
 public:
  Service(Loop& loop, ServiceOptions options);

  void Handle(HttpRequest request, std::unique_ptr<HttpAnswer> answer);

  // Where /metrics asks for the figures of GPUs.
  void WatchDevices(std::function<DeviceReading()> read) { read_devices_ = std::move(read); }

  // For the Engine that Ready() will be given.
  Engine::Sink sink();
  std::function<void()> on_load();

  void SetProgress(double share) { progress_ = share; }  // Of the model's loading, 0 to 1.

  // Makes the engine generate one token, then calls `done`: OK and ready for
  // requests, or why it cannot generate. `engine` and `model` outlive the service.
  void Ready(const ServedModel& model, Engine& engine, std::function<void(absl::Status)> done);

  // Takes no more requests; `idle` is called once no answer is in progress.
  void Drain(std::function<void()> idle);
  // The time for draining is over: what is left ends with an error.
  void CutAll();
  void EndWatches() { watch_.End(); }

  LoadReport Report();
  size_t answers() const { return generations_.size(); }

 private:
  using Answer = std::unique_ptr<HttpAnswer>;

  void Generate(HttpRequest& request, Answer answer, bool chat, HeaderList headers);
  void Start(OpenAiRequest request, Answer answer, GenerationStart start);
  void DrainEngine();
  std::optional<ApiError> Refusal() const;
  std::optional<ApiError> RefusePreparing(const OpenAiRequest& request) const;
  void Health(HttpAnswer& answer, const HeaderList& headers) const;
  void Models(HttpAnswer& answer, const HeaderList& headers) const;
  void OneModel(std::string_view id, HttpAnswer& answer, const HeaderList& headers) const;
  void LoadAnswer(const HttpRequest& request, Answer& answer, HeaderList headers);
  std::string MetricsText();
  std::string NewId();
  NodeState State() const;

  Loop& loop_;
  const ServiceOptions options_;
  std::mt19937_64 random_;
  EngineMetrics metrics_;
  Generations generations_;
  LoadWatch watch_;
  JsonDocument document_;
  std::function<DeviceReading()> read_devices_;
  const ServedModel* model_ = nullptr;
  Engine* engine_ = nullptr;
  std::optional<GenerationContext> context_;
  SequenceId self_test_ = 0;
  EngineLoad after_self_test_;  // Its tokens are nobody's: counters start behind them.
  double progress_ = 0;
  uint64_t reports_ = 0;
  size_t preparing_bytes_ = 0;
  bool ready_ = false;
  bool draining_ = false;
};

}  // namespace penstock::engine
