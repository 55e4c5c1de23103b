// The inputs of a fuzz target's corpus, as tests/fuzz/run keeps them: one a line of
// tests/fuzz/corpus/NAME.txt, with \n \r \t \\ and \xHH for what is not plain text.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <string_view>

namespace penstock {

inline std::string Unescaped(std::string_view line) {
  std::string out;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\' || i + 1 == line.size()) {
      out += line[i];
    } else if (const char kind = line[++i]; kind == 'x' && i + 2 < line.size()) {
      out += static_cast<char>(digit(line[i + 1]) * 16 + digit(line[i + 2]));
      i += 2;
    } else {
      out += kind == 'n' ? '\n' : kind == 'r' ? '\r' : kind == 't' ? '\t' : kind;
    }
  }
  return out;
}

// Calls run(input) for each; fails where there is none. A crash shows the line.
template <typename Run>
void ForEachInput(const std::string& name, Run run) {
  std::ifstream file("tests/fuzz/corpus/" + name + ".txt");
  int count = 0;
  for (std::string line; std::getline(file, line); ++count) {
    SCOPED_TRACE(name + ".txt:" + std::to_string(count + 1));
    run(Unescaped(line));
  }
  EXPECT_GT(count, 0) << "no corpus of " << name << "; tests run from the project's root";
}

}  // namespace penstock
