#include "backend-engine/api/open_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>
#include <optional>
#include <utility>

#include "backend-engine/api/device_choice.h"
#include "backend-engine/exec/cpu_runner.h"
#include "backend-engine/exec/emulated_runner.h"
#include "backend-engine/exec/gpu_device.h"
#include "backend-engine/load/checkpoint.h"
#include "backend-engine/load/json_file.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"

namespace penstock::engine {
namespace {

constexpr size_t kConfigBytesMax = 4 << 20;
constexpr size_t kPlainTokensMax = 1024;
constexpr int32_t kCpuStepTokens = 512;
constexpr int32_t kEmulatedStepTokens = 2048;
constexpr int32_t kGpuStepTokens = 2048;

absl::StatusOr<ParsedConfig> ReadConfig(const std::string& dir, std::string_view name) {
  auto config = ReadWholeFile(dir + "/config.json", kConfigBytesMax);
  if (!config.ok()) return config.status();
  auto generation = ReadWholeFile(dir + "/generation_config.json", kConfigBytesMax);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  return ParseModelConfig(*config, generation.ok() ? *generation : "", name);
}

// generation_config.json's wishes as the defaults of requests that say nothing.
SamplingParams DefaultSampling(const GenerationDefaults& defaults) {
  SamplingParams sampling;
  const auto set = [](float& target, std::optional<double> value) {
    if (value) target = static_cast<float>(*value);
  };
  set(sampling.temperature, defaults.temperature);
  set(sampling.top_p, defaults.top_p);
  set(sampling.min_p, defaults.min_p);
  set(sampling.repetition_penalty, defaults.repetition_penalty);
  if (defaults.top_k) sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*defaults.top_k, 0));
  return sampling;
}

// FNV-1a: an emulated model has no weights, but its configuration tells it from others.
uint64_t HashOfText(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

// The tokenizer's end of sequence ends answers too: some folders name it nowhere else.
void AddEosOf(const Tokenizer& tokenizer, ServedModel& model) {
  const int32_t id = tokenizer.eos_id().value_or(-1);
  if (id < 0 || id >= model.limits.vocab_size) return;
  if (std::find(model.eos.begin(), model.eos.end(), id) == model.eos.end()) model.eos.push_back(id);
}

// REQUIRES: FillModel().
absl::Status ReadText(const std::string& dir, ServedModel& model) {
  auto tokenizer = Tokenizer::Load(dir);
  if (!tokenizer.ok()) return tokenizer.status();
  model.tokenizer = *std::move(tokenizer);
  AddEosOf(*model.tokenizer, model);
  for (int32_t id = 0; id < model.tokenizer->vocab_size(); ++id) {
    const std::string_view bytes = model.tokenizer->TokenBytes(id);
    model.token_bytes_max = std::max(model.token_bytes_max, bytes.size());
    if (!model.tokenizer->IsSpecial(id) || bytes.empty()) continue;
    const AddedToken place{.id = static_cast<int32_t>(model.special_texts.size())};
    model.special_finder.Add(place, bytes);
    const std::string normalized = model.tokenizer->NormalizedForSpecial(bytes);
    if (!normalized.empty() && normalized != bytes) model.special_finder.Add(place, normalized);
    model.special_texts.emplace_back(bytes);
  }
  auto chat = ChatTemplate::Load(dir);
  if (!chat.ok() && !absl::IsNotFound(chat.status())) return chat.status();
  if (chat.ok()) model.chat = *std::move(chat);
  return absl::OkStatus();
}

absl::Status FillModel(const ParsedConfig& config, const ServeOptions& options,
                       ServedModel& model) {
  const int64_t length = config.model.PositionsFor(options.max_length);
  if (length < options.max_length) {
    return absl::InvalidArgumentError(fmt::format(
        "--max-length {}: this model reaches {} tokens, by max_position_embeddings in config.json "
        "and what rope_scaling makes of it; lower it, or leave it out",
        options.max_length, length));
  }
  model.max_length = static_cast<int32_t>(std::min<int64_t>(length, 1 << 30));
  model.limits.vocab_size = static_cast<int32_t>(config.model.vocab_size);
  model.limits.defaults = DefaultSampling(config.generation);
  if (config.generation.max_new_tokens) {
    model.default_max_tokens =
        static_cast<int32_t>(std::clamp<int64_t>(*config.generation.max_new_tokens, 1, 1 << 30));
  }
  model.eos = config.model.eos_token_ids;
  return absl::OkStatus();
}

// Words to answer with where nothing is computed: a space and lower-case letters.
std::vector<int32_t> PlainTokens(const ServedModel& model) {
  std::vector<int32_t> plain;
  const auto vocabulary =
      std::min<int64_t>(model.tokenizer->vocab_size(), model.limits.vocab_size);
  for (int32_t id = 0; id < vocabulary && plain.size() < kPlainTokensMax; ++id) {
    const std::string_view bytes = model.tokenizer->TokenBytes(id);
    const bool word = bytes.size() > 2 && bytes.front() == ' ' &&
                      std::all_of(bytes.begin() + 1, bytes.end(),
                                  [](char c) { return c >= 'a' && c <= 'z'; });
    if (word) plain.push_back(id);
  }
  if (plain.empty()) plain.push_back(0);
  return plain;
}

absl::StatusOr<OpenedModel> OpenEmulated(const ServeOptions& options) {
  OpenedModel opened;
  const std::string name = NameOfFolder(options.model);
  auto config = ReadConfig(options.model, name);
  if (!config.ok()) return config.status();
  if (absl::Status status = FillModel(*config, options, opened.model); !status.ok()) return status;
  if (absl::Status status = ReadText(options.model, opened.model); !status.ok()) return status;
  opened.model.weights = fmt::format("{:016x}", HashOfText("emulated " + name));
  opened.model.dtype = "none";

  EmulatedOptions emulated;
  emulated.timing = FindTimingTable(options.timing).value_or(TimingTable{});
  emulated.speed = options.speed;
  emulated.tensor_parallel = options.tensor_parallel;
  emulated.block_tokens = options.block_tokens;
  emulated.block_count = options.kv_blocks;
  emulated.max_step_tokens = options.step_tokens > 0 ? options.step_tokens : kEmulatedStepTokens;
  emulated.max_sequences = options.max_running;
  emulated.vocab_size = opened.model.limits.vocab_size;
  emulated.plain_tokens = PlainTokens(opened.model);
  opened.runner = std::make_unique<EmulatedRunner>(std::move(emulated));
  return opened;
}

// The parts of a model folder that every device serves.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFolder(const ServeOptions& options,
                                                       OpenedModel& opened) {
  auto checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return checkpoint.status();
  const ParsedConfig config{(*checkpoint)->config(), (*checkpoint)->generation_defaults()};
  if (absl::Status status = FillModel(config, options, opened.model); !status.ok()) return status;
  if (absl::Status status = ReadText(options.model, opened.model); !status.ok()) return status;
  opened.model.weights = (*checkpoint)->weights_hash_hex();
  return checkpoint;
}

