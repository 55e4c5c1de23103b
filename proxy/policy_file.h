// A policy file, checked to the end: the fields and the rules across them
// (config/), the settings of each pool's balancing policy (lb-policies/), and the
// certificate files that it names, none of which config/ can check alone.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "config/parse.h"

namespace penstock {

// What `serve`, a reload and every subcommand read; "-" is standard input.
config::ParseResult LoadPolicyFile(const std::string& path);

// The same of a text.
config::ParseResult ParsePolicyText(std::string_view text, std::string_view file_name,
                                    const config::Outside& outside = config::RealOutside());

// The files that a policy file names (certificates, keys), as they were when it was
// read: a file that was refused because of one of them is worth another look when that
// one has changed.
class NamedFiles {
 public:
  // Reads as `outside` does and remembers what was there, not the contents themselves.
  // REQUIRES: both outlive what is returned.
  config::Outside Watch(const config::Outside& outside = config::RealOutside());
  bool Changed(const config::Outside& outside = config::RealOutside()) const;
  void Clear() { seen_.clear(); }

 private:
  std::map<std::string, size_t> seen_;   // Path, and a hash of its contents or of why there are none.
};

}  // namespace penstock
