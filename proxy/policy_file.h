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

// The same of a text. `outside` is what its fields refer to (keys, ${NAME}), `certificates`
// what TLS does; only its read_file is used.
config::ParseResult ParsePolicyText(std::string_view text, std::string_view file_name,
                                    const config::Outside& outside = config::RealOutside(),
                                    const config::Outside& certificates = config::RealOutside());

// `status` with the place that `path` has in the file before it.
absl::Status At(const config::Config& config, const config::Locations& where, std::string_view path,
                const absl::Status& status);

// Files that a policy file names, as they were when it was read: when one has changed,
// the policy file means something else, or one that was refused may be good.
class NamedFiles {
 public:
  // Reads as `outside` does and remembers what was there, not the contents themselves.
  // REQUIRES: both outlive what is returned.
  config::Outside Watch(const config::Outside& outside = config::RealOutside());
  bool Changed(const config::Outside& outside = config::RealOutside()) const;
  // A hash of all that is there now.
  size_t Now(const config::Outside& outside = config::RealOutside()) const;
  void Clear() { seen_.clear(); }

 private:
  std::map<std::string, size_t> seen_;   // Path, and a hash of its contents or of why there are none.
};

}  // namespace penstock
