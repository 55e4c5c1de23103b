#include "config/parse.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "config/file.h"

namespace penstock::config {
namespace {

// One pool is all that a file must have.
constexpr std::string_view kPool =
    "version: v1\n"
    "pools:\n"
    "  - name: chat\n"
    "    backends: [\"a:1\"]\n";

const Outside& Room() {
  static const Outside outside = {
      .environment = [](const std::string& name) -> std::optional<std::string> {
        if (name == "HOME_PORT") return "9001";
        if (name == "EMPTY") return "";
        return std::nullopt;
      },
      .read_file = [](const std::string& path) -> absl::StatusOr<std::string> {
        if (path == "/etc/penstock/key") return "secret-1\n";
        if (path == "/keys") return "# ours\nalpha\n\nbeta\n";
        return absl::NotFoundError("cannot read " + path + ": No such file or directory");
      },
  };
  return outside;
}

ParseResult Read(std::string_view text) { return Parse(text, "/etc/penstock/p.yaml", Room()); }

// Messages without the file's name.
std::string Wrong(std::string_view text) {
  std::string messages;
  for (Diagnostic diagnostic : Read(text).diagnostics) {
    diagnostic.file.clear();
    const std::string line = ToString(diagnostic);  // ":LINE:COLUMN: ..." or ": ..."
    messages += line.substr(line.starts_with(": ") ? 2 : 1) + "\n";
  }
  return messages;
}

std::string WrongPool(std::string_view more) {
  return Wrong(std::string(kPool) + std::string(more));
}

TEST(Parse, AFileOfOnePoolHasEveryDefault) {
  const ParseResult result = Read(kPool);
  ASSERT_TRUE(result.ok()) << result.Messages();
  const Config& config = *result.config;
  ASSERT_EQ(config.server.listeners.size(), 1u);
  EXPECT_EQ(config.server.listeners[0].address, "127.0.0.1:8080");
  ASSERT_EQ(config.pools.size(), 1u);
  EXPECT_EQ(config.pools[0].load_balancing.algorithm, "weighted_score");
  EXPECT_EQ(config.pools[0].backends[0].name, "a:1");
  EXPECT_EQ(config.pools[0].backends[0].where.line, 4);
  EXPECT_EQ(config.pools[0].timeouts.connect, absl::Seconds(1));
}

TEST(Parse, ReadsEachKindOfValue) {
  const ParseResult result = Read(
      "version: v1\n"
      "server:\n"
      "  workers: 3\n"
      "  limits: {request_body: 1.5MiB, json_depth: 32}\n"
      "pools:\n"
      "  - name: chat\n"
      "    models: [one, {name: two, aliases: [zwei, deux]}]\n"
      "    backends: [{address: \"[::1]:${HOME_PORT}\", weight: 0.5}, \"${HOST:-engine}:2\"]\n"
      "    circuit_breaker: {enabled: false, max_ejection: 12.5%}\n"
      "    timeouts: {connect: 250ms, first_token: 2m}\n"
      "    load_balancing: {alpha: 0.7}\n"
      "    auth: {mode: require, keys_file: /keys}\n");
  ASSERT_TRUE(result.ok()) << result.Messages();
  const Pool& pool = result.config->pools[0];
  EXPECT_EQ(result.config->server.workers, 3u);
  EXPECT_EQ(result.config->server.limits.request_body, 3u * 512 * 1024);
  EXPECT_EQ(pool.models[1].aliases, (std::vector<std::string>{"zwei", "deux"}));
  EXPECT_EQ(pool.backends[0].address, "[::1]:9001");
  EXPECT_EQ(pool.backends[0].weight, 0.5);
  EXPECT_EQ(pool.backends[1].address, "engine:2");
  EXPECT_FALSE(pool.circuit_breaker.enabled);
  EXPECT_EQ(pool.circuit_breaker.max_ejection, 0.125);
  EXPECT_EQ(pool.timeouts.connect, absl::Milliseconds(250));
  EXPECT_EQ(pool.load_balancing.params[0].key, "alpha");
  EXPECT_EQ(pool.load_balancing.params[0].where.line, 11);
  EXPECT_EQ(pool.auth.mode, AuthMode::kRequire);
  EXPECT_EQ(pool.auth.keys, (std::vector<std::string>{"alpha", "beta"}));
}

TEST(Parse, APoolBeginsAsACopyOfTheDefaultsWhereverTheyStand) {
  const ParseResult result = Read(
      "version: v1\n"
      "pools:\n"
      "  - {name: a, models: [m], backends: [\"a:1\"], timeouts: {idle: 5s}}\n"
      "  - {name: b, models: [n], backends: [\"b:1\"], load_balancing: {beta: 2}}\n"
      "  - {name: c, models: [o], backends: [\"c:1\"], load_balancing: {algorithm: random}}\n"
      "defaults: {timeouts: {connect: 3s}, load_balancing: {alpha: 1, beta: 1}}\n");
  ASSERT_TRUE(result.ok()) << result.Messages();
  const auto& pools = result.config->pools;
  EXPECT_EQ(pools[0].timeouts.connect, absl::Seconds(3));
  EXPECT_EQ(pools[0].timeouts.idle, absl::Seconds(5));
  EXPECT_EQ(pools[1].load_balancing.params.size(), 2u);
  EXPECT_EQ(pools[1].load_balancing.params.back().value, "2");
  EXPECT_TRUE(pools[2].load_balancing.params.empty()) << "alpha is a setting of another algorithm";
}

TEST(Parse, AKeyComesFromAFileBesideThePolicyOrFromTheEnvironment) {
  const std::string auth = std::string(kPool) + "    auth: {mode: replace, ";
  EXPECT_EQ(Read(auth + "key_file: key}\n").config->pools[0].auth.key, "secret-1");
  EXPECT_EQ(Read(auth + "key: \"${NONE:-fallback}\"}\n").config->pools[0].auth.key, "fallback");
}

struct Case {
  std::string_view text;  // After kPool, or a whole file if it begins with "version".
  std::string_view message;