std::function<void(int64_t, int64_t)> ShareOf(const std::function<void(double)>& progress) {
  return [&progress](int64_t done, int64_t total) {
    progress(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0);
  };
}

absl::StatusOr<OpenedModel> OpenOnGpu(const ServeOptions& options,
                                      const std::function<void(double)>& progress) {
  OpenedModel opened;
  auto checkpoint = OpenFolder(options, opened);
  if (!checkpoint.ok()) return checkpoint.status();
  opened.model.dtype = NameOf(DType::kBf16);
  GpuRunnerOptions gpu;
  gpu.gpus.resize(static_cast<size_t>(options.ranks_here()));
  std::iota(gpu.gpus.begin(), gpu.gpus.end(), 0);
  gpu.block_tokens = options.block_tokens;
  gpu.block_count = options.kv_blocks;
  gpu.max_step_tokens = options.step_tokens > 0 ? options.step_tokens : kGpuStepTokens;
  gpu.max_sequences = options.max_running;
  gpu.max_length = opened.model.max_length;
  gpu.pin_threads = options.pin_threads;
  gpu.progress = ShareOf(progress);
  // A process that follows ends with the reason.
  if (options.node_rank == 0) {
    gpu.failed = [](const std::string& why) { LogError("the GPUs have failed: {}", why); };
  }
  gpu.lost = [](const std::string& why) {
    LogError("{}; this process ends", why);
    std::_Exit(1);
  };
  if (options.nnodes > 1) {
    gpu.meeting = {.index = options.node_rank, .size = options.nnodes,
                   .address = options.dist_init_addr,
                   .facts = fmt::format("version {}, weights {}, length {}, {} KV blocks", kVersion,
                                        opened.model.weights, gpu.max_length, gpu.block_count),
                   .timeout_seconds = static_cast<double>(options.dist_timeout),
                   .note = [](const std::string& text) { LogInfo("{}", text); }};
  }
  std::string error;
  opened.runner = OpenGpuRunner((*checkpoint)->config(), (*checkpoint)->source(), gpu,
                                opened.start_notes, error);
  if (opened.runner == nullptr) return absl::FailedPreconditionError(error);
  if (absl::Status status = (*checkpoint)->CheckUnchanged(); !status.ok()) return status;
  return opened;
}

