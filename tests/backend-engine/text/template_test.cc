#include "backend-engine/text/template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include <nlohmann/json.hpp>

#include "backend-engine/text/template_json.h"
#include "backend-engine/text/template_value.h"

namespace penstock::engine {
namespace {

const std::string kFolder = PENSTOCK_SOURCE_DIR "/tests/backend-engine/text/templates/";
const absl::Time kNow = absl::FromUnixSeconds(1700000000);  // 14 Nov 2023.

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

jinja::Dict Variables(const std::string& json) {
  const auto value = jinja::ParseJson(json, "variables");
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->dict() : jinja::Dict();
}

absl::StatusOr<std::string> Render(std::string_view source, const std::string& variables = "{}",
                                   const TemplateLimits& limits = {}) {
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(Variables(variables), kNow, limits);
}

std::string RenderError(std::string_view source, const TemplateLimits& limits = {}) {
  const auto text = Render(source, "{}", limits);
  return text.ok() ? "rendered" : std::string(text.status().message());
}

struct Case {
  std::string name;
  std::string source;
  std::string variables;
  std::optional<std::string> expected;  // Nothing: it must fail.
};

// What python3-jinja2 renders; tests/integration/chat_template_test.py makes
// the file and checks that it is true.
std::vector<Case> Cases() {
  const auto list = nlohmann::ordered_json::parse(ReadFile(kFolder + "cases.json"));
  const std::string shared = ReadFile(kFolder + "variables.json");
  std::vector<Case> cases;
  for (const auto& item : list) {
    Case one;
    one.name = item["name"];
    one.source = item["template"];
    if (one.source.starts_with('@')) one.source = ReadFile(kFolder + one.source.substr(1));
    one.variables = item.contains("variables") ? item["variables"].dump() : shared;
    if (item["expected"].is_string()) one.expected = item["expected"].get<std::string>();
    cases.push_back(std::move(one));
  }
  return cases;
}

TEST(Template, RendersWhatJinjaRenders) {
  for (const Case& one : Cases()) {
    const auto text = Render(one.source, one.variables);
    if (one.expected.has_value()) {
      EXPECT_EQ(text.ok() ? *text : text.status().ToString(), *one.expected)
          << one.name << "\n" << one.source.substr(0, 500);
    } else {
      EXPECT_FALSE(text.ok()) << one.name << ": " << one.source << "\nrendered: " << *text;
    }
  }
}

TEST(Template, ErrorsNameTheLineAndAreOneLine) {
  EXPECT_EQ(RenderError("a\nb{{ missing.x }}"), "chat template: line 2: 'missing' is undefined");
  EXPECT_EQ(RenderError("\n\n{% frob %}"),
            "chat template: line 3: no statement 'frob' for chat templates");
  EXPECT_EQ(RenderError("{{ 1|frob }}"), "chat template: line 1: no filter named 'frob'");
  EXPECT_EQ(RenderError("{{ raise_exception('roles') }}"), "chat template: roles");
  for (const char* refused : {"{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
                              "{% block x %}{% endblock %}"}) {
    EXPECT_NE(RenderError(refused).find("no statement"), std::string::npos) << refused;
  }
}

TEST(Template, GivesUpAtItsLimits) {
  const TemplateLimits small = {.steps = 10000, .bytes = 1 << 20, .output_bytes = 1 << 16};
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"{% for a in range(500) %}{% for b in range(500) %}{% endfor %}{% endfor %}", ""},
      {"{% for a in range(500) %}{% for b in 'xxxxxxxxxxxxxxx' %}{% if a * b %}{% endif %}{% endfor %}"
       "{% endfor %}", "steps"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"},
      {"{% for a in range(999) %}{{ 'x' * 99 }}{% endfor %}", "printed more"},
      {"{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
       "bytes"},
      {"{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
       "more than"},
      {"{% set n = namespace(s=[]) %}{% for a in range(999) %}{% set n.s = [n.s] %}{% endfor %}",
       "nested too deeply"},
      {"{% set n = namespace(s=[]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
       "{{ n.s }}", "more than"},
      {"{% set n = namespace(s=[]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
       "{{ n.s|tojson|length }}", "more than"},
      {"{% set n = namespace(s=[], t=[]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}"
       "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}", "steps"},
      {"{{ ('x' * 60000) | replace('x', 'y' * 60000) | length }}", "more than"},
      {"{{ ['x' * 60000] * 60000 | join }}", ""},
      {"{{ (['x' * 60000] * 1000) | join | length }}", "more than"},
      {"{{ 'x'|indent(999999999) }}", "too wide"},
      {"{{ 'x'|center(999999999) }}", "too wide"},
      {"{{ 'x'.zfill(999999999) }}", "a bad width"},
      {"{{ 2 ** 9999999999 }}", ""},
      {"{{ 1 ** 9999999999 ~ 0 ** 9999999999 ~ (-1) ** 9999999999 }}", ""},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"}};
  for (const auto& [source, expected] : cases) {
    const std::string error = RenderError(source, small);
    EXPECT_NE(error, "rendered") << source;
    EXPECT_NE(error.find(expected), std::string::npos) << source << ": " << error;
  }
}

TEST(Template, RefusesSourcesThatNestTooDeeply) {
  for (const char* unit : {"(", "[", "{", "not ", "-", "a[", "a(", "{% if 1 %}", "1 if 1 else ",
                           "a|default(", "{1:", "{% for x in y %}", "(1,"}) {
    std::string source = *unit == '{' && unit[1] == '%' ? "" : "{{ ";
    for (int i = 0; i < 100000; ++i) source += unit;
    EXPECT_NE(RenderError(source), "rendered") << unit;
  }
  std::string chain = "{{ 1";
  for (int i = 0; i < 100000; ++i) chain += " + 1";
  EXPECT_NE(RenderError(chain + " }}").find("nested too deeply"), std::string::npos);
  std::string calls = "{{ a";
  for (int i = 0; i < 100000; ++i) calls += ".b";
  EXPECT_NE(RenderError(calls + " }}").find("nested too deeply"), std::string::npos);
  EXPECT_NE(RenderError(std::string(kTemplateBytesMax + 1, 'x')).find("at most"),
            std::string::npos);
  EXPECT_NE(RenderError("\xff").find("UTF-8"), std::string::npos);
}

TEST(Template, ValuesThatHoldEachOtherAreFreed) {
  // The leak checker of the address sanitizer is the judge.
  const auto text = Render(
      "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b, a] %}"
      "{% for x in [a] %}{% set a.loop = [loop] %}{{ loop.changed(a.loop) }}{% endfor %}"
      "{% macro m() %}{% endmacro %}{% set a.m = m %}{{ a }}");
  EXPECT_TRUE(text.ok()) << text.status();
}

TEST(Template, SurvivesDamagedSources) {
  std::vector<Case> cases = Cases();
  const TemplateLimits small = {.steps = 20000, .bytes = 4 << 20, .output_bytes = 1 << 18};
  for (uint32_t seed = 0; seed < 6000; ++seed) {
    std::mt19937 random(seed);
    const Case& one = cases[random() % cases.size()];
    std::string source = one.source;
    for (uint32_t edits = 1 + random() % 5; edits > 0 && !source.empty(); --edits) {
      const size_t at = random() % source.size();
      switch (random() % 4) {
        case 0:
          source[at] = static_cast<char>(random() % 128);
          break;
        case 1:
          source.erase(at, 1 + random() % 10);
          break;
        case 2: {
          static constexpr const char* kBits[] = {"{{", "}}", "{%", "%}", "{#", "-", "|", "(", ")",
                                                  "[", "]", "'", "if", " in ", ".", "*", "**", ":",
                                                  "loop", "9", "None", "~", "is ", "not "};
          source.insert(at, kBits[random() % std::size(kBits)]);
          break;
        }
        default: {
          const std::string& other = cases[random() % cases.size()].source;
          const size_t from = random() % other.size();
          source.insert(at, other.substr(from, random() % 40));
        }
      }
    }
    const auto text = Render(source, one.variables, small);
    if (!text.ok()) {
      EXPECT_EQ(text.status().message().find('\n'), absl::string_view::npos)
          << "seed " << seed << ": " << text.status();
    }
  }
}

}  // namespace
}  // namespace penstock::engine
