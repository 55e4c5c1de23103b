// The command line of the proxy.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <random>
#include <string>

#include "proxy/base/out_of_memory.h"
#include "proxy/base/status.h"
#include "proxy/cli.h"
#include "proxy/server.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "unknown"
#endif

namespace {

// Started without standard streams, the first sockets would get their numbers, and
// libuv ends a process that closes those.
void OpenStandardStreams() {
  int descriptor = 0;
  do {
    descriptor = ::open("/dev/null", O_RDWR);
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace penstock;
  OpenStandardStreams();
  EndWhenOutOfMemory();
  std::signal(SIGXFSZ, SIG_IGN);  // A log that may not grow shows as an error of its write.
  CLI::App app{"penstock: sends each LLM request to the node that will answer it soonest"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "penstock " PENSTOCK_VERSION);
  int exit_code = kExitOk;

  std::string file;
  std::string takeover, last_good;
  CLI::App* serve = app.add_subcommand("serve", "Serve as a policy file says");
  serve->add_option("-c,--config", file, "The policy file")->required();
  serve->add_option("--takeover", takeover,
                    "A unix socket: take over from the process that offers it, then offer it to the next");
  serve->add_option("--last-good", last_good,
                    "A file that keeps the last good policy file, to start with when that one is broken");
  serve->callback([&] {
    const uint64_t seed = std::random_device{}() | uint64_t{std::random_device{}()} << 32;
    Server server({file, last_good, takeover, {argv, argv + argc}}, seed);
    if (const absl::Status status = server.Run(); !status.ok()) {
      std::cerr << S(status.message()) << '\n';
      exit_code = kExitWrong;
    }
  });

  std::string format = "text";
  bool strict = false;
  CLI::App* check = app.add_subcommand("check", "Check a policy file; opens no socket");
  check->add_option("file", file, "The policy file; - reads standard input")->required();
  check->add_option("--format", format, "text, json or github")->capture_default_str();
  check->add_flag("--strict", strict, "Warnings count as errors");
  check->callback([&] { exit_code = RunCheck(file, format, strict, std::cout, std::cerr); });

  CLI::App* show = app.add_subcommand("show", "Print the policy with every default filled in");
  show->add_option("-c,--config,file", file, "The policy file")->required();
  show->callback([&] { exit_code = RunShow(file, std::cout, std::cerr); });

  ExplainQuery query;
  CLI::App* explain = app.add_subcommand("explain", "Say which route and pool a request would get");
  explain->add_option("-c,--config", query.file, "The policy file")->required();
  explain->add_option("--method", query.method)->capture_default_str();
  explain->add_option("--path", query.path)->capture_default_str();
  explain->add_option("--model", query.model, "The request's model");
  explain->callback([&] { exit_code = RunExplain(query, std::cout, std::cerr); });

  std::string before, after;
  CLI::App* diff = app.add_subcommand("diff", "Say what a reload from one file to another changes");
  diff->add_option("before", before)->required();
  diff->add_option("after", after)->required();
  diff->callback([&] { exit_code = RunDiff(before, after, std::cout, std::cerr); });

  bool markdown = false;
  CLI::App* schema = app.add_subcommand("schema", "Print the JSON Schema of policy files");
  schema->add_flag("--markdown", markdown, "A table of all fields instead");
  schema->callback([&] { exit_code = RunSchema(markdown, std::cout); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return exit_code;
}
