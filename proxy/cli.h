// The subcommands that work on policy files alone: no sockets, no running proxy.
// Each writes results to `out` and what is wrong with a file to `err`, and returns
// the exit code of the program.
#pragma once

#include <ostream>
#include <string>
#include <string_view>

namespace penstock {

inline constexpr int kExitOk = 0;
inline constexpr int kExitWrong = 1;  // The file has errors; for diff: it differs.
inline constexpr int kExitUsage = 2;  // For diff: a file has errors.
inline constexpr int kExitNoRoute = 3;

// penstock check FILE. `format` is text, json or github (annotations of a workflow
// run). `strict`: warnings count as errors.
int RunCheck(const std::string& file, std::string_view format, bool strict, std::ostream& out,
             std::ostream& err);

// penstock show: the effective policy, defaults filled in, secrets masked.
int RunShow(const std::string& file, std::ostream& out, std::ostream& err);

// penstock diff: what a reload from `before` to `after` would change.
int RunDiff(const std::string& before, const std::string& after, std::ostream& out,
            std::ostream& err);

// penstock schema: JSON Schema, or the table of docs/policy-file.md.
int RunSchema(bool markdown, std::ostream& out);

// penstock explain: which route and pool take a request, what holds for it there,
// and the line of the file that says so.
struct ExplainQuery {
  std::string file;
  std::string method = "POST";
  std::string path = "/v1/chat/completions";
  std::string model;
};
int RunExplain(const ExplainQuery& query, std::ostream& out, std::ostream& err);

}  // namespace penstock
