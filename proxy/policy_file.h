// A policy file, checked to the end: the fields and the rules across them
// (config/), the settings of each pool's balancing policy (lb-policies/), and the
// certificate files that it names, none of which config/ can check alone.
#pragma once

#include <string>

#include "config/parse.h"

namespace penstock {

// What `serve`, a reload and every subcommand read; "-" is standard input.
config::ParseResult LoadPolicyFile(const std::string& path);

// The same of a text.
config::ParseResult ParsePolicyText(std::string_view text, std::string_view file_name,
                                    const config::Outside& outside = config::RealOutside());

}  // namespace penstock
