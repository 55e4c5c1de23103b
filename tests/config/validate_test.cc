#include "config/validate.h"

#include <gtest/gtest.h>

#include "config/parse.h"

namespace penstock::config {
namespace {

const Outside& Nothing() {
  static const Outside outside = {
      .environment = [](const std::string&) { return std::nullopt; },
      .read_file = [](const std::string&) -> absl::StatusOr<std::string> { return "key\n"; },
  };
  return outside;
}

std::string Messages(std::string_view text) {
  return Parse("version: v1\n" + std::string(text), "p", Nothing()).Messages();
}

constexpr std::string_view kA = "pools: [{name: a, models: [m], backends: [\"a:1\"]}]\n";

std::string WithPoolA(std::string_view more) {
  return Messages(std::string(kA) + std::string(more));
}

TEST(Validate, AModelHasOnePool) {
  EXPECT_EQ(Messages("pools:\n"
                     "  - {name: a, models: [m], backends: [\"a:1\"]}\n"
                     "  - {name: b, models: [{name: n, aliases: [m]}], backends: [\"b:1\"]}\n"),
            "p:4:44: pools[1].models[0].aliases[0]: model \"m\" is already served by "
            "pools[0].models[0].name on line 3; one model has one pool\n");
}

TEST(Validate, NamesAreTakenOnce) {
  EXPECT_EQ(Messages("pools:\n"
                     "  - {name: a, models: [m], backends: [\"a:1\"]}\n"
                     "  - {name: a, models: [n], backends: [\"b:1\"]}\n"),
            "p:4:12: pools[1].name: \"a\" is taken by pools[0] on line 3\n");
  EXPECT_EQ(
      Messages("pools: [{name: a, backends: [\"a:1\", \"a:1\"]}]\n"),
      "p:2:37: pools[0].backends[1].name: \"a:1\" is taken by pools[0].backends[0] on line 2\n");
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\", {name: x, address: \"a:1\"}]}]\n"),
            "p:2:56: pools[0].backends[1].address: \"a:1\" is taken by pools[0].backends[0]\n");
}

TEST(Validate, TlsOfAListenerIsWholeOrNotThere) {
  const auto listener = [](std::string_view tls) {
    return WithPoolA("server: {listeners: [{address: \"127.0.0.1:443\", tls: {" + std::string(tls) + "}}]}\n");
  };
  const std::string pair = "certificates: [{cert_file: a, key_file: b}]";
  EXPECT_EQ(listener(pair), "");
  EXPECT_NE(listener("certificates: []").find("tls.certificates: is empty"), std::string::npos);
  EXPECT_NE(listener(pair + ", client_certificates: required").find("needs client_ca_file"), std::string::npos);
  EXPECT_NE(listener(pair + ", client_ca_file: c").find("every client is let in"), std::string::npos);
  EXPECT_EQ(listener(pair + ", client_ca_file: c, client_certificates: optional"), "");
  EXPECT_NE(listener("require_sni: true").find("has no \"certificates\""), std::string::npos);
}

TEST(Validate, TlsOfAPoolIsOnWhereItHasSettings) {
  const auto pool = [](std::string_view tls, std::string_view more = "") {
    return Messages("pools: [{name: a, models: [m], backends: [\"a:1\"], tls: {" + std::string(tls) + "}}]\n" +
                    std::string(more));
  };
  EXPECT_EQ(pool("enabled: true"), "");
  EXPECT_NE(pool("ca_file: x").find("TLS is off; add enabled: true"), std::string::npos);
  EXPECT_EQ(pool("enabled: false, ca_file: x"), "");
  EXPECT_EQ(pool("enabled: false", "defaults: {tls: {enabled: true, ca_file: x}}\n"), "");
  EXPECT_NE(pool("enabled: true, cert_file: x").find("cert_file and key_file belong together"), std::string::npos);
  EXPECT_NE(pool("enabled: true, insecure_skip_verify: true").find("warning: pools[0].tls.insecure_skip_verify"),
            std::string::npos);
}

TEST(Validate, APoolNeedsABackend) {
  EXPECT_EQ(Messages("pools: [{name: a, backends: []}]\n"),
            "p:2:29: pools[0].backends: is empty; a pool needs a backend\n");
}