  friend void PrintTo(const Case& one, std::ostream* out) { *out << one.text; }
};

class Refuses : public testing::TestWithParam<Case> {};

TEST_P(Refuses, WithThePlaceAndTheCure) {
  const auto& [text, message] = GetParam();
  const std::string found =
      text.starts_with("version") || text.empty() ? Wrong(text) : WrongPool(text);
  EXPECT_EQ(found, message);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, Refuses,
    testing::Values(
        Case{"    timeouts: {conect: 1s}\n",
             "5:16: pools[0].timeouts: unknown field \"conect\"; did you mean \"connect\"?\n"},
        Case{"timout: 1s\n",
             "5:1: unknown field \"timout\"; known: version, server, defaults, pools, routes, "
             "caches, "
             "observability\n"},
        Case{"    timeouts: {connect: 15}\n",
             "5:25: pools[0].timeouts.connect: \"15\" has no unit; write 15ms, 15s, 15m or 15h\n"},
        Case{"    timeouts: {connect: 0ms}\n",
             "5:25: pools[0].timeouts.connect: \"0ms\" is out of range; allowed: 1ms to 1h\n"},
        Case{"    timeouts: {connect: -1s}\n",
             "5:25: pools[0].timeouts.connect: \"-1s\" is not a duration; write it like 15ms, 15s, "
             "15m or 15h\n"},
        Case{"    timeouts: {connect: 1 s}\n",
             "5:25: pools[0].timeouts.connect: \"1 s\" is not a duration; write it like 15ms, 15s, "
             "15m or 15h\n"},
        Case{"    timeouts: 1s\n",
             "5:15: pools[0].timeouts: expected a map of fields, found a single value\n"},
        Case{"    timeouts: [1s]\n",
             "5:15: pools[0].timeouts: expected a map of fields, found a list\n"},
        Case{"    timeouts: {connect: [1s]}\n",
             "5:25: pools[0].timeouts.connect: expected duration, 1ms to 1h, found a list\n"},
        Case{"    timeouts:\n",
             "5:5: pools[0].timeouts: has no value; give it one or leave the line out\n"},
        Case{"    cache: \"\"\n",
             "5:12: pools[0].cache: is empty; give it a value or leave the line out\n"},
        Case{"    cache: ${EMPTY}\n",
             "5:12: pools[0].cache: is empty; give it a value or leave the line out\n"},
        Case{"    cache: ${MISSING}\n",
             "5:12: pools[0].cache: the environment has no MISSING; set it, or write "
             "${MISSING:-DEFAULT}\n"},
        Case{"    cache: ${MISSING\n", "5:12: pools[0].cache: \"${MISSING\" lacks the closing }\n"},
        Case{"    cache: a b\n",
             "5:12: pools[0].cache: \"a b\" is not a name; letters, digits and . _ - : / @ [ ] "
             "only\n"},
        Case{"    retry: {budget: 0.5}\n",
             "5:21: pools[0].retry.budget: \"0.5\" has no unit; write 15%\n"},
        Case{"    retry: {budget: 120%}\n",
             "5:21: pools[0].retry.budget: \"120%\" is out of range; allowed: 0% to 100%\n"},
        Case{"    retry: {attempts: 1_0}\n",
             "5:23: pools[0].retry.attempts: \"1_0\" is not a whole number; allowed: 0 to 10\n"},
        Case{"    retry: {attempts: 010}\n",
             "5:23: pools[0].retry.attempts: \"010\" is not a whole number; allowed: 0 to 10\n"},
        Case{"    retry: {attempts: 99}\n",
             "5:23: pools[0].retry.attempts: \"99\" is out of range; allowed: 0 to 10\n"},
        Case{"    health_check: {enabled: yes}\n",
             "5:29: pools[0].health_check.enabled: \"yes\" is not one of false, true\n"},
        Case{"    health_check: {path: health}\n",
             "5:26: pools[0].health_check.path: \"health\" is not a path; it begins with / and has "
             "no "
             "space, ? or #\n"},
        Case{"    auth: {mode: replaced}\n",
             "5:18: pools[0].auth.mode: \"replaced\" is not one of pass, replace, require; did you "
             "mean "
             "\"replace\"?\n"},
        Case{"    auth: {mode: replace, key: sk-123}\n",
             "5:32: pools[0].auth.key: a secret does not stand in the policy file; write ${NAME}, "
             "or use "
             "key_file\n"},
        Case{"    auth: {mode: replace, key_file: gone}\n",
             "5:37: pools[0].auth.key_file: cannot read /etc/penstock/gone: No such file or "
             "directory\n"},
        Case{"server: {workers: 0}\n",
             "5:19: server.workers: \"0\" is out of range; allowed: 1 to 64\n"},
        Case{"server: {workers: many}\n",
             "5:19: server.workers: \"many\" is not a whole number; allowed: auto, or 1 to 64\n"},
        Case{"server: {limits: {request_body: 10MB}}\n",
             "5:33: server.limits.request_body: \"10MB\" is not a size; write it like 15B, 15KiB, "
             "15MiB or "
             "15GiB\n"},
        Case{"server: {listeners: [\"0.0.0.0:70000\"]}\n",
             "5:22: server.listeners[0].address: \"70000\" is not a port; allowed: 0 to 65535\n"},
        Case{"server: {listeners: [\":8080\"]}\n",
             "5:22: server.listeners[0].address: \":8080\" has no host; write it like 0.0.0.0:8080 "
             "or "
             "[::]:8080\n"},
        Case{"server: {listeners: [\"[::1]\"]}\n",
             "5:22: server.listeners[0].address: \"[::1]\" has no port; write it like 0.0.0.0:8080 "
             "or "
             "[::]:8080\n"}));

INSTANTIATE_TEST_SUITE_P(
    Files, Refuses,
    testing::Values(
        Case{"", "is empty; begin with version: v1 and pools:\n"},
        Case{"version: v1\n", "1:1: has no \"pools\", which is required\n"},
        Case{"version: v2\npools: []\n",
             "1:10: version: \"v2\" is not known; this penstock reads v1\n"},
        Case{"version: v1\npools: []\n",
             "2:8: pools: is empty; a proxy needs a pool to send requests to\n"},
        Case{"version: v1\npools: [{name: a, backends: [\"http://h:1\"]}]\n",
             "2:30: pools[0].backends[0].address: \"http://h:1\" is a URL; write host and port "
             "alone, like "
             "10.0.0.11:8000, [fd00::1]:8000 or engine-1:8000\n"},
        Case{"version: v1\npools: [{name: a, backends: [{weight: 1}]}]\n",
             "2:30: pools[0].backends[0]: has no \"address\", which is required\n"},
        Case{"version: v1\npools: [{name: a, backends: [{address: \"h:1\", weight: 0}]}]\n",
             "2:55: pools[0].backends[0].weight: \"0\" is out of range; allowed: 0.001 to "
             "1000000\n"},
        Case{"version: v1\nversion: v1\npools: [{name: a, backends: [\"h:1\"]}]\n",
             "2:1: \"version\" is given twice; the first is on line 1\n"},
        Case{"version: v1\npools: &p [{name: a, backends: [\"h:1\"]}]\n",
             "2:8: anchors (&name) are not supported; write the value out, or use `defaults`\n"},
        Case{"version: !!str v1\npools: [{name: a, backends: [\"h:1\"]}]\n",
             "1:10: tags (tag:yaml.org,2002:str) are not supported; leave it out\n"},
        Case{"version: v1\npools: [{name: a, backends: [\"h:1\"]}]\n---\nmore: 1\n",
             "4:1: a second document (---); a policy file has one\n"}));

TEST(Parse, FindsEveryErrorInOneReading) {
  EXPECT_EQ(Wrong("version: v1\n"
                  "server: {workers: -1}\n"
                  "pools:\n"
                  "  - name: a\n"
                  "    backends: [\"a\"]\n"
                  "    quue: {max: 1}\n"),
            "2:19: server.workers: \"-1\" is not a whole number; allowed: auto, or 1 to 64\n"
            "5:16: pools[0].backends[0].address: \"a\" has no port; write it like 10.0.0.11:8000, "
            "[fd00::1]:8000 or engine-1:8000\n"
            "6:5: pools[0]: unknown field \"quue\"; did you mean \"queue\"?\n");
}

TEST(Parse, VersionIsTheFirstField) {
  EXPECT_EQ(Wrong("pools: [{name: a, backends: [\"h:1\"]}]\nversion: v1\n"),
            "2:10: version: is not the first field of the file; move it up\n");
}

TEST(Parse, StopsListingErrorsAtALimit) {
  std::string text(kPool);
  for (int i = 0; i < 200; ++i) text += "key" + std::to_string(i) + ": 1\n";
  const ParseResult result = Read(text);
  EXPECT_EQ(result.diagnostics.size(), kDiagnosticsMax + 1);
  EXPECT_EQ(result.diagnostics.back().message, "... and 150 more");
}

TEST(Parse, AListEndsAtItsLimit) {
  std::string text = "version: v1\npools:\n  - name: a\n    backends:\n";
  for (int i = 0; i < 1025; ++i) text += "      - h" + std::to_string(i) + ":1\n";
  EXPECT_EQ(Wrong(text), "5:7: pools[0].backends: has 1025 entries; allowed: 1024\n");
}

TEST(Parse, TheHashIsThatOfTheText) {
  EXPECT_EQ(Read(kPool).config->hash, Read(kPool).config->hash);
  EXPECT_NE(Read(kPool).config->hash, Read(std::string(kPool) + "\n").config->hash);
}

TEST(Parse, KnowsWhereAFieldStands) {
  const ParseResult result = Read(kPool);
  EXPECT_EQ(Find(result.where, "pools[0].name").line, 3);
  EXPECT_EQ(Find(result.where, "pools[0].timeouts.connect").line, 3) << "the pool around it";
  EXPECT_EQ(Find(result.where, "server.workers").line, 0) << "a default";
}

TEST(LoadFile, SaysWhyAFileCannotBeRead) {
  EXPECT_EQ(LoadFile("/no/such/policy.yaml").Messages(),
            "/no/such/policy.yaml: cannot read /no/such/policy.yaml: No such file or directory\n");
  EXPECT_EQ(LoadFile("/tmp").Messages(), "/tmp: cannot read /tmp: it is not a regular file\n");
  EXPECT_EQ(LoadFile("/dev/zero").Messages(),
            "/dev/zero: cannot read /dev/zero: it is not a regular file\n");
}

}  // namespace
}  // namespace penstock::config
