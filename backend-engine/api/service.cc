#include "backend-engine/api/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <utility>

#include "backend-engine/api/error_answer.h"
#include "backend-engine/api/json_text.h"
#include "proxy/base/status.h"

namespace penstock::engine {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr size_t kRequestIdMax = 128;

enum class Route { kChat, kCompletions, kModels, kModel, kHealth, kLoad, kMetrics, kVersion, kNone };

constexpr std::string_view kModelPrefix = "/v1/models/";

Route RouteOf(std::string_view path) {
  if (path == "/v1/chat/completions") return Route::kChat;
  if (path == "/v1/completions") return Route::kCompletions;
  if (path == "/v1/models") return Route::kModels;
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) return Route::kModel;
  if (path == "/health") return Route::kHealth;
  if (path == "/load") return Route::kLoad;
  if (path == "/metrics") return Route::kMetrics;
  if (path == "/version") return Route::kVersion;
  return Route::kNone;
}

// The client's own id where it can stand in a header and a log line; or nothing.
std::string_view UsableId(std::string_view id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
           c == ':' || c == '/';
  });
  return plain && id.size() <= kRequestIdMax ? id : std::string_view();
}

// A body that is not said to be JSON is not read as such: a form that a web page
// sent across origins must not become a request.
std::optional<ApiError> CheckEncoding(const HttpRequest& request) {
  std::string type(request.Header("content-type"));
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (!type.empty() && type.find("json") == std::string::npos) {
    return ApiError{.status = 415,
                    .code = "unsupported_media_type",
                    .message = "the content-type is not JSON; send content-type: application/json"};
  }
  const std::string_view encoding = request.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    return ApiError{.status = 415,
                    .code = "unsupported_content_encoding",
                    .message = "compressed bodies are not read; leave content-encoding out"};
  }
  return std::nullopt;
}

ApiError Unavailable(std::string_view code, std::string message, double retry_after) {
  return {.status = 503,
          .type = "server_error",
          .code = code,
          .message = std::move(message),
          .retry_after_seconds = retry_after};
}

}  // namespace

Service::Service(Loop& loop, ServiceOptions options)
    : loop_(loop),
      options_(std::move(options)),
      random_(options_.seed),
      metrics_(options_.metric_names),
      generations_(loop),
      watch_(loop, [this] { return Report(); }) {}

Engine::Sink Service::sink() {
  return [this](std::span<TokenEvent> events) { generations_.Take(events); };
}

std::function<void()> Service::on_load() {
  return [this] { watch_.Changed(); };
}

void Service::Ready(const ServedModel& model, Engine& engine,
                    std::function<void(absl::Status)> done) {
  model_ = &model;
  engine_ = &engine;
  progress_ = 1;
  context_.emplace(GenerationContext{
      .engine = engine,
      .model = model,
      .metrics = metrics_,
      .orca = [this](OrcaFormat format) { return OrcaValue(Report(), format); },
      .now = [this] { return loop_.now(); }});
  generations_.set_stray([this, done](const TokenEvent& event) {
    if (event.id != self_test_ || event.finish == FinishReason::kNone) return;
    self_test_ = 0;
    if (event.finish == FinishReason::kFailed) return done(absl::InternalError(event.error));
    engine_->ForgetSpeed();  // What a first step costs is not what clients will wait.
    after_self_test_ = engine_->Load();
    ready_ = true;
    watch_.Changed();
    done(absl::OkStatus());
  });
  const int32_t token = model.eos.empty() ? 0 : model.eos.front();
  const SubmitResult result =
      engine.Submit({.prompt = {token}, .max_tokens = 1, .sampling = {.temperature = 0}});
  if (result.code != SubmitCode::kOk) return done(absl::InternalError(result.message));
  self_test_ = result.id;
}

void Service::Drain(std::function<void()> idle) {
  draining_ = true;
  DrainEngine();
  watch_.Changed();
  if (generations_.size() == 0) return idle();
  generations_.set_on_empty(std::move(idle));
}

