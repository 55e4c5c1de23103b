// The subcommands as their callers see them: files in, exit code and text out.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "fmt/format.h"
#include "proxy/cli.h"

namespace penstock {

inline constexpr std::string_view kGood =
    "version: v1\npools: [{name: a, models: [m], backends: [\"a:1\"]}]\n";
class Subcommand : public testing::Test {
 protected:
  ~Subcommand() override {
    for (const std::string& path : files_) unlink(path.c_str());
  }

  // A policy file with this text; it goes away with the test.
  std::string File(std::string_view text) {
    files_.push_back(
        fmt::format("{}penstock_cli_{}_{}.yaml", testing::TempDir(), getpid(), files_.size()));
    std::ofstream(files_.back()) << text;
    return files_.back();
  }

  std::ostringstream out_;
  std::ostringstream err_;

 private:
  std::vector<std::string> files_;
};

}  // namespace penstock
