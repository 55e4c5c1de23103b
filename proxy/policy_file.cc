#include "proxy/policy_file.h"

#include <functional>
#include <iostream>
#include <set>
#include <tuple>

#include "config/file.h"
#include "fmt/format.h"
#include "lb-policies/policy.h"
#include "proxy/net/loop.h"
#include "proxy/tls_files.h"

namespace penstock {
namespace {

using config::Diagnostic;
using config::LoadBalancing;

// Appends what is wrong with one pool's policy. The setting at fault is found by
// trying each alone, so that no message needs to be taken apart.
void CheckBalancing(const LoadBalancing& balancing, const std::string& path,
                    std::vector<Diagnostic>& diagnostics) {
  const auto complain = [&](config::Location where, const std::string& at,
                            const absl::Status& wrong) {
    diagnostics.push_back({.where = where, .path = at, .message = std::string(wrong.message())});
  };
  if (const auto alone = lb::MakePolicy(balancing.algorithm, {}); !alone.ok()) {
    complain(balancing.where, path + ".algorithm", alone.status());
    return;
  }
  lb::Params all;
  bool each_is_fine = true;
  for (const LoadBalancing::Param& param : balancing.params) {
    all.emplace_back(param.key, param.value);
    const auto alone = lb::MakePolicy(balancing.algorithm, {{param.key, param.value}});
    if (alone.ok()) continue;
    each_is_fine = false;
    complain(param.where, path, alone.status());
  }
  if (!each_is_fine) return;
  if (const auto together = lb::MakePolicy(balancing.algorithm, all); !together.ok()) {
    complain(balancing.where, path, together.status());
  }
}

config::ParseResult CheckPolicies(config::ParseResult result) {
  if (!result.ok()) return result;
  std::vector<Diagnostic> found;
  for (size_t i = 0; i < result.config->pools.size(); ++i) {
    const std::string own = fmt::format("pools[{}].load_balancing", i);
    CheckBalancing(result.config->pools[i].load_balancing, own, found);
  }
  // What `defaults` say wrong is found in every pool, and said once.
  std::set<std::tuple<int, int, std::string>> said;
  const config::Location defaults = config::Find(result.where, "defaults.load_balancing");
  for (Diagnostic& diagnostic : found) {
    const auto [line, column] = diagnostic.where;
    if (!said.emplace(line, column, diagnostic.message).second) continue;
    const size_t dot = diagnostic.path.find('.');
    const bool in_pool = result.where.contains(
        std::string_view(diagnostic.path)
            .substr(0, diagnostic.path.find(".load_balancing") + sizeof(".load_balancing") - 1));
    if (!in_pool && defaults.line > 0) diagnostic.path = "defaults" + diagnostic.path.substr(dot);
    diagnostic.file = result.config->file;
    config::Add(result.diagnostics, std::move(diagnostic));
  }
  if (!said.empty()) result.config.reset();
  config::Sort(result.diagnostics);
  return result;
}

config::ParseResult CheckFiles(config::ParseResult result, const config::Outside& outside) {
  if (!result.ok()) return result;
  for (Diagnostic& diagnostic :
       CheckTlsFiles(*result.config, result.where, outside.read_file, Loop::ReadWallClock())) {
    if (!diagnostic.warning) result.config.reset();
    config::Add(result.diagnostics, std::move(diagnostic));
  }
  config::Sort(result.diagnostics);
  return result;
}

size_t HashOf(const absl::StatusOr<std::string>& text) {
  return std::hash<std::string>()(text.ok() ? "+" + *text : "-" + std::string(text.status().message()));
}

}  // namespace

config::Outside NamedFiles::Watch(const config::Outside& outside) {
  return {.environment = outside.environment, .read_file = [this, &outside](const std::string& path) {
            absl::StatusOr<std::string> text = outside.read_file(path);
            seen_[path] = HashOf(text);
            return text;
          }};
}

bool NamedFiles::Changed(const config::Outside& outside) const {
  for (const auto& [path, hash] : seen_) {
    const absl::StatusOr<std::string> text = outside.read_file(path);
    if (absl::IsResourceExhausted(text.status())) continue;  // Nobody knows.
    if (HashOf(text) != hash) return true;
  }
  return false;
}

size_t NamedFiles::Now(const config::Outside& outside) const {
  std::string all;
  for (const auto& [path, hash] : seen_) all += fmt::format("{} ", HashOf(outside.read_file(path)));
  return std::hash<std::string>()(all);
}

config::ParseResult LoadPolicyFile(const std::string& path) {
  if (path != "-") return CheckFiles(CheckPolicies(config::LoadFile(path)), config::RealOutside());
  std::string text(config::kFileBytesMax + 1, '\0');  // One more, so that too long shows.
  std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::cin.gcount()));
  return ParsePolicyText(text, "stdin");
}

config::ParseResult ParsePolicyText(std::string_view text, std::string_view file_name,
                                    const config::Outside& outside, const config::Outside& certificates) {
  return CheckFiles(CheckPolicies(config::Parse(text, file_name, outside)), certificates);
}

absl::Status At(const config::Config& config, const config::Locations& where, std::string_view path,
                const absl::Status& status) {
  return absl::Status(status.code(), config::ToString({.file = config.file,
                                                       .where = config::Find(where, path),
                                                       .path = std::string(path),
                                                       .message = std::string(status.message())}));
}

}  // namespace penstock