// What was accepted before and is still being prepared is let in.
void Service::DrainEngine() {
  if (draining_ && engine_ != nullptr && generations_.preparing() == 0) engine_->Drain();
}

void Service::CutAll() {
  generations_.FailAll(Unavailable("draining", "this engine is shutting down", 1));
}

NodeState Service::State() const {
  const NodeState engine = engine_ != nullptr ? engine_->Load().state : NodeState::kLoading;
  if (engine == NodeState::kFailed) return engine;
  if (draining_) return NodeState::kDraining;
  return ready_ ? engine : NodeState::kLoading;
}

LoadReport Service::Report() {
  LoadReport report{.epoch = options_.epoch, .seq = ++reports_, .model = options_.name};
  if (model_ != nullptr) {
    report.model = model_->names.front();
    report.weights = model_->weights;
  }
  if (engine_ != nullptr) report.figures = engine_->Load();
  report.figures.state = State();
  // Requests whose prompts are still being prepared are here too.
  report.figures.waiting += static_cast<int32_t>(generations_.preparing());
  return report;
}

std::string Service::NewId() { return fmt::format("{:016x}{:08x}", random_(), random_() >> 32); }

void Service::Handle(HttpRequest request, Answer answer) {
  const std::string_view given = UsableId(request.Header("x-request-id"));
  HeaderList headers = {
      {"x-request-id", given.empty() ? "req_" + NewId() : std::string(given)}};
  const enum Route route = RouteOf(request.path);
  const bool generates = route == Route::kChat || route == Route::kCompletions;
  if (route == Route::kNone) {
    return SendError(*answer,
                     {.status = 404,
                      .code = "route_not_found",
                      .message = fmt::format("nothing is served at this path; known: "
                                             "/v1/chat/completions, /v1/completions, /v1/models, "
                                             "/health, /load, /metrics, /version")},
                     std::move(headers));
  }
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (generates ? request.method != "POST" : !reads) {
    const std::string allowed = generates ? "POST" : "GET, HEAD";
    headers.emplace_back("allow", allowed);
    return SendError(*answer,
                     {.status = 405,
                      .code = "method_not_allowed",
                      .message = fmt::format("this path takes {} only", allowed)},
                     std::move(headers));
  }
  switch (route) {
    case Route::kChat:
    case Route::kCompletions:
      return Generate(request, std::move(answer), route == Route::kChat, std::move(headers));
    case Route::kModels: return Models(*answer, headers);
    case Route::kModel:
      return OneModel(std::string_view(request.path).substr(kModelPrefix.size()), *answer, headers);
    case Route::kHealth: return Health(*answer, headers);
    case Route::kLoad: return LoadAnswer(request, answer, std::move(headers));
    case Route::kMetrics:
      return answer->Send(200, "text/plain; version=0.0.4; charset=utf-8", MetricsText(), headers);
    case Route::kVersion:
      return answer->Send(200, kJson, fmt::format(R"({{"version":"{}"}})", options_.version),
                          headers);
    case Route::kNone: break;
  }
}

// --- generating

std::optional<ApiError> Service::Refusal() const {
  switch (State()) {
    case NodeState::kReady: break;
    case NodeState::kDraining: {
      ApiError error = Unavailable(
          "draining", "this engine is shutting down and takes no new requests", 1);
      error.close = true;
      return error;
    }
    case NodeState::kFailed:
      return ApiError{.status = 500,
                      .type = "server_error",
                      .code = "internal_error",
                      .message = "this engine has failed and cannot generate; see /health"};
    default: return Unavailable("loading", "the model is still loading; see /health", 1);
  }
  if (generations_.size() >= options_.answers_max) {
    return ApiError{.status = 429,
                    .type = "rate_limit_error",
                    .code = "queue_full",
                    .message = fmt::format("{} answers are in progress, which is the most this "
                                           "engine takes", options_.answers_max),
                    .retry_after_seconds = 1};
  }
  return std::nullopt;
}

