// One line a metric, in the order of /metrics. docs/metrics.md has the same rows.
#include <algorithm>
#include <array>

#include "proxy/admin/metrics.h"

namespace penstock {
namespace {

constexpr auto kCounter = MetricKind::kCounter;
constexpr auto kGauge = MetricKind::kGauge;
constexpr auto kHistogram = MetricKind::kHistogram;

constexpr auto kClients = std::to_array<MetricInfo>({
    {"penstock_http_requests_total", kCounter, "pool, code, stream",
     "Requests answered to their end, or broken off"},
    {"penstock_http_request_duration_seconds", kHistogram, "pool",
     "From a request's head to the end of its answer"},
    {"penstock_request_ttft_seconds", kHistogram, "pool",
     "From a request's head to the first event with a token, streams only"},
    {"penstock_request_tpot_seconds", kHistogram, "pool",
     "Mean time between the events of an answer after its first token"},
    {"penstock_overhead_seconds", kHistogram, "pool", "What the proxy itself adds to a request"},
    {"penstock_http_requests_active", kGauge, "pool", "Requests in progress"},
    {"penstock_client_connections", kGauge, "protocol", "Open client connections"},
    {"penstock_client_connections_total", kCounter, "", "Client connections accepted"},
    {"penstock_client_connections_refused_total", kCounter, "",
     "Client connections closed at accept, over the limit"},
    {"penstock_proxy_protocol_errors_total", kCounter, "reason",
     "Client connections closed for want of a good PROXY header: invalid, timeout, untrusted"},
    {"penstock_accept_pauses_total", kCounter, "reason",
     "Times that a worker let new connections wait in the kernel"},
    {"penstock_shed_requests_total", kCounter, "reason",
     "New requests refused because the proxy itself has too much to do"},
    {"penstock_client_protocol_errors_total", kCounter, "",
     "Client connections refused for bytes that are no valid HTTP"},
    {"penstock_client_h2_resets_total", kCounter, "reason",
     "Requests on HTTP/2 that were reset, by the client or by us"},
    {"penstock_client_h2_goaways_total", kCounter, "reason",
     "HTTP/2 connections that we ended or asked to leave: drain, idle, client, headers, protocol, flood, "
     "near_flood, settings"},
    {"penstock_client_h2_floods_total", kCounter, "limit",
     "HTTP/2 connections ended for work without end, by the limit they passed"},
    {"penstock_buffered_request_bytes", kGauge, "",
     "Request bodies held for routing and resending"},
    {"penstock_response_flags_total", kCounter, "pool, flag",
     "Answers of the proxy's own making, and why"},
    {"penstock_timeouts_total", kCounter, "pool, kind", "Limits of time that were reached"},
    {"penstock_retries_total", kCounter, "pool, reason", "Tries after the first one"},
    {"penstock_retry_budget_exhausted_total", kCounter, "pool",
     "Tries not made because the budget was spent"},
    {"penstock_deadline_exceeded_total", kCounter, "pool, stage",
     "Requests whose client's deadline passed, and what they were doing"},
    {"penstock_hedges_total", kCounter, "pool, result",
     "Second tries beside slow ones, made or wanted"},
    {"penstock_sse_keep_alives_total", kCounter, "pool", "Comments sent into silent streams"},
    {"penstock_queue_depth", kGauge, "pool", "Requests that wait for a backend with room"},
    {"penstock_queue_wait_seconds", kHistogram, "pool",
     "How long requests waited for a backend with room"},
});

constexpr auto kBalancing = std::to_array<MetricInfo>({
    {"penstock_lb_decisions_total", kCounter, "pool, outcome", "Choices of a backend"},
    {"penstock_lb_backend_weight", kGauge, "pool, backend", "Weight, with slow start applied"},
    {"penstock_lb_backend_load", kGauge, "pool, backend",
     "Requests a choice would count there: the engine's total and what was sent since"},
    {"penstock_lb_backend_sent_since", kGauge, "pool, backend",
     "Requests sent since the last load report was made"},
    {"penstock_lb_backend_ttft_seconds", kGauge, "pool, backend",
     "Peak-EWMA of the time to first token; absent without data"},
    {"penstock_lb_signal_age_seconds", kGauge, "pool, backend",
     "Age of the last load report; absent without one"},
    {"penstock_lb_signal_rung", kGauge, "pool, backend",
     "Where load figures come from: 1 push, 2 piggyback, 3 poll, 4 own count"},
    {"penstock_lb_wrong_model", kGauge, "pool, backend",
     "1 while the engine's load report names a model that its pool does not list"},
    {"penstock_load_reports_total", kCounter, "pool, backend, result",
     "Load reports: taken by rung, old, or invalid"},
});

constexpr auto kBackends = std::to_array<MetricInfo>({
    {"penstock_backends", kGauge, "pool, state", "Backends by health"},
    {"penstock_backend_health", kGauge, "pool, backend",
     "1 healthy or not checked yet, 0 unhealthy or down"},
    {"penstock_backend_drained", kGauge, "pool, backend", "1 while an operator keeps it out"},
    {"penstock_health_checks_total", kCounter, "pool, backend, result", "Health checks"},
    {"penstock_backend_requests_total", kCounter, "pool, backend, code", "Answers by status code"},
    {"penstock_backend_requests_active", kGauge, "pool, backend",
     "Requests in progress there, from this proxy"},
    {"penstock_backend_connections", kGauge, "pool, backend, protocol",
     "Open connections, idle ones too"},
    {"penstock_backend_streams", kGauge, "pool, backend", "Requests on HTTP/2 connections"},
    {"penstock_backend_streams_refused_total", kCounter, "pool, backend",
     "Requests that an HTTP/2 backend gave back untouched"},
    {"penstock_backend_goaways_total", kCounter, "pool, backend",
     "HTTP/2 connections that the backend asked to leave"},
    {"penstock_backend_http2_errors_total", kCounter, "pool, backend",
     "HTTP/2 connections closed for what the backend sent"},
    {"penstock_backend_connect_failures_total", kCounter, "pool, backend, reason",
     "Connections that could not be made"},
    {"penstock_backend_busy_total", kCounter, "pool, backend",
     "Answers that said the backend is busy"},
});

constexpr auto kBreakers = std::to_array<MetricInfo>({
    {"penstock_breaker_state", kGauge, "pool, backend, state",
     "1 for the state that the breaker is in"},
    {"penstock_breaker_transitions_total", kCounter, "pool, backend, from, to", "Changes of state"},
    {"penstock_breaker_rejected_total", kCounter, "pool, backend, reason",
     "Choices that left the backend out"},
    {"penstock_outlier_ejections_total", kCounter, "pool, reason, enforced",
     "Breakers that opened, or would have but for the cap"},
    {"penstock_outlier_ejected", kGauge, "pool", "Breakers that are not closed"},
});

constexpr auto kCaches = std::to_array<MetricInfo>({
    {"penstock_cache_lookups_total", kCounter, "pool, result",
     "Lookups, and requests that passed the cache by"},
    {"penstock_cache_entries", kGauge, "cache", "Answers kept"},
    {"penstock_cache_bytes", kGauge, "cache", "Bytes of the answers kept"},
    {"penstock_cache_max_bytes", kGauge, "cache", "Bytes that may be kept"},
    {"penstock_cache_flights", kGauge, "cache", "Answers in progress that others may join"},
    {"penstock_cache_evictions_total", kCounter, "cache, reason", "Answers dropped"},
    {"penstock_cache_rejected_total", kCounter, "cache, reason", "Answers not kept"},
});

constexpr auto kTls = std::to_array<MetricInfo>({
    {"penstock_tls_handshakes_total", kCounter, "listener, result",
     "TLS handshakes with clients: full, resumed, or why there was none"},
    {"penstock_certificate_expiry_timestamp_seconds", kGauge, "listener, pool, name",
     "When the certificate in force expires"},
    {"penstock_tls_reloads_total", kCounter, "result", "Certificate files that changed"},
    {"penstock_tls_last_reload_successful", kGauge, "",
     "1 if the certificate files as they are now are in force"},
});

constexpr auto kProcess = std::to_array<MetricInfo>({
    {"penstock_build_info", kGauge, "version, revision", "Always 1"},
    {"penstock_ready", kGauge, "", "1 while /readyz says 200"},
    {"penstock_config_last_reload_successful", kGauge, "",
     "1 if the last policy file that was read is in force"},
    {"penstock_config_last_reload_success_timestamp_seconds", kGauge, "",
     "When the policy in force was taken"},
    {"penstock_config_reloads_total", kCounter, "result", "Policy files read after the start"},
    {"penstock_config_info", kGauge, "hash, generation", "Always 1: the policy in force"},
    {"penstock_config_generation", kGauge, "", "Policy files taken so far; the first one is 1"},
    {"penstock_config_generations_alive", kGauge, "",
     "Policies in use: the one in force and those that older requests began under"},
    {"penstock_overload_level", kGauge, "", "What is given up because memory is short; 0: nothing"},
    {"penstock_overload_level_changes_total", kCounter, "", "Changes of that level"},
    {"penstock_memory_used_bytes", kGauge, "", "What the level is judged by"},
    {"penstock_memory_limit_bytes", kGauge, "", "What it is a share of"},
    {"penstock_log_lines_dropped_total", kCounter, "log",
     "Lines that could not be written without waiting"},
    {"penstock_event_loop_delay_seconds", kHistogram, "worker",
     "How late a turn of the loop began"},
    {"process_cpu_seconds_total", kCounter, "", "Processor time used"},
    {"process_resident_memory_bytes", kGauge, "", "Memory in use"},
    {"process_virtual_memory_bytes", kGauge, "", "Memory reserved"},
    {"process_open_fds", kGauge, "", "Open file descriptors"},
    {"process_max_fds", kGauge, "", "File descriptors that may be open"},
    {"process_threads", kGauge, "", "Threads"},
    {"process_start_time_seconds", kGauge, "", "When the process started"},
});

// The sections one after the other.
template <size_t... kSizes>
constexpr auto Joined(const std::array<MetricInfo, kSizes>&... sections) {
  std::array<MetricInfo, (kSizes + ...)> all{};
  auto* end = all.data();
  ((end = std::ranges::copy(sections, end).out), ...);
  return all;
}
constexpr auto kTable = Joined(kClients, kBalancing, kBackends, kBreakers, kCaches, kTls, kProcess);

}  // namespace

std::span<const MetricInfo> AllMetrics() { return kTable; }

std::string_view Name(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return "counter";
    case MetricKind::kGauge: return "gauge";
    case MetricKind::kHistogram: return "histogram";
  }
  return "";
}

}  // namespace penstock