TEST(Validate, APortIsListenedOnOnce) {
  EXPECT_EQ(
      WithPoolA("server: {listeners: [\"127.0.0.1:80\", \"0.0.0.0:80\"]}\n"),
      "p:3:38: server.listeners[1].address: \"0.0.0.0:80\" is already listened on by "
      "server.listeners[0].address\n");
  EXPECT_EQ(WithPoolA("server: {listeners: [\"127.0.0.1:80\", \"127.0.0.1:81\"]}\n"), "")
      << "one without a name is called by its address";
  EXPECT_EQ(WithPoolA("server: {listeners: [\"127.0.0.1:9901\"]}\n"),
            "p:3:22: server.listeners[0].address: \"127.0.0.1:9901\" is already listened on by "
            "server.admin.address\n");
  EXPECT_EQ(WithPoolA("server: {listeners: [{name: a, address: \"10.0.0.1:80\"}, "
                      "{name: b, address: \"10.0.0.2:80\"}]}\n"),
            "");
  EXPECT_EQ(
      WithPoolA("server: {admin: {address: \"127.0.0.1:0\"}, listeners: [\"127.0.0.1:0\"]}\n"), "")
      << "port 0 is any free one";
}

TEST(Validate, AListenerSpeaksProtocolsThatThereAre) {
  const auto said = [](std::string_view list) {
    return WithPoolA("server: {listeners: [{protocols: " + std::string(list) + "}]}\n");
  };
  EXPECT_EQ(said("[http2]"), "");
  EXPECT_EQ(said("[http2, http1]"), "");
  EXPECT_EQ(said("[]"), "p:3:34: server.listeners[0].protocols: is empty; http1 or http2, or both\n");
  EXPECT_EQ(said("[http1, h3]"),
            "p:3:42: server.listeners[0].protocols[1]: unknown protocol \"h3\"; http1 or http2\n");
  EXPECT_EQ(said("[http1, http1]"),
            "p:3:42: server.listeners[0].protocols[1]: \"http1\" stands there twice\n");
}

TEST(Validate, TheProxyIsNotItsOwnBackend) {
  EXPECT_EQ(Messages("server: {listeners: [\"0.0.0.0:80\"]}\n"
                     "pools: [{name: a, backends: [\"localhost:80\"]}]\n"),
            "p:3:30: pools[0].backends[0].address: \"localhost:80\" is this proxy itself (public); "
            "requests would go round for ever\n");
  EXPECT_NE(Messages("server: {listeners: [\"127.0.0.1:80\"]}\n"
                     "pools: [{name: a, backends: [\"localhost:80\"]}]\n").find("is this proxy itself"),
            std::string::npos);
}

TEST(Validate, AListenerHasAnIpAddress) {
  EXPECT_EQ(WithPoolA("server: {listeners: [\"localhost:80\"]}\n"),
            "p:3:22: server.listeners[0].address: \"localhost\" is not an IP address; a listener needs one, like "
            "0.0.0.0:8080 or [::]:8080\n");
  EXPECT_NE(WithPoolA("server: {admin: {address: \"[fe80::1%lo]:80\"}}\n").find("is not an IP address"),
            std::string::npos);
  EXPECT_EQ(WithPoolA("server: {listeners: [\"[::1]:80\"]}\n"), "");
}

TEST(Validate, RoutesNameWhatThereIs) {
  EXPECT_EQ(WithPoolA("routes: [{name: r, pool: b}]\n"),
            "p:3:26: routes[0].pool: no pool is named \"b\"; did you mean \"a\"?\n");
  EXPECT_EQ(WithPoolA("routes: [{name: r, match: {model: missing}}]\n"),
            "p:3:35: routes[0].match.model: no pool serves the model \"missing\"\n");
  EXPECT_EQ(WithPoolA("routes: [{name: r, pool: a, match: {path: /x, path_prefix: /x}}]\n"),
            "p:3:36: routes[0].match: has both path and path_prefix; leave one out\n");
}