// Text that waits for a thread, or is in several forms at once on one.
std::optional<ApiError> Service::RefusePreparing(const OpenAiRequest& request) const {
  const size_t bytes = TextBytes(request);
  if (bytes <= options_.inline_bytes || preparing_bytes_ == 0 ||
      preparing_bytes_ + bytes <= options_.preparing_bytes) {
    return std::nullopt;
  }
  return ApiError{.status = 429,
                  .type = "rate_limit_error",
                  .code = "queue_full",
                  .message = fmt::format("prompts of {} bytes are being prepared and this one has "
                                         "{}; allowed together: {}",
                                         preparing_bytes_, bytes, options_.preparing_bytes),
                  .retry_after_seconds = 1};
}

void Service::Generate(HttpRequest& request, Answer answer, bool chat, HeaderList headers) {
  const OrcaFormat orca = OrcaFormatFrom(request.Header("endpoint-load-metrics-format"));
  std::optional<ApiError> error = Refusal();
  if (!error) error = CheckEncoding(request);
  std::optional<OpenAiRequest> parsed;
  if (!error) {
    if (const auto body = document_.Parse(request.body, error)) {
      parsed = chat ? ParseChatRequest(*body, model_->limits, error)
                    : ParseCompletionRequest(*body, model_->limits, error);
    }
  }
  const auto name = parsed ? model_->Match(parsed->model) : std::nullopt;
  if (parsed && !name) {
    error = ApiError{.status = 404,
                     .code = "model_not_found",
                     .param = "model",
                     .message = fmt::format("the model asked for is not served here; this engine "
                                            "serves {}", fmt::join(model_->names, ", "))};
  }
  if (parsed && !error) error = RefusePreparing(*parsed);
  if (error) {
    headers.emplace_back("endpoint-load-metrics", OrcaValue(Report(), orca));
    metrics_.OnAnswer(error->status);
    return SendError(*answer, *error, std::move(headers));
  }
  GenerationStart start;
  start.settings = parsed->settings;
  start.head = {.chat = chat,
                .id = (chat ? "chatcmpl-" : "cmpl-") + NewId(),
                .created = absl::ToUnixSeconds(loop_.wall_now()),
                .model = std::string(*name),
                .fingerprint = model_->fingerprint,
                .include_usage = parsed->settings.include_usage,
                .logprobs = parsed->settings.sampling.logprobs >= 0};
  start.headers = std::move(headers);
  start.orca = orca;
  start.seed = random_();
  start.received = loop_.now();
  Start(*std::move(parsed), std::move(answer), std::move(start));
}

// Short prompts are prepared here and now: that takes less than the way to
// another thread and back. Long ones do not hold up the answers of others.
void Service::Start(OpenAiRequest request, Answer answer, GenerationStart start) {
  Generation& generation = generations_.Add(
      std::make_unique<Generation>(*context_, std::move(start), std::move(answer)));
  struct Work {
    OpenAiRequest request;
    absl::Time now;
    std::optional<std::vector<PreparedPrompt>> prompts = std::nullopt;
    std::optional<ApiError> error = std::nullopt;
  };
  auto work = std::make_shared<Work>(Work{std::move(request), loop_.wall_now()});
  auto prepare = [work, model = model_] {
    work->prompts = PreparePrompts(*model, work->request, work->now, work->error);
  };
  // The generation waits for this, whatever else happens: it is over only when started.
  auto finish = [this, work, &generation] {
    if (work->prompts) {
      generation.Submit(*std::move(work->prompts));
    } else {
      generation.Fail(*work->error);
    }
    generations_.Started(generation);
    DrainEngine();
  };
  const size_t bytes = TextBytes(work->request);
  if (bytes <= options_.inline_bytes) {
    prepare();
    return finish();
  }
  preparing_bytes_ += bytes;
  loop_.Offload(std::move(prepare), [this, bytes, finish = std::move(finish)] {
    preparing_bytes_ -= bytes;
    finish();
  });
}

