// The JSON files of a checkpoint, read as hostile input: a size limit, a depth
// limit, no duplicate keys, valid UTF-8, nothing after the document. This is
// the one home of exceptions from nlohmann::json in load/: none leaves it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace penstock::engine {

inline constexpr int kJsonDepthMax = 64;

// `text` as it may stand in a one-line message: quoted, control bytes escaped,
// cut after 80 bytes.
std::string Quoted(std::string_view text);

// The whole of a regular file. Not found is NotFound; everything else that is
// wrong with the file is InvalidArgument. Never waits on a pipe or a device.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t bytes_max);

// `what` names the document in messages ("config.json").
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text, std::string_view what);

// Both of the above; `what` is the path.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, size_t bytes_max);

}  // namespace penstock::engine
