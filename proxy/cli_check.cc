// check, show, diff and schema.
#include <vector>

#include "config/schema.h"
#include "config/show.h"
#include "fmt/format.h"
#include "lb-policies/policy.h"
#include "nlohmann/json.hpp"
#include "proxy/cli.h"
#include "proxy/policy_file.h"

namespace penstock {
namespace {

using config::Diagnostic;
using config::ParseResult;

std::string Counted(size_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

void WriteText(const ParseResult& result, const std::string& file, std::ostream& out,
               std::ostream& err) {
  err << result.Messages();
  if (!result.ok()) return;
  size_t backends = 0;
  for (const config::Pool& pool : result.config->pools) backends += pool.backends.size();
  out << fmt::format("{}: OK: {}, {}, {}, {}\n", file, Counted(result.config->pools.size(), "pool"),
                     Counted(backends, "backend"), Counted(result.config->routes.size(), "route"),
                     Counted(result.config->caches.size(), "cache"));
}

void WriteJson(const ParseResult& result, const std::string& file, bool ok, std::ostream& out) {
  auto list = nlohmann::json::array();
  for (const Diagnostic& diagnostic : result.diagnostics) {
    list.push_back({{"severity", diagnostic.warning ? "warning" : "error"},
                    {"line", diagnostic.where.line},
                    {"column", diagnostic.where.column},
                    {"path", diagnostic.path},
                    {"message", diagnostic.message}});
  }
  const nlohmann::json report = {{"file", file}, {"ok", ok}, {"diagnostics", list}};
  out << report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

std::string Escape(std::string_view text, bool property) {
  std::string escaped;
  for (const char c : text) {
    const bool special = c == '%' || c == '\n' || c == '\r' || (property && (c == ':' || c == ','));
    escaped += special ? fmt::format("%{:02X}", static_cast<unsigned>(c)) : std::string(1, c);
  }
  return escaped;
}

void WriteGithub(const ParseResult& result, std::ostream& out) {
  for (const Diagnostic& diagnostic : result.diagnostics) {
    const std::string path = diagnostic.path.empty() ? "" : diagnostic.path + ": ";
    out << fmt::format("::{} file={},line={},col={}::{}\n",
                       diagnostic.warning ? "warning" : "error", Escape(diagnostic.file, true),
                       diagnostic.where.line, diagnostic.where.column,
                       Escape(path + diagnostic.message, false));
  }
}

}  // namespace

int RunCheck(const std::string& file, std::string_view format, bool strict, std::ostream& out,
             std::ostream& err) {
  if (format != "text" && format != "json" && format != "github") {
    err << fmt::format("penstock check: no format is named \"{}\"; known: text, json, github\n",
                       format);
    return kExitUsage;
  }
  const ParseResult result = LoadPolicyFile(file);
  const bool ok = result.ok() && !(strict && !result.diagnostics.empty());
  if (format == "json") {
    WriteJson(result, file, ok, out);
  } else if (format == "github") {
    WriteGithub(result, out);
  } else {
    WriteText(result, file, out, err);
  }
  return ok ? kExitOk : kExitWrong;
}

int RunShow(const std::string& file, std::ostream& out, std::ostream& err) {
  const ParseResult result = LoadPolicyFile(file);
  err << result.Messages();
  if (!result.ok()) return kExitWrong;
  out << config::Show(*result.config);
  return kExitOk;
}

int RunDiff(const std::string& before, const std::string& after, std::ostream& out,
            std::ostream& err) {
  const ParseResult old = LoadPolicyFile(before);
  const ParseResult now = LoadPolicyFile(after);
  if (!old.ok() || !now.ok()) {
    err << old.Messages() << now.Messages();
    return kExitUsage;
  }
  const std::vector<config::Change> changes = config::Diff(*old.config, *now.config);
  for (const config::Change& change : changes) {
    if (change.before.empty()) {
      out << fmt::format("+ {}: {}\n", change.path, change.after);
    } else if (change.after.empty()) {
      out << fmt::format("- {}: {}\n", change.path, change.before);
    } else {
      out << fmt::format("~ {}: {} -> {}\n", change.path, change.before, change.after);
    }
  }
  return changes.empty() ? kExitOk : kExitWrong;
}

int RunSchema(bool markdown, std::ostream& out) {
  std::vector<std::string_view> algorithms;
  for (const lb::PolicyInfo& info : lb::Policies()) algorithms.push_back(info.name);
  out << (markdown ? config::MarkdownTable() : config::JsonSchema(algorithms));
  return kExitOk;
}

}  // namespace penstock