// --- what the node says about itself

void Service::Health(HttpAnswer& answer, const HeaderList& headers) const {
  const NodeState state = State();
  std::string out = fmt::format(R"({{"status":"{}","model":)",
                                state == NodeState::kReady ? "ok" : Name(state));
  AppendJsonString(out, model_ != nullptr ? model_->names.front() : options_.name);
  if (model_ != nullptr) {
    out += R"(,"device":)";
    AppendJsonString(out, model_->device);
    fmt::format_to(std::back_inserter(out),
                   R"(,"emulated":{},"tensor_parallel":{},"dtype":"{}","max_length":{})",
                   model_->emulated(), model_->tensor_parallel, model_->dtype, model_->max_length);
  }
  fmt::format_to(std::back_inserter(out), R"(,"loaded":{:.3f},"version":"{}"}})", progress_,
                 options_.version);
  answer.Send(state == NodeState::kReady ? 200 : 503, kJson, out, headers);
}

namespace {

void AppendModel(std::string& out, std::string_view name, const ServedModel& model) {
  out += R"({"id":)";
  AppendJsonString(out, name);
  fmt::format_to(std::back_inserter(out),
                 R"(,"object":"model","created":{},"owned_by":"penstock","max_model_len":{}}})",
                 model.created, model.max_length);
}

}  // namespace

void Service::Models(HttpAnswer& answer, const HeaderList& headers) const {
  std::string out = R"({"object":"list","data":[)";
  if (model_ != nullptr) {
    for (const std::string& name : model_->names) {
      if (&name != &model_->names.front()) out += ',';
      AppendModel(out, name, *model_);
    }
  }
  out += "]}";
  answer.Send(200, kJson, out, headers);
}

void Service::OneModel(std::string_view id, HttpAnswer& answer, const HeaderList& headers) const {
  const auto name = model_ != nullptr ? model_->Match(id) : std::nullopt;
  if (!name) {
    return SendError(answer,
                     {.status = 404,
                      .code = "model_not_found",
                      .param = "model",
                      .message = "the model asked for is not served here; see /v1/models"},
                     headers);
  }
  std::string out;
  AppendModel(out, *name, *model_);
  answer.Send(200, kJson, out, headers);
}

void Service::LoadAnswer(const HttpRequest& request, Answer& answer, HeaderList headers) {
  const std::string_view watch = request.QueryValue("watch");
  if (watch.empty() || watch == "0") {
    return answer->Send(200, kJson, LoadLine(Report()), headers);
  }
  if (watch_.Add(answer)) return;
  SendError(*answer,
            {.status = 429,
             .type = "rate_limit_error",
             .code = "too_many_watchers",
             .message = fmt::format("{} readers watch the load already", LoadWatch::kReadersMax),
             .retry_after_seconds = 1},
            std::move(headers));
}

std::string Service::MetricsText() {
  LoadReport report = Report();
  const auto of_clients = [this](uint64_t& total, uint64_t self_test) {
    total = ready_ ? total - self_test : 0;
  };
  of_clients(report.figures.prompt_tokens, after_self_test_.prompt_tokens);
  of_clients(report.figures.generated_tokens, after_self_test_.generated_tokens);
  NodeLabels labels{.model = report.model, .version = options_.version};
  if (model_ != nullptr) {
    labels.device = model_->device;
    labels.dtype = model_->dtype;
    labels.tensor_parallel = model_->tensor_parallel;
    labels.block_tokens = model_->block_tokens;
  }
  DeviceGauges devices;
  if (engine_ != nullptr) devices.gpus = engine_->info().gpus;
  if (read_devices_) devices.reading = read_devices_();
  return metrics_.Text(labels, report.figures, progress_, devices);
}

}  // namespace penstock::engine
