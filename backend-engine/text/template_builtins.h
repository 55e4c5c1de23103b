// The names that a chat template finds without being given them. Each table is
// one file; a name that is not there is null.
#pragma once

#include <string>

#include "backend-engine/text/template_interpreter.h"

namespace penstock::engine::jinja {

Filter FindFilter(const std::string& name);          // template_filters.cc
Filter FindSequenceFilter(const std::string& name);  // template_sequence_filters.cc
Test FindTest(const std::string& name);              // template_tests.cc
Method FindMethod(const Value& self, const std::string& name);  // template_methods.cc
Function FindFunction(const std::string& name);      // template_functions.cc

// Arguments of builtins; a wrong type fails.
int64_t IntArgument(Interpreter& interpreter, const Arguments& arguments, size_t place,
                    std::string_view name, int64_t absent);
bool BoolArgument(const Arguments& arguments, size_t place, std::string_view name, bool absent);
std::string TextArgument(Interpreter& interpreter, const Arguments& arguments, size_t place,
                         std::string_view name, std::string_view absent);

// Widths and counts that a builtin pads to are bounded by this.
inline constexpr int64_t kWidthMax = 10'000;

}  // namespace penstock::engine::jinja
