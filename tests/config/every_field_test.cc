// Each field of the table alone, in a file that is otherwise good, with what it must
// not take: blank, of another kind, just outside its range. A field that is added is
// held to the same without a line here.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "config/field.h"
#include "config/parse.h"
#include "fmt/format.h"

namespace penstock::config {
namespace {

const Outside& Sealed() {
  static const Outside outside = {
      .environment = [](const std::string&) { return std::nullopt; },
      .read_file = [](const std::string&) -> absl::StatusOr<std::string> {
        return absl::NotFoundError("no files here");
      },
  };
  return outside;
}

// The maps from the file down to a field; the last one is the field itself.
using Steps = std::vector<const Field*>;

void ForEachField(const Section& section, Steps& steps, const std::function<void(const Steps&)>& call) {
  for (const Field& field : section.fields) {
    steps.push_back(&field);
    call(steps);
    if (field.section != nullptr) ForEachField(*field.section, steps, call);
    steps.pop_back();
  }
}

void ForEachField(const std::function<void(const Steps&)>& call) {
  Steps steps;
  ForEachField(FileSection(), steps, call);
}

std::string NameOf(const Steps& steps) {
  std::string name;
  for (const Field* field : steps) {
    name += fmt::format("{}{}{}", name.empty() ? "" : ".", field->key,
                        field->kind == Kind::kList ? "[]" : "");
  }
  return name;
}

std::string Map(const Section& section, const Steps& steps, size_t depth, const std::string& value);

// Something good for a field that has to be there.
std::string Something(const Field& field) {
  if (field.key == "version") return "v1";
  if (field.kind == Kind::kAddress) return "engine:1";
  if (field.kind == Kind::kList) return "[" + Map(*field.section, {}, 0, "") + "]";
  return "some";
}

// The map of `section` in flow style: what it requires, and the step on the way.
std::string Map(const Section& section, const Steps& steps, size_t depth, const std::string& value) {
  std::string out;
  const Field* const wanted = depth < steps.size() ? steps[depth] : nullptr;
  for (const Field& field : section.fields) {
    std::string inside;
    if (&field == wanted) {
      inside = depth + 1 == steps.size() ? value : Map(*field.section, steps, depth + 1, value);
      if (depth + 1 < steps.size() && field.kind == Kind::kList) inside = "[" + inside + "]";
    } else if (field.required) {
      inside = Something(field);
    } else {
      continue;
    }
    out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", field.key, inside);
  }
  return "{" + out + "}";
}

ParseResult With(const Steps& steps, const std::string& value) {
  return Parse(Map(FileSection(), steps, 0, value) + "\n", "test.yaml", Sealed());
}

void ExpectRefused(const Steps& steps, const std::string& value) {
  const ParseResult result = With(steps, value);
  EXPECT_FALSE(result.ok()) << NameOf(steps) << ": " << value;
  for (const Diagnostic& diagnostic : result.diagnostics) {
    EXPECT_FALSE(diagnostic.message.empty());
    EXPECT_GT(diagnostic.where.line, 0) << NameOf(steps) << ": " << value << ": " << diagnostic.message;
  }
}

bool IsNumber(Kind kind) {
  return kind == Kind::kCount || kind == Kind::kCountOrAuto || kind == Kind::kBytes ||
         kind == Kind::kBytesOrAuto || kind == Kind::kDuration || kind == Kind::kShare ||
         kind == Kind::kNumber;
}

// A number in the words of its kind.
std::string Spelt(Kind kind, double number) {
  switch (kind) {
    case Kind::kDuration: return fmt::format("{:.4f}ms", number * 1000);
    case Kind::kBytes:
    case Kind::kBytesOrAuto: return fmt::format("{:.0f}B", number);
    case Kind::kShare: return fmt::format("{:.4f}%", number * 100);
    case Kind::kNumber: return fmt::format("{:.4f}", number);
    default: return fmt::format("{:.0f}", number);
  }
}

TEST(EveryField, StandsInAFileThatIsOtherwiseGood) {
  int fields = 0;
  ForEachField([&](const Steps&) { ++fields; });
  EXPECT_GT(fields, 80);
  EXPECT_TRUE(Parse(Map(FileSection(), {}, 0, "") + "\n", "test.yaml", Sealed()).ok());
}

TEST(EveryField, IsNeverBlank) {
  ForEachField([](const Steps& steps) {
    for (const char* blank : {"", "~", "null", "\"\"", "''"}) ExpectRefused(steps, blank);
  });
}

TEST(EveryField, TakesNoOtherKind) {
  ForEachField([](const Steps& steps) {
    const Kind kind = steps.back()->kind;
    const bool map = kind == Kind::kSection;
    const bool list = kind == Kind::kList || kind == Kind::kTexts;
    if (!map) ExpectRefused(steps, "{a: 1}");
    if (!map) ExpectRefused(steps, "{}");
    if (!list) ExpectRefused(steps, "[some]");
    if (!list) ExpectRefused(steps, "[]");
    if (list) ExpectRefused(steps, "[[some]]");
    if (map || list) ExpectRefused(steps, "some");
    // What else stands there is for the balancing algorithm to judge.
    if (map && steps.back()->section->params == nullptr) ExpectRefused(steps, "{no_such_field: 1}");
    if (!map && !list) ExpectRefused(steps, "\"a\\nb\"");
  });
}

TEST(EveryField, HoldsNoControlCharacter) {
  ForEachField([](const Steps& steps) {
    const Field& field = *steps.back();
    if (field.kind == Kind::kSection || field.kind == Kind::kList) return;
    if (field.kind == Kind::kSecretFile || field.kind == Kind::kSecretsFile) return;  // No such file anyway.
    for (const char* value : {"\"a\\0b\"", "\"a\\tb\"", "\"a\\e[31m\"", "\"\\x7f\"", "\"a\\rb\"", "\"a\\nb\""}) {
      const std::string text = field.kind == Kind::kTexts ? fmt::format("[{}]", value) : value;
      ExpectRefused(steps, text);
      if (field.kind == Kind::kSecret) continue;  // Refused as one that stands in the file.
      const std::string messages = With(steps, text).Messages();
      EXPECT_TRUE(messages.find("control character") != std::string::npos ||
                  messages.find("takes one line") != std::string::npos)
          << NameOf(steps) << ": " << value << ": " << messages;
    }
  });
}

TEST(EveryField, ThatIsASecretHoldsNoControlCharacterWhereverItComesFrom) {
  const std::string head = "version: v1\npools:\n  - name: a\n    backends: [e:1]\n    auth: {mode: replace, ";
  for (const char* field : {"key: \"${KEY}\"", "key_file: keys"}) {
    const Outside outside = {
        .environment = [](const std::string&) { return "ab\x01" "c"; },
        .read_file = [](const std::string&) -> absl::StatusOr<std::string> { return "ab\x01" "c\n"; },
    };
    const std::string messages = Parse(head + field + "}\n", "test.yaml", outside).Messages();
    EXPECT_NE(messages.find("has the control character 0x01 as its byte 3; take it out"), std::string::npos)
        << messages;
    EXPECT_NE(messages.find("test.yaml:5:"), std::string::npos) << messages;
    EXPECT_EQ(messages.find("ab"), std::string::npos) << messages;  // Of a secret nothing is shown.
  }
}

TEST(EveryField, ThatIsANumberTakesNothingThatLooksLikeOne) {
  ForEachField([](const Steps& steps) {
    if (!IsNumber(steps.back()->kind)) return;
    for (const char* value :
         {"-1", "-1s", "-5%", "+1", "010", "1_000", "0x10", "1e3", "1e999", ".nan", ".inf", "-.inf", "nan",
          "yes", "true", "some", "1 2", "1,5", "99999999999999999999999999", "1.", ".5", "1s1s", "5 %",
          "10M", "1KB", "1d", "١"}) {
      ExpectRefused(steps, value);
    }
  });
}

TEST(EveryField, ThatIsANumberEndsAtItsRange) {
  ForEachField([](const Steps& steps) {
    const Field& field = *steps.back();
    if (!IsNumber(field.kind)) return;
    const bool whole = field.kind != Kind::kDuration && field.kind != Kind::kShare &&
                       field.kind != Kind::kNumber;
    const double step = whole ? 1 : 0.0001;
    // `auto` is 0, which is no number of such a field.
    if (field.min >= step) ExpectRefused(steps, Spelt(field.kind, field.min - step));
    ExpectRefused(steps, Spelt(field.kind, field.max + std::max(step, field.max * 0.01)));
    ExpectRefused(steps, Spelt(field.kind, field.max * 1000));
    // Within it, whatever else is wrong is between fields, not the field's own.
    for (const double number : {field.min, field.max}) {
      const ParseResult result = With(steps, Spelt(field.kind, number));
      EXPECT_EQ(result.Messages().find("out of range"), std::string::npos)
          << NameOf(steps) << ": " << result.Messages();
    }
  });
}

TEST(EveryField, ThatIsAWordTakesNoOther) {
  ForEachField([](const Steps& steps) {
    const Kind kind = steps.back()->kind;
    if (kind != Kind::kFlag && kind != Kind::kChoice) return;
    for (const char* value : {"yes", "no", "on", "1", "0", "True", "TRUE", "truee", "none", "\"true \""}) {
      ExpectRefused(steps, value);
    }
  });
}

TEST(EveryField, ThatIsAnAddressNamesHostAndPort) {
  ForEachField([](const Steps& steps) {
    const Kind kind = steps.back()->kind;
    if (kind != Kind::kAddress && kind != Kind::kBindAddress) return;
    for (const char* value : {"a", "a:", "\":1\"", "a:65536", "a:70000", "a:-1", "a:1:2", "http://a:1", "\"a b:1\"",
                              "a:01", "\"[::1]\"", "\"[::1:80\"", "\"a:1/x\"", "a:1e3"}) {
      ExpectRefused(steps, value);
    }
  });
}

}  // namespace
}  // namespace penstock::config
