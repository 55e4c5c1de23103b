// What must hold for any bytes as a request's target: what is accepted is in its one
// spelling, which means itself, and the strict rule accepts the same paths or none.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "proxy/base/check.h"
#include "proxy/http/codec_limits.h"
#include "proxy/http/request_target.h"

namespace penstock {

struct TargetRead {
  std::string target, path;
};
inline std::optional<TargetRead> ReadTargetOf(std::string_view target, PathRule rule) {
  RequestHead head{.method = "GET", .target = target};
  std::string storage;
  if (ReadTarget(head, rule, storage)) return std::nullopt;
  CHECK(head.target.starts_with(head.path));
  return TargetRead{std::string(head.target), std::string(head.path)};
}

inline void FuzzRequestTarget(std::string_view target) {
  const std::optional<TargetRead> read = ReadTargetOf(target, PathRule::kNormalize);
  const std::optional<TargetRead> strict = ReadTargetOf(target, PathRule::kStrict);
  if (!read) {
    CHECK(!strict);
    return;
  }
  CHECK(!strict || (strict->target == read->target && strict->path == read->path));
  const std::string& path = read->path;
  CHECK(path.starts_with('/') && path.size() <= target.size());
  const std::string closed = path + "/";
  for (const std::string_view bad : {"/./", "/../", "%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%00", "\\", "#", "?"}) {
    CHECK(closed.find(bad) == std::string::npos);
  }
  CHECK(path.find("//") == std::string::npos);
  for (const PathRule rule : {PathRule::kNormalize, PathRule::kStrict}) {
    const std::optional<TargetRead> again = ReadTargetOf(read->target, rule);
    CHECK(again && again->target == read->target && again->path == path);
  }
}

}  // namespace penstock
