#include "backend-engine/api/serve_options.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "backend-engine/api/terminal.h"
#include "backend-engine/parallel/rendezvous.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "0.1.0"
#endif

namespace penstock::engine {

const char kVersion[] = PENSTOCK_VERSION;

namespace {

// Beyond these nothing is gained, and tables that are made for the most are large.
constexpr int32_t kQueueMax = 1 << 20;
constexpr int32_t kRunningMax = 1 << 16;
constexpr int32_t kStepTokensMax = 1 << 17;
constexpr int32_t kBlocksMax = 1 << 24;
constexpr int32_t kLengthMin = 2;  // A token of prompt and one of answer.

// CLI::Range compares, and no comparison with NaN is true.
std::string NotNan(const std::string& text) {
  const bool nan = std::isnan(std::strtod(text.c_str(), nullptr));
  return nan ? fmt::format("{} is not a number", text) : "";
}

void AddModelOptions(CLI::App& serve, ServeOptions& options) {
  serve.add_option("--model", options.model,
                   "Folder with config.json, tokenizer.json and *.safetensors")
      ->required();
  serve.add_option("--served-model-name", options.served_names,
                   "Name that clients ask for; may be given several times [the folder's name]")
      ->allow_extra_args(false)
      ->expected(1)
      ->take_all();
  serve.add_option("--max-length", options.max_length,
                   "Tokens of prompt and answer together [what the model allows]")
      ->check(CLI::Range(kLengthMin, std::numeric_limits<int32_t>::max()));
  serve.add_option("--dtype", options.dtype, "Numbers of the weights in memory; auto: as stored")
      ->check(CLI::IsMember({"auto", "bf16", "float32"}))
      ->capture_default_str();
}

void AddDeviceOptions(CLI::App& serve, ServeOptions& options) {
  serve.add_option("--device", options.device, "Where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda", "emulated"}))
      ->capture_default_str();
  serve.add_option("--tensor-parallel", options.tensor_parallel, "Ranks the model is split over")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  serve.add_flag("--pin-threads,!--no-pin-threads", options.pin_threads,
                 "GPUs: keep each rank's thread on the CPUs near its GPU")
      ->capture_default_str();
  serve.add_option("--timing", options.timing, "Emulated device: whose speed")
      ->check(CLI::IsMember({"h200", "v100", "instant"}))
      ->capture_default_str();
  serve.add_option("--speed", options.speed, "Emulated device: factor on that speed; 0.5 is half")
      ->check(CLI::Validator(NotNan, ""))
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
}

// As SGLang calls them, whose tensor parallel size counts all GPUs, too.
void AddGroupOptions(CLI::App& serve, ServeOptions& options) {
  serve.add_option("--nnodes", options.nnodes,
                   "GPUs: processes, usually one a machine, that are one engine; --tensor-parallel "
                   "counts the ranks of all of them")
      ->check(CLI::Range(1, kRendezvousMax))
      ->capture_default_str();
  serve.add_option("--node-rank", options.node_rank,
                   "Which of them this one is, from 0; process 0 serves the API, the others compute")
      ->check(CLI::Range(0, kRendezvousMax - 1))
      ->capture_default_str();
  serve.add_option("--dist-init-addr", options.dist_init_addr,
                   "Where they meet: name or address of process 0, and a port, like 10.0.0.1:7100");
  serve.add_option("--dist-timeout", options.dist_timeout, "Seconds for all of them to come")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
}

void AddScheduleOptions(CLI::App& serve, ServeOptions& options) {
  serve.add_option("--max-running", options.max_running, "Sequences computed side by side")
      ->check(CLI::Range(1, kRunningMax))
      ->capture_default_str();
  serve.add_option("--queue", options.queue, "Sequences that may wait; one more gets 429")
      ->check(CLI::Range(1, kQueueMax))
      ->capture_default_str();
  serve.add_option("--step-tokens", options.step_tokens,
                   "Tokens of one step [512 on a CPU, 2048 on a GPU and emulated]")
      ->check(CLI::Range(1, kStepTokensMax));
  serve.add_option("--block-tokens", options.block_tokens, "Tokens of one KV block")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  auto* blocks = serve.add_option("--kv-blocks", options.kv_blocks, "Blocks of the KV cache")
                     ->check(CLI::Range(1, kBlocksMax));
  serve.add_option("--kv-bytes", options.kv_bytes,
                   "CPU: memory of the KV cache, all ranks together; 512MiB, 4GiB; a GPU gives all that is left")
      ->transform(CLI::AsSizeValue(false))
      ->excludes(blocks)
      ->capture_default_str();
}

void AddProcessOptions(CLI::App& serve, ServeOptions& options) {
  serve.add_option("--listen", options.listen, "IP address and port; port 0 takes a free one")
      ->capture_default_str();
  serve.add_option("--metrics-compat", options.metrics_compat,
                   "Metric names of another engine instead of our own")
      ->check(CLI::IsMember({"vllm"}));
  serve.add_option("--log-level", options.log_level, "What is logged on standard error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  serve.add_option("--stall-seconds", options.stall_seconds,
                   "A step that takes longer makes the state \"failed\" until it ends")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  serve.add_option("--drain-seconds", options.drain_seconds,
                   "Time that SIGTERM leaves to answers in progress")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
}

}  // namespace

std::variant<ServeOptions, int> ParseCommandLine(int argc, char** argv) {
  ServeOptions options;
  CLI::App app("penstock-engine: serves a model behind the OpenAI API", "penstock-engine");
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  CLI::App* serve = app.add_subcommand("serve", "Load a model and serve it");
  AddModelOptions(*serve, options);
  AddDeviceOptions(*serve, options);
  AddGroupOptions(*serve, options);
  AddScheduleOptions(*serve, options);
  AddProcessOptions(*serve, options);
  // CLI11 reports by exception, help and version too; this is where they end.
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const std::string wrong = CheckProcesses(options); !wrong.empty()) {
    PrintError(wrong);
    return 2;
  }
  return options;
}

std::string CheckProcesses(const ServeOptions& options) {
  if (options.nnodes == 1) {
    if (options.node_rank == 0 && options.dist_init_addr.empty()) return "";
    return "--node-rank and --dist-init-addr are for several processes; say how many with --nnodes";
  }
  if (options.node_rank >= options.nnodes) {
    return fmt::format("--node-rank {} of --nnodes {}: they are counted from 0 to {}",
                       options.node_rank, options.nnodes, options.nnodes - 1);
  }
  if (options.device != "auto" && options.device != "cuda") {
    return fmt::format("--nnodes {}: processes compute together on GPUs alone, and --device is {}",
                       options.nnodes, options.device);
  }
  if (options.tensor_parallel % options.nnodes != 0) {
    return fmt::format("--tensor-parallel {} cannot be cut into --nnodes {} equal parts; it counts "
                       "the ranks of all processes",
                       options.tensor_parallel, options.nnodes);
  }
  std::string error;
  return CheckRendezvous({.index = options.node_rank, .size = options.nnodes,
                          .address = options.dist_init_addr}, error)
             ? ""
             : "--dist-init-addr: " + error;
}

}  // namespace penstock::engine
