#include "config/yaml_tree.h"

#include <gtest/gtest.h>

#include "config/parse.h"

namespace penstock::config {
namespace {

std::string Wrong(std::string_view text) {
  std::vector<Diagnostic> diagnostics;
  ReadYaml(text, diagnostics);
  return diagnostics.empty() ? "" : ToString(diagnostics[0]);
}

TEST(YamlTree, RemembersWhereEverythingStands) {
  std::vector<Diagnostic> diagnostics;
  const YamlNode root = ReadYaml("a: 1\nb:\n  - x\n  - {y: 2}\n", diagnostics);
  ASSERT_TRUE(diagnostics.empty());
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  EXPECT_EQ(root.Get("a")->scalar, "1");
  const YamlNode& list = *root.Get("b");
  ASSERT_EQ(list.items.size(), 2u);
  EXPECT_EQ(list.items[0].where.line, 3);
  EXPECT_EQ(list.items[0].where.column, 5);
  EXPECT_EQ(list.items[1].Get("y")->where.column, 9);
  EXPECT_EQ(root.Get("c"), nullptr);
}

TEST(YamlTree, AnEmptyValueStandsWhereItsKeyDoes) {
  std::vector<Diagnostic> diagnostics;
  const YamlNode root = ReadYaml("a:\n\n\nb: 1\n", diagnostics);
  EXPECT_EQ(root.Get("a")->kind, YamlNode::Kind::kNothing);
  EXPECT_EQ(root.Get("a")->where.line, 1);
}

TEST(YamlTree, RefusesWhatIsNotYaml) {
  const std::string cure = "; look at quotes, brackets and indentation (spaces alone) there and above";
  EXPECT_EQ(Wrong("a: \"open\n"), ":1:9: not YAML: illegal EOF in scalar" + cure);
  EXPECT_EQ(Wrong("a: 1\n\tb: 2\n"), ":2:1: not YAML: illegal tab when looking for indentation" + cure);
  EXPECT_EQ(Wrong("a: [1, 2\n").substr(0, 14), ":1:1: not YAML");
  EXPECT_EQ(Wrong(std::string_view("a: \0b\n", 6)),
            ":1:4: a control character; is this a text file?");
  EXPECT_EQ(Wrong("a: 1\nb: x\xffy\n"), ":2:5: a byte that is not UTF-8; is this a text file?");
  EXPECT_EQ(Wrong("a: caf\xc3\xa9\n"), "");
}

TEST(YamlTree, RefusesAliasesAndMergeKeys) {
  EXPECT_EQ(Wrong("a: &x 1\nb: *x\n"),
            ":1:4: anchors (&name) are not supported; write the value out, or use `defaults`");
  EXPECT_EQ(Wrong("a: {<<: {b: 1}}\n"), ":1:5: merge keys (<<) are not supported; use `defaults`");
  EXPECT_EQ(Wrong("? [a]\n: 1\n"), ":1:3: a key is a word, not a map or a list");
}

TEST(YamlTree, EndsAtItsLimits) {
  EXPECT_EQ(Wrong(std::string(17, '[') + std::string(17, ']')),
            ":1:17: nested deeper than 16 levels");
  std::string many = "[";
  for (int i = 0; i < 100'001; ++i) many += "1,";
  EXPECT_EQ(Wrong(std::string(20'001, '[')), ": more than 20000 brackets");
  EXPECT_NE(Wrong(many + "]").find("more than 100000 values"), std::string::npos);
}

// Each is as large as a policy file may be, and refused without a crash.
TEST(YamlTree, HostileDocumentsAreRefused) {
  constexpr size_t kBytes = 1024 * 1024;
  const auto repeat = [](std::string_view piece) {
    std::string text;
    while (text.size() + piece.size() <= kBytes) text += piece;
    return text;
  };
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 1000; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    laughs +=
        "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before + "," + before + "]\n";
  }
  std::string staircase;
  for (int i = 0; i < 1000; ++i) staircase += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  for (const std::string& text :
       {repeat("["), repeat("{"), repeat("- "), repeat("a: "), repeat("? "), repeat("[{"),
        repeat("a:\n"), repeat("x"), repeat("\n"), repeat("&a "), repeat("!"), repeat("'"),
        repeat("|\n"), repeat("---\n"), repeat("- a\n"), repeat("%YAML 1.2\n"), repeat("\xff\xfe"),
        laughs, staircase}) {
    EXPECT_FALSE(Parse(text, "p").ok()) << text.substr(0, 20);
  }
}

}  // namespace
}  // namespace penstock::config
