#include "tests/sim/policy.h"

#include <iterator>

#include <fmt/format.h>

namespace penstock::sim {
namespace {

bool Chance(Random& random, uint32_t percent) { return random.Below(100) < percent; }

template <size_t kCount>
uint32_t OneOf(Random& random, const uint32_t (&values)[kCount]) {
  return values[random.Below(kCount)];
}

std::string Backends(std::string (*address)(size_t), std::string_view prefix, size_t count, uint32_t max) {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += fmt::format("      - {{name: {}{}, address: \"{}\", max_requests: {}}}\n", prefix, i, address(i), max);
  }
  return text;
}

}  // namespace

std::string Policy::ChatAddress(size_t index) { return fmt::format("127.0.0.1:{}", 9001 + index); }
std::string Policy::FarAddress(size_t index) { return fmt::format("127.0.0.1:{}", 9101 + index); }
std::string Policy::FilesAddress(size_t index) { return fmt::format("127.0.0.1:{}", 9201 + index); }

Policy::Policy(Random& random)
    : workers(1 + random.Below(3)),
      requests_max(OneOf(random, {8, 1000, 1000, 1000})),
      connections_max(OneOf(random, {6, 200, 200, 200})),
      buffered_max_kib(OneOf(random, {1024, 1024, 4096})),
      body_max_kib(OneOf(random, {64, 1024})),
      probes(1 + random.Below(2)),
      draining_slowly(Chance(random, 30)) {
  Change(random);
}

void Policy::Change(Random& random) {
  static constexpr const char* kAlgorithms[] = {"weighted_score", "least_request", "round_robin", "random"};
  algorithm = kAlgorithms[random.Below(std::size(kAlgorithms))];
  second_listener = Chance(random, 50);
  cached = Chance(random, 80);
  coalesced = Chance(random, 85);
  hedged = Chance(random, 30);
  breaker = Chance(random, 80);
  push = Chance(random, 80);
  chat_last = Chance(random, 80);
  attempts = random.Below(4);
  try_timeout_ms = OneOf(random, {0, 0, 400});
  response_ms = OneOf(random, {1500, 3000, 5000});
  idle_ms = OneOf(random, {1000, 2500});
  queue_max = OneOf(random, {0, 2, 100});
  queue_wait_ms = OneOf(random, {500, 3000});
  backend_max = OneOf(random, {1, 3, 1000});
  total_ms = OneOf(random, {0, 0, 2000, 8000});
  comment_ms = OneOf(random, {0, 500, 2000});
  entry_kib = OneOf(random, {1, 64, 1024});
  resend_kib = OneOf(random, {0, 16, 256});
  streams = OneOf(random, {2, 100, 100});
  accepts = OneOf(random, {0, 0, 0, 5});
}

std::string Policy::Text() const {
  std::string text = "version: v1\nserver:\n  listeners:\n"
                     "    - {name: public, address: \"127.0.0.1:8080\", debug_headers: true}\n";
  if (second_listener) text += "    - {name: side, address: \"127.0.0.1:8081\"}\n";
  text += fmt::format(R"(  workers: {}
  timeouts:
    request_headers: 3s
    request_body_idle: 3s
    keep_alive: 6s
    drain: 3s
    drain_streams: 8s
    drain_delay: {}
  limits:
    requests: {}
    connections: {}
    buffered_bytes: {}KiB
    request_body: {}KiB
    streams_per_connection: {}
    accepts_per_second: {}
  overload: {{memory_limit: 1GiB}}
)", workers, draining_slowly ? "500ms" : "0s", requests_max, connections_max, buffered_max_kib, body_max_kib,
                      streams, accepts);
  text += fmt::format(R"(defaults:
  load_balancing: {{algorithm: {}}}
  health_check: {{interval: 1s, timeout: 500ms}}
  circuit_breaker:
    enabled: {}
    consecutive_failures: 3
    minimum_requests: 6
    open_base: 500ms
    open_max: 2s
    half_open_requests: {}
    half_open_successes: 2
  timeouts:
    connect: 300ms
    first_token: {}ms
    response: {}ms
    idle: {}ms
    total: {}ms
    sse_keep_alive: {}ms
  retry: {{attempts: {}, per_try_timeout: {}ms, body_bytes: {}KiB}}
  hedge: {{enabled: {}, min_delay: 100ms, percentile: 50%}}
  queue: {{max: {}, wait: {}ms}}
  load_reports: {{push: {}}}
  connections: {{idle_timeout: 5s}}
)", algorithm, breaker, probes, response_ms, response_ms, idle_ms, total_ms, comment_ms, attempts, try_timeout_ms,
                      resend_kib, hedged, queue_max, queue_wait_ms, push);
  text += "pools:\n  - name: chat\n    models: [{name: wren, aliases: [bird]}]\n    backends:\n" +
          Backends(ChatAddress, "c", chat_last ? kChat : kChat - 1, backend_max);
  if (cached) text += "    cache: answers\n";
  text += "  - name: far\n    models: [kite]\n    connections: {protocol: http2, max_streams: 4, max_connections: 2}\n"
          "    backends:\n" + Backends(FarAddress, "f", kFar, backend_max);
  if (cached) text += "    cache: answers\n";
  text += "  - name: files\n    load_reports: {push: false}\n    backends:\n" +
          Backends(FilesAddress, "p", kFiles, backend_max);
  text += "routes:\n  - {name: files, match: {path_prefix: /files/}, pool: files}\n"
          "  - {name: far-files, match: {path_prefix: /far/}, pool: far}\n  - {name: by-model}\n";
  if (cached) {
    text += fmt::format("caches:\n  - {{name: answers, max_bytes: 2MiB, max_entry_bytes: {}KiB, ttl: 3s, "
                        "coalesce: {}}}\n", entry_kib, coalesced);
  }
  return text + "observability: {access_log: memory, decisions: 4096}\n";
}

}  // namespace penstock::sim