absl::StatusOr<OpenedModel> OpenOnCpu(const ServeOptions& options,
                                      const std::function<void(double)>& progress) {
  OpenedModel opened;
  auto checkpoint = OpenFolder(options, opened);
  if (!checkpoint.ok()) return checkpoint.status();
  CpuRunnerOptions cpu;
  cpu.ranks = options.tensor_parallel;
  if (options.dtype == "float32") cpu.dtype = DType::kF32;
  if (options.dtype == "bf16") cpu.dtype = DType::kBf16;
  const auto embeddings = (*checkpoint)->Find("model.embed_tokens.weight");
  opened.model.dtype =
      NameOf(cpu.dtype.value_or(embeddings ? embeddings->dtype : DType::kF32));
  cpu.block_tokens = options.block_tokens;
  cpu.block_count = options.kv_blocks;
  cpu.kv_bytes = options.kv_bytes;
  cpu.max_step_tokens = options.step_tokens > 0 ? options.step_tokens : kCpuStepTokens;
  cpu.max_sequences = options.max_running;
  cpu.max_length = opened.model.max_length;
  cpu.progress = ShareOf(progress);
  std::string error;
  auto runner = CpuRunner::Create((*checkpoint)->config(), (*checkpoint)->source(), cpu, error);
  if (runner == nullptr) return absl::InvalidArgumentError(error);
  if (absl::Status status = (*checkpoint)->CheckUnchanged(); !status.ok()) return status;
  opened.runner = std::move(runner);
  return opened;
}

absl::StatusOr<OpenedModel> Open(const ServeOptions& options, std::string_view device,
                                 const std::function<void(double)>& progress) {
  try {
    if (device == "emulated") return OpenEmulated(options);
    return device == "cuda" ? OpenOnGpu(options, progress) : OpenOnCpu(options, progress);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format(
        "no memory to open {} on {}; lower --max-running, --step-tokens or --kv-blocks, or free some",
        options.model, device));
  }
}

void AddNote(std::string note, std::string& notes) {
  if (!notes.empty() && notes.back() != '\n') notes += '\n';
  notes += note;
}

// What clients are told is what they can have: a pool that is smaller than the
// longest sequence bounds it. The last token of an answer is handed out but never
// computed, so it needs no place there.
void FitIntoPool(const RunnerInfo& info, ServedModel& model, std::string& notes) {
  const int64_t in_pool = int64_t{info.block_count} * info.block_tokens + 1;
  if (in_pool >= model.max_length) return;
  AddNote(fmt::format("prompt and answer together: up to {} tokens, as the KV cache holds no "
                      "more; {} would need {} blocks of {} tokens",
                      in_pool, model.max_length,
                      (model.max_length - 1 + info.block_tokens - 1) / info.block_tokens,
                      info.block_tokens),
          notes);
  model.max_length = static_cast<int32_t>(in_pool);
}

void NameModel(const ServeOptions& options, ServedModel& model) {
  model.names = options.served_names;
  if (model.names.empty()) model.names.push_back(NameOfFolder(options.model));
  if (!model.emulated()) return;
  // Nobody shall take made-up words for a model's; requests may leave the mark out.
  model.aliases = model.names;
  for (std::string& name : model.names) name += "-emulated";
}

}  // namespace

std::string NameOfFolder(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash != std::string_view::npos && slash + 1 < path.size()) path.remove_prefix(slash + 1);
  return std::string(path);
}

absl::StatusOr<OpenedModel> OpenModel(const ServeOptions& options, absl::Time now,
                                      std::function<void(double)> progress) {
  auto device = ChooseDevice(options, FindGpuDevice());
  if (!device.ok()) return device.status();
  auto opened = Open(options, device->name, progress);
  if (device->may_be_cpu && absl::IsFailedPrecondition(opened.status())) {
    device = CpuAfterAll(std::string(S(opened.status().message())));
    opened = Open(options, device->name, progress);
  }
  if (!opened.ok()) return opened;

  ServedModel& model = opened->model;
  const RunnerInfo& info = opened->runner->info();
  model.device = info.device;
  model.tensor_parallel = info.tensor_parallel;
  model.block_tokens = info.block_tokens;
  model.created = absl::ToUnixSeconds(now);
  model.fingerprint = fmt::format("fp_{}_tp{}", model.weights.substr(0, 10), info.tensor_parallel);
  FitIntoPool(info, model, opened->start_notes);
  if (model.eos.empty()) {
    AddNote("no token ends an answer: neither eos_token_id in config.json or generation_config.json "
            "nor eos_token in tokenizer_config.json names one; answers go on to their max_tokens",
            opened->start_notes);
  }
  NameModel(options, model);
  opened->device_note = device->note;
  return opened;
}

}  // namespace penstock::engine
