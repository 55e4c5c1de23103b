// The field table for others to read: editors and people.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace penstock::config {

// JSON Schema (draft 07) of a policy file. `algorithms` are the values that
// load_balancing.algorithm may have.
std::string JsonSchema(std::span<const std::string_view> algorithms);

// The table of docs/policy-file.md: field, what it takes, default, effect.
std::string MarkdownTable();

}  // namespace penstock::config