TEST(Validate, PoolsNameCachesThatThereAre) {
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\"], cache: anwsers}]\n"
                     "caches: [{name: answers}]\n"),
            "p:2:45: pools[0].cache: no cache is named \"anwsers\"; did you mean \"answers\"?\n"
            "p:3:10: warning: caches[0]: no pool uses the cache \"answers\"\n");
}

TEST(Validate, WarnsOfARouteThatNothingReaches) {
  EXPECT_EQ(WithPoolA("routes:\n"
                      "  - {name: all, match: {path_prefix: /v1/}, pool: a}\n"
                      "  - {name: chat, match: {path: /v1/chat/completions}, pool: a}\n"),
            "p:5:5: warning: routes[1]: is never reached: routes[0] (all, line 4) takes all its "
            "requests\n");
}

TEST(Validate, ARouteByModelLetsUnknownModelsPass) {
  EXPECT_EQ(WithPoolA("routes: [{name: by-model}, {name: rest, pool: a}]\n"), "");
}

TEST(Validate, WarnsOfAPoolThatNothingReaches) {
  EXPECT_EQ(Messages("pools:\n"
                     "  - {name: a, models: [m], backends: [\"a:1\"]}\n"
                     "  - {name: b, backends: [\"b:1\"]}\n"),
            "p:4:5: warning: pools[1]: no request reaches \"b\": no route names it and it has no "
            "models\n");
}

TEST(Validate, ChecksDoNotOverlapAndTheMessageStandsWhereTheValueDoes) {
  EXPECT_EQ(
      Messages("defaults: {health_check: {timeout: 5s}}\n"
               "pools:\n"
               "  - {name: a, models: [m], backends: [\"a:1\"]}\n"
               "  - {name: b, models: [n], backends: [\"b:1\"]}\n"),
      "p:2:36: defaults.health_check.timeout: is more than the interval; checks would overlap\n");
}

TEST(Validate, LimitsFitIntoEachOther) {
  EXPECT_EQ(
      WithPoolA("server: {limits: {request_body: 1GiB}}\n"),
      "p:3:33: server.limits.request_body: is more than buffered_bytes, so no such body would "
      "fit\n");
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\"], cache: c}]\n"
                     "caches: [{name: c, max_bytes: 1KiB}]\n"),
            "p:3:10: caches[0].max_entry_bytes: is more than max_bytes\n");
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\"], circuit_breaker: {open_base: 1m}}]\n"),
            "p:2:67: pools[0].circuit_breaker.open_base: is more than open_max\n");
  EXPECT_EQ(WithPoolA("server: {timeouts: {drain: 20s, drain_streams: 2s}}\n"),
            "p:3:48: server.timeouts.drain_streams: is less than drain; everything is cut then, whole answers too, "
            "which have until drain\n");
}

TEST(Validate, WhatCostsClientsMostIsGivenUpLast) {
  const auto overload = [](std::string_view more) {
    return WithPoolA("server: {overload: {" + std::string(more) + "}}\n");
  };
  EXPECT_EQ(overload("shorten_idle: 50%, close_after_answer: 50%, reject_requests: 50%"), "");
  EXPECT_EQ(overload("shorten_idle: 93%"),
            "p:3:20: server.overload.close_after_answer: is less than shorten_idle, which costs clients "
            "less and comes first\n");
  EXPECT_NE(overload("reject_requests: 10%").find("reject_requests: is less than close_after_answer"),
            std::string::npos);
  EXPECT_NE(overload("stop_accepting: 10%").find("stop_accepting: is less than reject_requests"),
            std::string::npos);
  EXPECT_NE(overload("loop_delay_full: 1ms").find("is less than loop_delay_from"), std::string::npos);
  EXPECT_EQ(overload("loop_delay_from: 0s, loop_delay_full: 1ms, memory_limit: 1GiB"), "");
  EXPECT_EQ(overload("memory_limit: auto"), "");
}

