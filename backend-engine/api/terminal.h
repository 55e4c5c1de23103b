// What a process says where it was started: one line that counts, on standard output,
// or one that says why it ends, on standard error; and lines for the log.
#pragma once

#include <cstdio>
#include <string_view>

namespace penstock::engine {

void Print(FILE* stream, std::string_view text);  // Whole, at once.
void PrintError(std::string_view message);        // "penstock-engine: message"
void LogLines(std::string_view lines);            // Each as one.

}  // namespace penstock::engine
