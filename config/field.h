// The field table: one line per field of the policy file.
//
// A row says how a field is spelt, what kind of value it takes, within which
// bounds, what it does, and where the value lives in the structs of config.h.
// The reader, the defaults, `penstock show`, `diff` and `schema`, and the table of
// docs/policy-file.md all walk these rows, so none of them can disagree.
//
// Adding a field: the member in config.h, the row in fields.cc, a line in
// config/example.yaml; `penstock schema --markdown` prints the row of the docs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/config.h"

namespace penstock::config {

enum class Kind {
  kName,         // std::string: a name that others refer to.
  kText,         // std::string: any one line.
  kTexts,        // std::vector<std::string>: a list of kText.
  kPath,         // std::string: a URL path from '/'.
  kAddress,      // std::string: HOST:PORT to connect to.
  kBindAddress,  // std::string: the same to listen on; port 0: any free one.
  kFlag,         // bool.
  kCount,        // uint32_t.
  kCountOrAuto,  // uint32_t; auto: 0.
  kBytes,        // uint64_t: 8MiB.
  kBytesOrAuto,  // uint64_t; auto: 0.
  kDuration,     // absl::Duration: 250ms.
  kShare,        // double: 50%.
  kNumber,       // double.
  kChoice,       // An enum: one of a few words.
  kSecret,       // std::string: only as ${NAME}; never shown.
  kSecretFile,   // std::string: the path of a file that holds it; never shown.
  kSecretsFile,  // std::vector<std::string>: the path of a file, one a line; never shown.
  kSection,      // A map of fields.
  kList,         // A list of such maps.
};

struct Field;

// The fields of one map.
struct Section {
  std::span<const Field> fields;
  // In a list: an item that is a plain word stands for {short_key: word}.
  std::string_view short_key = {};
  // Where the object keeps its place in the file; may be null.
  Location* (*where)(void* object) = nullptr;
  // Whether there is anything to show of it; null: always.
  bool (*given)(void* object) = nullptr;
  // Where keys that are no fields go; null: they are errors.
  std::vector<LoadBalancing::Param>* (*params)(void* object) = nullptr;
};

struct Field {
  std::string_view key;
  Kind kind;
  std::string_view effect;  // One sentence.
  double min = 0;           // Of numbers (durations in seconds); of a list's
  double max = 0;           // length and a text's bytes only `max`.
  bool required = false;
  void* (*at)(void* object) = nullptr;     // The value in its struct.
  const Section* section = nullptr;        // kSection, kList.
  size_t (*size)(void* object) = nullptr;  // kList ...
  void* (*item)(void* object, size_t index) = nullptr;
  void* (*append)(void* object) = nullptr;  // Adds an item with its defaults.
  std::string_view words = {};              // kChoice: "pass|replace", in the enum's order ...
  int (*get)(const void* value) = nullptr;  // ... which these read and write.
  void (*set)(void* value, int choice) = nullptr;
};

// What the reader fills: the config, and what only the file knows.
struct PolicyFile : Config {
  std::string version;
  Pool defaults;
};

// The whole file; its object is a PolicyFile.
const Section& FileSection();

// Reads `text` into the field's value. Returns what is wrong with it, or "".
// REQUIRES: the kind is a plain value, from kName to kChoice but not kTexts.
std::string StoreScalar(const Field& field, std::string_view text, void* object);

// What is wrong with text that holds control characters, of which no value has any, or "".
std::string CheckControls(std::string_view text);

// The value as a policy file spells it; secrets are masked.
// REQUIRES: the kind is not kSection or kList.
std::string ShowScalar(const Field& field, const void* object);

// "duration, 1ms to 1h": what the field takes, for people.
std::string DescribeKind(const Field& field);

}  // namespace penstock::config