TEST(Validate, AnAuthModeHasItsKey) {
  const auto auth = [](std::string_view fields) {
    return Messages("pools: [{name: a, backends: [\"a:1\"], auth: {" + std::string(fields) +
                    "}}]\n");
  };
  EXPECT_EQ(auth("mode: replace"),
            "p:2:44: pools[0].auth: mode replace needs a key; give key_file, or key: ${NAME}\n");
  EXPECT_EQ(auth("mode: require"),
            "p:2:44: pools[0].auth: mode require needs keys; give keys_file\n");
  EXPECT_EQ(auth("key_file: k"), "p:2:44: pools[0].auth: a key is only sent with mode: replace\n");
  EXPECT_EQ(auth("keys_file: k"),
            "p:2:44: pools[0].auth: keys_file is only used with mode: require\n");
  EXPECT_EQ(auth("mode: replace, key_file: k"), "");
}

TEST(Shadows, AnEarlierRouteTakesWhatItsMatchCovers) {
  const Route all = {.pool = "p"};
  const Route prefix = {.path_prefix = "/v1/", .pool = "p"};
  const Route path = {.path = "/v1/chat", .pool = "p"};
  const Route model = {.path_prefix = "/v1/", .model = "m", .pool = "p"};
  EXPECT_TRUE(Shadows(all, path));
  EXPECT_TRUE(Shadows(prefix, path));
  EXPECT_TRUE(Shadows(prefix, model));
  EXPECT_FALSE(Shadows(model, prefix));
  EXPECT_FALSE(Shadows(path, prefix));
  EXPECT_FALSE(Shadows(prefix, all));
}

TEST(Validate, WhoIsTrustedIsAnAddressOrARange) {
  EXPECT_EQ(WithPoolA("server: {forwarding: {xff_trusted_cidrs: [10.0.0.0/8, \"fd00::/8\", 10.0.0.7]}}\n"), "");
  EXPECT_EQ(WithPoolA("server: {forwarding: {xff_trusted_cidrs: [10.0.0.1/8]}}\n"),
            "p:3:43: server.forwarding.xff_trusted_cidrs[0]: \"10.0.0.1/8\" is no address and no range of "
            "them; write 10.0.0.7, 10.0.0.0/8 or fd00::/8, with no bits set beyond the prefix\n");
  EXPECT_EQ(WithPoolA("server: {forwarding: {xff_trusted_cidrs: [10.0.0.1], xff_num_trusted_hops: 1}}\n"),
            "p:3:76: server.forwarding.xff_num_trusted_hops: and xff_trusted_cidrs are two ways to say whom to "
            "trust; leave one out\n");
  EXPECT_NE(WithPoolA("server: {forwarding: {xff_trusted_cidrs: [10.0.0.1], use_remote_address: false}}\n"), "");
}

TEST(Validate, AProxyHeaderIsSentByThoseWhoMay) {
  EXPECT_EQ(WithPoolA("server: {listeners: [{proxy_protocol: required, proxy_protocol_from: [10.0.0.0/8]}]}\n"), "");
  EXPECT_EQ(WithPoolA("server: {listeners: [{proxy_protocol_from: [10.0.0.0/8]}]}\n"),
            "p:3:44: server.listeners[0].proxy_protocol_from: is only used with proxy_protocol: required\n");
  EXPECT_NE(WithPoolA("server: {listeners: [{proxy_protocol: required, proxy_protocol_from: [lb]}]}\n"), "");
}

TEST(Validate, NamesOfFieldsAreNames) {
  EXPECT_EQ(WithPoolA("server: {forwarding: {via: edge-1.b_c, internal_only_headers: [x-tenant, x-envoy-*]}}\n"), "");
  EXPECT_NE(WithPoolA("server: {forwarding: {via: \"a b\"}}\n"), "");
  for (const char* const bad : {"\"*\"", "\"\"", "\"a b\"", "\"a*b\"", "\"a:\""}) {
    EXPECT_NE(WithPoolA(std::string("server: {forwarding: {internal_only_headers: [") + bad + "]}}\n"), "") << bad;
  }
}

TEST(Validate, TheOnlyProtocolToChangeToIsWebsocket) {
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\"], upgrades: [websocket]}]\n"), "");
  EXPECT_EQ(Messages("pools: [{name: a, backends: [\"a:1\"], upgrades: [h2c]}]\n"),
            "p:2:49: pools[0].upgrades[0]: \"h2c\" cannot be passed on; the only protocol to change to is "
            "websocket\n");
}

}  // namespace
}  // namespace penstock::config
