// The command line of penstock-engine.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace penstock::engine {

struct ServeOptions {
  std::string model;                     // Folder of a Hugging Face checkpoint.
  std::string listen = "127.0.0.1:9001";
  int32_t tensor_parallel = 1;
  int32_t nnodes = 1;                    // Processes that are one engine, named as users know them:
  int32_t node_rank = 0;                 // which of them this is; 0 serves the API;
  std::string dist_init_addr;            // where they meet, at process 0;
  int32_t dist_timeout = 600;            // seconds for all to come.
  std::string device = "auto";           // auto, cpu, cuda, emulated.
  std::vector<std::string> served_names; // Empty: the folder's name.
  std::string dtype = "auto";            // auto: as stored; bf16, float32.
  int32_t max_running = 64;
  int32_t queue = 256;
  int32_t step_tokens = 0;               // 0: 512 on a CPU, 2048 on a GPU or emulated.
  int32_t kv_blocks = 0;                 // 0: as many as kv_bytes, or a GPU, hold.
  int64_t kv_bytes = int64_t{256} << 20;
  int32_t block_tokens = 16;
  int32_t max_length = 0;                // 0: the model's own limit.
  std::string timing = "h200";           // Of the emulated device.
  bool pin_threads = true;               // On GPUs: each rank's thread near its GPU.
  double speed = 1;                      // Likewise: 0.5 takes twice as long.
  std::string metrics_compat;            // "vllm" or nothing.
  std::string log_level = "info";
  int32_t stall_seconds = 60;            // A longer step makes the node "failed" while it lasts.
  int32_t drain_seconds = 30;            // What SIGTERM leaves to answers in progress.

  int32_t ranks_here() const { return tensor_parallel / nnodes; }
};

// What is wrong with the options of several processes; empty: nothing.
std::string CheckProcesses(const ServeOptions& options);

// Options to serve with, or the status to exit with at once: 0 after --help and
// --version, 2 after something wrong, which was printed.
std::variant<ServeOptions, int> ParseCommandLine(int argc, char** argv);

extern const char kVersion[];

}  // namespace penstock::engine
