// The shipped policy files and the page about them say what the field table says.
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <sstream>

#include "config/field.h"
#include "config/file.h"
#include "config/parse.h"
#include "config/schema.h"
#include "config/show.h"

namespace penstock::config {
namespace {

std::string Source(const std::string& path) {
  const auto text = ReadFileText(std::string(PENSTOCK_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(text.ok()) << path;
  return text.ok() ? *text : "";
}

// Without the environment and the files of the machine that tests run on.
const Outside& Sealed() {
  static const Outside outside = {
      .environment = [](const std::string&) { return std::nullopt; },
      .read_file = [](const std::string&) -> absl::StatusOr<std::string> {
        return absl::NotFoundError("no files here");
      },
  };
  return outside;
}

void CollectPaths(const Section& section, const std::string& prefix, std::set<std::string>& paths) {
  for (const Field& field : section.fields) {
    const std::string path = prefix + std::string(field.key);
    const bool list = field.kind == Kind::kList;
    if (field.section != nullptr && field.key != "defaults") {
      CollectPaths(*field.section, path + (list ? "[]." : "."), paths);
    } else if (field.kind != Kind::kSecretFile && field.kind != Kind::kSecretsFile) {
      paths.insert(path);
    }
  }
}

// "pools[3].name" as "pools[].name"; what `defaults` say, a pool says.
std::string WithoutIndices(std::string path) {
  if (path.starts_with("defaults.")) path.replace(0, sizeof("defaults"), "pools[].");
  std::erase_if(path, [inside = false](char c) mutable {
    inside = c == '[' || (inside && c != ']');
    return inside && c != '[';
  });
  return path;
}

TEST(ShippedPolicies, LoadWithoutAWarning) {
  for (const char* path :
       {"config/example.yaml", "config/tls.yaml", "config/quickstart.yaml", "tests/bench/proxy_cost.yaml"}) {
    const ParseResult result = Parse(Source(path), path, Sealed());
    EXPECT_TRUE(result.ok());
    EXPECT_EQ(result.Messages(), "") << path;
  }
}

TEST(ExamplePolicy, HasEveryField) {
  const std::string text = Source("config/example.yaml");
  std::set<std::string> missing;
  CollectPaths(FileSection(), "", missing);
  missing.erase("defaults");
  for (const char* file : {"config/example.yaml", "config/tls.yaml"}) {
    for (const auto& [path, where] : Parse(Source(file), file, Sealed()).where) {
      missing.erase(WithoutIndices(path));
    }
  }
  EXPECT_EQ(missing, std::set<std::string>{}) << "add them to config/example.yaml, with a comment";
  // Only one of the three can be used at a time.
  EXPECT_NE(text.find("key_file"), std::string::npos);
  EXPECT_NE(text.find("keys_file"), std::string::npos);
}

TEST(ExamplePolicy, SaysTheDefaultsWhereItSaysNothingElse) {
  // What the example sets on purpose is below pools, routes and caches.
  const ParseResult example = Parse(Source("config/example.yaml"), "example.yaml", Sealed());
  const ParseResult bare =
      Parse("version: v1\npools: [{name: internal, backends: [\"a:1\"]}]\n", "bare", Sealed());
  ASSERT_TRUE(example.ok() && bare.ok());
  for (const Change& change : Diff(*bare.config, *example.config)) {
    const bool own = change.path.starts_with("pools[chat]") || change.path.starts_with("routes") ||
                     change.path.starts_with("caches") ||
                     change.path.starts_with("server.listeners[behind-balancer]") ||
                     change.path == "server.forwarding.xff_trusted_cidrs" ||
                     change.path == "server.forwarding.via" ||
                     change.path == "server.forwarding.internal_only_headers" ||
                     change.path.starts_with("pools[internal].backends");
    const bool param = change.path.starts_with("pools[internal].load_balancing.");
    EXPECT_TRUE(own || param) << change.path << ": " << change.before << " -> " << change.after;
  }
}

// Every line `key: value` of the example, as (text before, value, text after).
struct Line {
  std::string before, value, after;
};

std::vector<Line> ValueLines() {
  const std::string text = Source("config/example.yaml");
  std::vector<Line> lines;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    const size_t colon = text.find(": ", begin);
    if (colon >= end || text.find('#', begin) < colon) continue;
    const size_t value = colon + 2;
    const size_t value_end = std::min(text.find_first_of(" \n", value), text.size());
    if (std::string_view(" [{#").find(text[value]) != std::string_view::npos) continue;
    lines.push_back(
        {text.substr(0, value), text.substr(value, value_end - value), text.substr(end)});
  }
  return lines;
}

bool IsNumber(const Line& line) {
  const std::string key = line.before.substr(line.before.rfind('\n') + 1);
  for (const char* setting : {"alpha", "beta", "gamma", "delta"}) {
    if (key.find(setting) != std::string::npos) return false;  // Its policy's own to check.
  }
  return line.value.find_first_not_of("0123456789.mshBKMGi%") == std::string::npos;
}

TEST(ExamplePolicy, NoFieldMayBeBlank) {
  ASSERT_GT(ValueLines().size(), 60u);
  for (const Line& line : ValueLines()) {
    for (const char* blank : {"", "~", "null", "\"\"", "[]", "{}"}) {
      if (line.before.ends_with("auth:") && std::string_view(blank) == "{}") continue;
      EXPECT_FALSE(Parse(line.before + blank + line.after, "p", Sealed()).ok())
          << line.before.substr(line.before.rfind('\n') + 1) << blank;
    }
  }
}

TEST(ExamplePolicy, NoNumberMayBeSpeltOtherwise) {
  int fields = 0;
  for (const Line& line : ValueLines()) {
    if (!IsNumber(line)) continue;
    ++fields;
    for (const char* wrong :
         {"yes",          "010",   "1_000", "0x10",   ".nan",     ".inf",
          "-.inf",        "1e999", "1e3",   "-1",     "+1",       "-5s",
          "1,5s",         "5 s",   "s",     "%",      "1..2s",    "99999999999999999999999",
          "99999999999h", "true",  "[1s]",  "{a: 1}", "\xc2\xb2s"}) {
      EXPECT_FALSE(Parse(line.before + wrong + line.after, "p", Sealed()).ok())
          << line.before.substr(line.before.rfind('\n') + 1) << wrong;
    }
  }
  EXPECT_GT(fields, 40);
}

TEST(ExamplePolicy, MutationsAreRefusedOrMeanWhatTheyShow) {
  const std::string original = Source("config/example.yaml");
  constexpr std::string_view kPieces[] = {
      "\n", " ",   ":",  "- ",   "[",    "]",      "{",        "}",    "\"",   "'",
      "#",  "&a ", "*a", "<<: ", "!!x ", "|\n",    "---\n",    "\t",   "\xff", "0",
      "9",  "-",   "%",  "${",   "~",    "name: ", "pools:\n", "\r\n", "? "};
  for (uint32_t seed = 0; seed < 600; ++seed) {
    std::mt19937 random(seed);
    std::string text = original;
    for (uint32_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 5) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 40);
          break;
        case 2:
          text.insert(at, kPieces[random() % std::size(kPieces)]);
          break;
        case 3:
          text.insert(at, text.substr(random() % text.size(), random() % 60));
          break;
        default:
          text.resize(at + 1);
          break;
      }
      if (text.empty()) text = "x";
    }
    ParseResult result = Parse(text, "mutated", Sealed());
    ASSERT_EQ(result.ok(), std::all_of(result.diagnostics.begin(), result.diagnostics.end(),
                                       [](const Diagnostic& d) { return d.warning; }))
        << "seed " << seed;
    if (!result.ok()) continue;
    for (Pool& pool : result.config->pools) pool.auth = {};
    const std::string shown = Show(*result.config);
    const ParseResult again = Parse(shown, "shown", Sealed());
    ASSERT_TRUE(again.ok()) << "seed " << seed << "\n" << again.Messages() << shown;
    EXPECT_TRUE(Diff(*result.config, *again.config).empty()) << "seed " << seed;
  }
}

TEST(PolicyFilePage, HasTheTableOfTheFields) {
  const std::string page = Source("docs/policy-file.md");
  EXPECT_NE(page.find(MarkdownTable()), std::string::npos)
      << "put the output of `penstock schema --markdown` into docs/policy-file.md:\n"
      << MarkdownTable();
}

}  // namespace
}  // namespace penstock::config
