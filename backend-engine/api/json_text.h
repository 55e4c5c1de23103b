// Writing JSON: strings and numbers appended to a string that is already there.
#pragma once

#include <string>
#include <string_view>

namespace penstock::engine {

// Appends `text` quoted and escaped. Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string& out, std::string_view text);

// Appends a number; what JSON cannot say (NaN, infinity) becomes null.
void AppendJsonNumber(std::string& out, double value);

}  // namespace penstock::engine
