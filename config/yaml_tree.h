// A YAML document as a plain tree that remembers where everything stands.
//
// A strict subset: one document; maps with plain keys, each once; lists; scalars.
// Anchors, aliases, merge keys and tags are refused, so a document is never
// larger than its text and says where it is read what it means.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/diagnostic.h"

namespace penstock::config {

struct YamlNode {
  enum class Kind { kNothing, kScalar, kList, kMap };
  Kind kind = Kind::kNothing;
  Location where;
  std::string scalar;                                  // kScalar.
  std::vector<YamlNode> items;                         // kList, and a kMap's values ...
  std::vector<std::pair<std::string, Location>> keys;  // ... whose keys these are.

  // The value of a map's key, or null.
  const YamlNode* Get(std::string_view key) const;
};

// Reads `text`. What is wrong is appended to `diagnostics`, without file names;
// then the tree may lack what was not understood.
YamlNode ReadYaml(std::string_view text, std::vector<Diagnostic>& diagnostics);

}  // namespace penstock::config
