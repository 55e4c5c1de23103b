#include "backend-engine/api/serve.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "backend-engine/api/follow.h"
#include "backend-engine/api/loading_shown.h"
#include "backend-engine/api/open_model.h"
#include "backend-engine/api/service.h"
#include "backend-engine/api/terminal.h"
#include "backend-engine/exec/device_watch.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/net/port.h"

namespace penstock::engine {
namespace {

// Between the last byte that the system took and the exit, for it on its way to its client.
constexpr MonoTime kLastBytes = 100 * kMillisecond;
constexpr MonoTime kSentTick = 20 * kMillisecond;
constexpr size_t kOtherConnections = 256;
constexpr size_t kStreamBufferBytes = 64 << 20;

LogLevel LevelOf(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

EngineOptions MakeEngineOptions(const ServeOptions& options, const OpenedModel& opened) {
  return {.queue_max = options.queue,
          .max_running = options.max_running,
          .step_tokens = opened.runner->info().max_step_tokens,
          .max_length = opened.model.max_length,
          .stall_seconds = static_cast<double>(options.stall_seconds)};
}

size_t AnswersMax(const ServeOptions& options) {
  return static_cast<size_t>(options.max_running) + static_cast<size_t>(options.queue) + 16;
}

ServiceOptions MakeServiceOptions(const ServeOptions& options, absl::Time now) {
  std::random_device device;
  return {.name = options.served_names.empty() ? NameOfFolder(options.model)
                                               : options.served_names.front(),
          .version = kVersion,
          .metric_names =
              options.metrics_compat == "vllm" ? MetricNames::kVllm : MetricNames::kPenstock,
          .epoch = static_cast<uint64_t>(absl::ToUnixMillis(now)),
          .seed = (uint64_t{device()} << 32) | device(),
          .answers_max = AnswersMax(options)};
}

// Every answer in progress has a connection; some more ask for health, load and metrics.
// Generations bound what is unsent; at the end of a stream all that they held goes out at once.
HttpServerOptions MakeServerOptions(const ServeOptions& options) {
  HttpServerOptions server;
  server.connections = std::max(server.connections, AnswersMax(options) + kOtherConnections);
  server.stream_buffer_bytes = kStreamBufferBytes;
  return server;
}

// Each connection is a file to the system, whose usual limit is below what we take.
void AllowManyFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// The parts of a serving process, in the order in which they may be taken apart
// from the end: the engine first, which calls the service; the model last.
class Process {
 public:
  Process(const ServeOptions& options, std::unique_ptr<Loop> loop)
      : options_(options),
        loop_(std::move(loop)),
        started_(loop_->wall_now()),
        loading_shown_(loop_->timers(), options.model,
                       [this](double share) { service_->SetProgress(share); }) {}
  ~Process() {
    if (loader_.joinable()) loader_.join();
  }

  int Run();

 private:
  absl::Status Listen();
  void Load();
  void OnLoaded(absl::StatusOr<OpenedModel> opened);
  void OnReady(const absl::Status& status);
  void OnStopSignal();
  void Leave();
  void LeaveOnceSent();
  void FailWith(std::string_view message);

  const ServeOptions& options_;
  std::optional<OpenedModel> opened_;  // Outlives the loop, which waits for prompts in preparation.
  const std::unique_ptr<Loop> loop_;
  const absl::Time started_;
  std::unique_ptr<HttpServer> server_;
  std::optional<DeviceWatch> device_watch_;
  std::optional<Service> service_;
  std::unique_ptr<Engine> engine_;

  LoadingShown loading_shown_;
  TimerQueue::Timer drain_timer_;
  std::thread loader_;
  bool loading_ = true;
  bool draining_ = false;
  MonoTime leave_by_ = 0;
  int exit_status_ = 0;
};

int Process::Run() {
  service_.emplace(*loop_, MakeServiceOptions(options_, started_));
  if (absl::Status status = Listen(); !status.ok()) {
    PrintError(S(status.message()));
    return 1;
  }
  auto terminate = loop_->OnSignal(SIGTERM, [this] { OnStopSignal(); });
  auto interrupt = loop_->OnSignal(SIGINT, [this] { OnStopSignal(); });
  loading_shown_.Begin();
  loader_ = std::thread([this] { Load(); });
  loop_->Run();
  Loop::IgnoreFromNowOn(std::array{SIGTERM, SIGINT});
  return exit_status_;
}

absl::Status Process::Listen() {
  auto address = Address::Parse(options_.listen);
  if (!address.ok()) {
    return absl::InvalidArgumentError(fmt::format(
        "--listen {}: not an address; an IP address and a port are needed, like 127.0.0.1:9001",
        options_.listen));
  }
  RETURN_IF_ERROR(CheckPortFree(*address));
  auto server = HttpServer::Listen(*loop_, *address, MakeServerOptions(options_),
                                   [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
                                     service_->Handle(std::move(request), std::move(answer));
                                   });
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  return absl::OkStatus();
}

// On the loader's thread.
void Process::Load() {
  auto opened = std::make_shared<absl::StatusOr<OpenedModel>>(OpenModel(
      options_, started_, [this](double share) { loading_shown_.Set(share); }));
  loop_->Post([this, opened] { OnLoaded(std::move(*opened)); });
}

void Process::OnLoaded(absl::StatusOr<OpenedModel> opened) {
  loader_.join();
  loading_ = false;
  loading_shown_.End();
  if (!opened.ok()) return FailWith(S(opened.status().message()));
  opened_.emplace(*std::move(opened));
  LogInfo("{}: {}, {} ranks, {} KV blocks of {} tokens", opened_->model.names.front(),
          opened_->device_note, opened_->model.tensor_parallel,
          opened_->runner->info().block_count, opened_->model.block_tokens);
  LogLines(opened_->start_notes);
  if (const auto& gpus = opened_->runner->info().gpus; !gpus.empty()) {
    DeviceWatchOptions watch{.note = [](const std::string& text) { LogWarn("{}", text); }};
    for (const GpuInUse& gpu : gpus) watch.bus_ids.push_back(gpu.bus_id);
    device_watch_.emplace(std::move(watch));
    service_->WatchDevices([this] { return device_watch_->Read(); });
  }
  const EngineOptions engine_options = MakeEngineOptions(options_, *opened_);
  const int32_t blocks = opened_->runner->info().block_count;
  try {
    engine_ = std::make_unique<Engine>(std::move(opened_->runner), engine_options, service_->sink(),
                                       service_->on_load());
  } catch (const std::bad_alloc&) {
    return FailWith(fmt::format("no memory for the tables of {} KV blocks, {} running sequences and "
                                "steps of {} tokens; lower --kv-blocks, --max-running or --step-tokens",
                                blocks, options_.max_running, engine_options.step_tokens));
  }
  service_->Ready(opened_->model, *engine_, [this](absl::Status status) { OnReady(status); });
}

void Process::OnReady(const absl::Status& status) {
  if (!status.ok()) {
    return FailWith(fmt::format("the self test failed, no token could be generated: {}",
                                S(status.message())));
  }
  Print(stdout, fmt::format("ready on http://{}\n", server_->address().text));
}

void Process::FailWith(std::string_view message) {
  PrintError(message);
  exit_status_ = 1;
  loop_->Stop();
}

void Process::OnStopSignal() {
  if (loading_ || draining_) {
    // Nothing is in progress yet, or somebody asks a second time. A thread that
    // reads weights cannot be called off, so the process ends under it.
    loading_shown_.End();
    LogInfo("stopping at once");
    std::_Exit(0);
  }
  draining_ = true;
  leave_by_ = loop_->now() + options_.drain_seconds * kSecond;
  LogInfo("draining: {} answers in progress", service_->answers());
  drain_timer_ = loop_->timers().After(options_.drain_seconds * kSecond, [this] {
    LogWarn("{} answers cut after {} s of draining", service_->answers(), options_.drain_seconds);
    service_->CutAll();
    Leave();
  });
  service_->Drain([this] { Leave(); });
}

void Process::Leave() {
  service_->EndWatches();
  LeaveOnceSent();
}

// A client that reads slowly has its answer only when it has taken all of it.
void Process::LeaveOnceSent() {
  const bool wait = server_->buffered() > 0 && loop_->now() < leave_by_;
  drain_timer_ = loop_->timers().After(wait ? kSentTick : kLastBytes, [this, wait] {
    if (wait) return LeaveOnceSent();
    loop_->Stop();
  });
}

}  // namespace

int Serve(const ServeOptions& options) {
  SetLogLevel(LevelOf(options.log_level));
  if (options.node_rank > 0) return Follow(options);
  AllowManyFiles();
  return Process(options, Loop::Create()).Run();
}

}  // namespace penstock::engine
