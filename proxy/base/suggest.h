// "Did you mean ...?": the known word nearest to one that is not known.
//
// Two words are near when few letters were typed wrong, left out, added or
// swapped with their neighbour: at most one in three, so that a guess is
// offered only when it is likely to be right.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace penstock {

inline constexpr size_t kSuggestLength = 48;  // Longer words get no suggestion.

// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`.
// REQUIRES: both are at most kSuggestLength long.
inline size_t EditDistance(std::string_view a, std::string_view b) {
  std::array<std::array<size_t, kSuggestLength + 1>, 3> rows;
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    auto& row = rows[i % 3];
    const auto& above = rows[(i + 2) % 3];
    const auto& above_that = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], above_that[j - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

// The nearest of `known` (any range of things that convert to string_view), or
// an empty view when none is near. The view is into `known`.
template <typename Range>
std::string_view Nearest(std::string_view word, const Range& known) {
  std::string_view best;
  if (word.empty() || word.size() > kSuggestLength) return best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const auto& entry : known) {
    const std::string_view candidate = entry;
    if (candidate.empty() || candidate.size() > kSuggestLength) continue;
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace penstock
