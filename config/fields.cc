// The rows. Read it beside config.h: same order, same words.
#include "config/field.h"

namespace penstock::config {
namespace {

template <typename Member>
struct MemberOf;
template <typename Object, typename Value>
struct MemberOf<Value Object::*> {
  using object = Object;
  using value = Value;
};
template <auto kMember>
using ObjectOf = typename MemberOf<decltype(kMember)>::object;
template <auto kMember>
using ValueOf = typename MemberOf<decltype(kMember)>::value;

template <auto kMember, typename Object = ObjectOf<kMember>>
void* At(void* object) {
  return &(static_cast<Object*>(object)->*kMember);
}

template <auto kMember, typename Value>
constexpr Field Row(Kind kind, std::string_view key, std::string_view effect, double min = 0,
                    double max = 0) {
  static_assert(std::is_same_v<ValueOf<kMember>, Value>, "the kind does not fit the member's type");
  return {.key = key, .kind = kind, .effect = effect, .min = min, .max = max, .at = At<kMember>};
}

template <auto kMember>
constexpr Field Name(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kName, key, effect, 0, 128);
}
template <auto kMember>
constexpr Field Text(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kText, key, effect, 0, 256);
}
template <auto kMember>
constexpr Field File(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kText, key, effect, 0, 4096);
}
template <auto kMember>
constexpr Field Texts(std::string_view key, std::string_view effect, double max) {
  return Row<kMember, std::vector<std::string>>(Kind::kTexts, key, effect, 0, max);
}
template <auto kMember>
constexpr Field Path(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kPath, key, effect, 0, 1024);
}
template <auto kMember>
constexpr Field Address(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kAddress, key, effect, 0, 260);
}
template <auto kMember>
constexpr Field BindAddress(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kBindAddress, key, effect, 0, 260);
}
template <auto kMember>
constexpr Field Flag(std::string_view key, std::string_view effect) {
  return Row<kMember, bool>(Kind::kFlag, key, effect);
}
template <auto kMember>
constexpr Field Count(std::string_view key, std::string_view effect, double min, double max) {
  return Row<kMember, uint32_t>(Kind::kCount, key, effect, min, max);
}
template <auto kMember>
constexpr Field CountOrAuto(std::string_view key, std::string_view effect, double min, double max) {
  return Row<kMember, uint32_t>(Kind::kCountOrAuto, key, effect, min, max);
}
constexpr double kKiB = 1024;
constexpr double kMiB = 1024 * kKiB;
constexpr double kGiB = 1024 * kMiB;
template <auto kMember>
constexpr Field Bytes(std::string_view key, std::string_view effect, double min, double max) {
  return Row<kMember, uint64_t>(Kind::kBytes, key, effect, min, max);
}
template <auto kMember>
constexpr Field BytesOrAuto(std::string_view key, std::string_view effect, double min, double max) {
  return Row<kMember, uint64_t>(Kind::kBytesOrAuto, key, effect, min, max);
}
constexpr double kMs = 0.001;
constexpr double kHour = 3600;
template <auto kMember>
constexpr Field Time(std::string_view key, std::string_view effect, double min = kMs,
                     double max = kHour) {
  return Row<kMember, absl::Duration>(Kind::kDuration, key, effect, min, max);
}
template <auto kMember>
constexpr Field Share(std::string_view key, std::string_view effect, double min = 0) {
  return Row<kMember, double>(Kind::kShare, key, effect, min, 1);
}
template <auto kMember>
constexpr Field Number(std::string_view key, std::string_view effect, double min, double max) {
  return Row<kMember, double>(Kind::kNumber, key, effect, min, max);
}
template <auto kMember>
constexpr Field Choice(std::string_view key, std::string_view words, std::string_view effect) {
  using Enum = ValueOf<kMember>;
  Field field = Row<kMember, Enum>(Kind::kChoice, key, effect);
  field.words = words;
  field.get = [](const void* value) { return static_cast<int>(*static_cast<const Enum*>(value)); };
  field.set = [](void* value, int choice) { *static_cast<Enum*>(value) = Enum{choice}; };
  return field;
}
template <auto kMember>
constexpr Field Secret(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kSecret, key, effect, 0, 4096);
}
template <auto kMember>
constexpr Field SecretFile(std::string_view key, std::string_view effect) {
  return Row<kMember, std::string>(Kind::kSecretFile, key, effect, 0, 4096);
}
template <auto kMember>
constexpr Field SecretsFile(std::string_view key, std::string_view effect) {
  return Row<kMember, std::vector<std::string>>(Kind::kSecretsFile, key, effect, 0, 4096);
}

constexpr Field Required(Field field) {
  field.required = true;
  return field;
}

// A map whose fields live in a member of the object around it ...
template <auto kMember, typename Object = ObjectOf<kMember>>
constexpr Field Part(std::string_view key, const Section& section, std::string_view effect) {
  return {.key = key,
          .kind = Kind::kSection,
          .effect = effect,
          .at = At<kMember, Object>,
          .section = &section};
}
// ... or in that object itself: the file groups what the struct does not.
constexpr Field Group(std::string_view key, const Section& section, std::string_view effect) {
  return {.key = key,
          .kind = Kind::kSection,
          .effect = effect,
          .at = [](void* object) { return object; },
          .section = &section};
}

template <auto kMember, typename Object = ObjectOf<kMember>>
constexpr Field List(std::string_view key, const Section& section, std::string_view effect,
                     double max) {
  Field field = {.key = key,
                 .kind = Kind::kList,
                 .effect = effect,
                 .max = max,
                 .at = At<kMember, Object>,
                 .section = &section};
  field.size = [](void* object) { return (static_cast<Object*>(object)->*kMember).size(); };
  field.item = [](void* object, size_t index) -> void* {
    return &(static_cast<Object*>(object)->*kMember)[index];
  };
  field.append = [](void* object) -> void* {
    return &(static_cast<Object*>(object)->*kMember).emplace_back();
  };
  return field;
}

// The place of an object that has a `where`.
template <typename Object>
Location* Where(void* object) {
  return &static_cast<Object*>(object)->where;
}

// --- server ---

constexpr Field kTlsCertificateFields[] = {
    Required(File<&TlsCertificate::cert_file>(
        "cert_file", "PEM: the server's certificate, then each one's issuer.")),
    Required(File<&TlsCertificate::key_file>("key_file", "PEM: its key, without a passphrase.")),
};
constexpr Section kTlsCertificate = {.fields = kTlsCertificateFields};

constexpr Field kListenerTlsFields[] = {
    Required(List<&ListenerTls::certificates>(
        "certificates", kTlsCertificate,
        "Chosen by the name that a client asks for (SNI); the first one is for all others.", 256)),
    Flag<&ListenerTls::require_sni>("require_sni",
                                    "Refuse clients that ask for no name of a certificate."),
    Choice<&ListenerTls::minimum_version>("minimum_version", "1.2|1.3",
                                          "Older versions of TLS are refused."),
    File<&ListenerTls::client_ca_file>("client_ca_file",
                                       "PEM: authorities that client certificates are checked by."),
    Choice<&ListenerTls::client_certificates>(
        "client_certificates", "off|optional|required",
        "Ask clients for a certificate; one that is shown has to be good."),
};
constexpr Section kListenerTls = {.fields = kListenerTlsFields, .given = [](void* object) {
                                    return static_cast<ListenerTls*>(object)->enabled();
                                  }};

constexpr Field kListenerFields[] = {
    Name<&Listener::name>("name", "Name in logs and metrics."),
    BindAddress<&Listener::address>("address", "Where clients connect."),
    Flag<&Listener::debug_headers>("debug_headers",
                                   "Answers carry x-penstock-backend and x-penstock-decision."),
    Texts<&Listener::protocols>("protocols",
                                "What is spoken there, http1 and http2; http2 by ALPN, without TLS "
                                "by prior knowledge (h2c).",
                                2),
    Part<&Listener::tls>("tls", kListenerTls, "Speak TLS; not given: plain HTTP."),
    Choice<&Listener::proxy_protocol>("proxy_protocol", "off|required",
                                      "Connections begin with a PROXY header, version 1 or 2, "
                                      "which says who the client is; without one they are closed."),
    Texts<&Listener::proxy_protocol_from>(
        "proxy_protocol_from", "Addresses and ranges that may send it; others are closed; "
                               "not given: everybody.", 256),
};
constexpr Section kListener = {.fields = kListenerFields, .short_key = "address"};

constexpr Field kAdminFields[] = {
    BindAddress<&Server::admin_address>(
        "address", "Where /metrics, /readyz, /backends, /decisions and the rest are served."),
};
constexpr Section kAdmin = {.fields = kAdminFields};

constexpr Field kServerTimeoutFields[] = {
    Time<&Server::request_headers_timeout>(
        "request_headers", "First byte of a request to the end of its headers, then 408; and to acknowledge "
                           "our settings on HTTP/2."),
    Time<&Server::request_body_idle_timeout>("request_body_idle",
                                             "Between two reads of a request's body; then 408."),
    Time<&Server::keep_alive_timeout>(
        "keep_alive", "A client connection without a request is closed after this."),
    Time<&Server::tls_handshake_timeout>("tls_handshake",
                                         "From accept to the end of the TLS handshake; then closed."),
    Time<&Server::drain_delay>("drain_delay",
                               "After SIGTERM: not ready, but serving still, for balancers to notice.",
                               0),
    Time<&Server::drain_timeout>("drain", "After that: how long whole answers may still run.", 0),
    Time<&Server::drain_stream_timeout>(
        "drain_streams", "How long streaming answers may, from the same moment on; at least drain.", 0),
};
constexpr Section kServerTimeouts = {.fields = kServerTimeoutFields};

constexpr Field kLimitFields[] = {
    Bytes<&Limits::header_bytes>("header_bytes", "Request line and header fields; beyond: 431.",
                                 kKiB, kMiB),
    Count<&Limits::header_count>("header_count", "Header fields; beyond: 431.", 8, 1000),
    Bytes<&Limits::request_line_bytes>("request_line_bytes", "Request line; beyond: 414.", 256,
                                       kMiB),
    Bytes<&Limits::request_body>("request_body", "Body of an inference request; beyond: 413.", kKiB,
                                 kGiB),
    Bytes<&Limits::request_body_rate>(
        "request_body_rate",
        "Bytes a second that a request's body comes with, after a first `request_body_idle`; else 408. 0B: any.",
        0, kGiB),
    Bytes<&Limits::buffered_bytes>("buffered_bytes",
                                   "Bodies held in memory, all requests together; beyond: 503.",
                                   kMiB, 1024 * kGiB),
    Count<&Limits::connections>("connections", "Client connections; beyond: closed at once.", 1,
                                1e6),
    Count<&Limits::accepts_per_second>(
        "accepts_per_second", "New client connections a second; more wait in the kernel. 0: no limit.",
        0, 1e6),
    Count<&Limits::requests>("requests", "Requests in progress; beyond: 503.", 1, 1e6),
    Count<&Limits::streams_per_connection>(
        "streams_per_connection",
        "Requests of one HTTP/2 connection; beyond: refused, to be sent again.", 1, 1000),
    Count<&Limits::json_depth>("json_depth", "Nesting of a JSON body; beyond: 400.", 4, 512),
    Bytes<&Limits::event_bytes>("event_bytes", "One server-sent event of a backend; beyond: 502.",
                                kKiB, 64 * kMiB),
};
constexpr Section kLimits = {.fields = kLimitFields};

constexpr std::string_view kForwardWords = "append|replace|ignore|remove";
constexpr Field kForwardingFields[] = {
    Flag<&Forwarding::use_remote_address>(
        "use_remote_address", "The client is who connects; false: X-Forwarded-For says who it is."),
    Count<&Forwarding::xff_num_trusted_hops>(
        "xff_num_trusted_hops", "Proxies in front of this one whose X-Forwarded-For counts.", 0, 32),
    Texts<&Forwarding::xff_trusted_cidrs>(
        "xff_trusted_cidrs", "Peers whose word counts, by address or range; in place of a number.", 256),
    Choice<&Forwarding::x_forwarded_for>(
        "x_forwarded_for", kForwardWords,
        "Append the peer to what a trusted peer said, replace it by the client, ignore (pass on what "
        "anybody sent), or remove."),
    Choice<&Forwarding::x_forwarded_proto>("x_forwarded_proto", kForwardWords,
                                           "http or https; append: a trusted peer's stays."),
    Choice<&Forwarding::x_forwarded_host>("x_forwarded_host", kForwardWords,
                                          "The host that was asked for; append: a trusted peer's stays."),
    Choice<&Forwarding::forwarded>("forwarded", kForwardWords, "The same in one field, RFC 7239."),
    Choice<&Forwarding::client_cert>("forward_client_cert_details", "sanitize|always_forward_only",
                                     "Drop x-forwarded-client-cert, or pass it on from anybody."),
    Flag<&Forwarding::preserve_external_request_id>(
        "preserve_external_request_id", "Keep a valid x-request-id; false: only a trusted peer's."),
    Text<&Forwarding::via>("via", "Our name in Via, both ways; a request that has it already is 508."),
    Texts<&Forwarding::internal_only_headers>(
        "internal_only_headers",
        "Fields that only trusted peers may send, NAME or PREFIX*; x-penstock-* always is one.", 64),
};
constexpr Section kForwarding = {.fields = kForwardingFields};

constexpr Field kOverloadFields[] = {
    BytesOrAuto<&Overload::memory_limit>(
        "memory_limit", "What shares are of; auto: the cgroup's limit, else the machine's memory.",
        16 * kMiB, 1024 * 1024 * kGiB),
    Share<&Overload::shorten_idle>("shorten_idle", "From here idle connections are kept for less long.",
                                   0.01),
    Share<&Overload::close_after_answer>(
        "close_after_answer", "From here connections close after their answer, and caches are emptied.",
        0.01),
    Share<&Overload::reject_requests>("reject_requests", "From here new requests get 503.", 0.01),
    Share<&Overload::stop_accepting>("stop_accepting",
                                     "From here new connections wait in the kernel.", 0.01),
    Time<&Overload::loop_delay_from>(
        "loop_delay_from", "When turns are later than this, new requests begin to get 503. 0s: never.",
        0),
    Time<&Overload::loop_delay_full>("loop_delay_full", "When turns are so late, every one does."),
};
constexpr Section kOverload = {.fields = kOverloadFields};

constexpr Field kServerFields[] = {
    List<&Server::listeners>("listeners", kListener,
                             "Where clients connect; none: one on 127.0.0.1:8080.", 16),
    Group("admin", kAdmin, "The listener for operators."),
    CountOrAuto<&Server::workers>("workers",
                                  "Event loops, a thread each; auto: one per core, up to 64.", 1, 64),
    Group("timeouts", kServerTimeouts, "How long clients may take."),
    Part<&Server::limits>("limits", kLimits, "What a client may ask for."),
    Choice<&Server::path_normalization>(
        "path_normalization", "normalize|strict",
        "Paths with //, . or ..: resolved before they are routed and forwarded, or 400. An escaped "
        "slash is 400 in any case."),
    Part<&Server::forwarding>("forwarding", kForwarding,
                              "Who the client is, and what backends are told of it."),
    Part<&Server::overload>("overload", kOverload, "What is given up when there is too much to do."),
};
constexpr Section kServer = {.fields = kServerFields};

// --- what `defaults` and every pool may say ---

constexpr Field kLoadBalancingFields[] = {
    Text<&LoadBalancing::algorithm>(
        "algorithm",
        "How a backend is chosen; its own settings (alpha, beta, ...) stand beside "
        "it, see lb-policies.md."),
    Time<&LoadBalancing::slow_start>(
        "slow_start", "A new or recovered backend's share grows to its weight over this.", 0),
    Time<&LoadBalancing::decay>("decay", "How fast an old time to first token is forgotten (tau).",
                                0.1),
};
constexpr Section kLoadBalancing = {
    .fields = kLoadBalancingFields, .where = Where<LoadBalancing>, .params = [](void* object) {
      return &static_cast<LoadBalancing*>(object)->params;
    }};

constexpr Field kHealthCheckFields[] = {
    Flag<&HealthCheck::enabled>("enabled", "Ask each backend whether it is well."),
    Path<&HealthCheck::path>("path", "What is asked; 2xx means well. /grpc.health.v1.Health/Check is asked by gRPC."),
    Time<&HealthCheck::interval>("interval", "Between two checks of a backend.", 0.01),
    Time<&HealthCheck::timeout>("timeout", "No answer within this is a failed check."),
    Count<&HealthCheck::unhealthy_threshold>("unhealthy_threshold",
                                             "Failed checks in a row that take it out.", 1, 100),
    Count<&HealthCheck::healthy_threshold>("healthy_threshold",
                                           "Good checks in a row that bring it back.", 1, 100),
};
constexpr Section kHealthCheck = {.fields = kHealthCheckFields};

constexpr Field kCircuitBreakerFields[] = {
    Flag<&CircuitBreaker::enabled>("enabled", "Stop sending to a backend that fails requests."),
    Count<&CircuitBreaker::consecutive_failures>("consecutive_failures",
                                                 "Failures in a row that open it.", 1, 1000),
    Share<&CircuitBreaker::failure_rate_threshold>(
        "failure_rate_threshold", "Share of failures within `window` that opens it.", 0.01),
    Count<&CircuitBreaker::minimum_requests>(
        "minimum_requests", "Requests within `window` before the share counts.", 1, 1e6),
    Time<&CircuitBreaker::window>("window", "How far back failures are counted.", 0.1),
    Time<&CircuitBreaker::open_base>(
        "open_base", "How long it stays open first; doubled each time it opens again."),
    Time<&CircuitBreaker::open_max>("open_max", "The longest that it stays open."),
    Count<&CircuitBreaker::half_open_requests>("half_open_requests", "Trial requests side by side.",
                                               1, 63),
    Count<&CircuitBreaker::half_open_successes>("half_open_successes",
                                                "Good trial requests that close it.", 1, 63),
    Flag<&CircuitBreaker::error_events>(
        "error_events", "A stream whose first event is an error counts as a failure, unless that blames the client."),
    Share<&CircuitBreaker::max_ejection>(
        "max_ejection", "Share of the pool that may be open at once; one backend always may."),
    Share<&CircuitBreaker::panic_threshold>(
        "panic_threshold", "Below this share of healthy backends, health is ignored."),
};
constexpr Section kCircuitBreaker = {.fields = kCircuitBreakerFields};

constexpr Field kTimeoutFields[] = {
    Time<&Timeouts::connect>("connect", "To connect to a backend."),
    Time<&Timeouts::first_token>("first_token", "Streams: request sent to first token."),
    Time<&Timeouts::response>("response", "Other answers: request sent to their first byte."),
    Time<&Timeouts::idle>("idle", "Between two reads of an answer, by us or by its client."),
    Time<&Timeouts::tunnel>("tunnel", "An upgraded connection on which nothing moves, either way.",
                            kMs, 24 * kHour),
    Time<&Timeouts::total>("total", "A request's head to its answer's end; 0s: no limit.", 0,
                           24 * kHour),
    Time<&Timeouts::sse_keep_alive>(
        "sse_keep_alive", "A comment is sent when a stream says nothing for so long; 0s: never.", 0),
};
constexpr Section kTimeouts = {.fields = kTimeoutFields};

constexpr Field kRetryFields[] = {
    Count<&Retry::attempts>("attempts", "Further tries elsewhere before the answer has begun.", 0,
                            10),
    Share<&Retry::budget>("budget", "Share of the requests in progress that may be retries."),
    Count<&Retry::budget_min>("budget_min", "Retries side by side that are always allowed.", 0,
                              1000),
    Time<&Retry::per_try_timeout>(
        "per_try_timeout",
        "Another backend is tried after this, if a retry is allowed; 0s: only the timeouts count.", 0),
    Bytes<&Retry::body_bytes>(
        "body_bytes", "Bodies of other requests up to this are kept to be sent again; 0B: none.", 0,
        64 * kMiB),
};
constexpr Section kRetry = {.fields = kRetryFields};

constexpr Field kHedgeFields[] = {
    Flag<&Hedge::enabled>("enabled", "Try a second backend when the first is slower than most."),
    Share<&Hedge::percentile>("percentile",
                              "Share of recent times to first token that count as most.", 0.5),
    Time<&Hedge::min_delay>("min_delay", "The second try never begins earlier than this."),
};
constexpr Section kHedge = {.fields = kHedgeFields};

constexpr Field kQueueFields[] = {
    Count<&Queue::max>("max", "Requests that wait for a backend with room; beyond: 429.", 0, 1e6),
    Time<&Queue::wait>("wait", "How long one waits; then 429.", 0),
};
constexpr Section kQueue = {.fields = kQueueFields};

constexpr Field kLoadReportFields[] = {
    Flag<&LoadReports::push>("push", "Listen to each engine's stream of load reports."),
    Path<&LoadReports::path>("path", "Where the engine serves them; the stream is PATH?watch=1."),
    Time<&LoadReports::stale>("stale", "A pushed report counts for this long.", 0.1),
    Flag<&LoadReports::orca>("orca", "Read the endpoint-load-metrics header of answers."),
    Time<&LoadReports::poll>("poll", "Ask `path` this often; 0s: only while the stream is down.",
                             0),
};
constexpr Section kLoadReports = {.fields = kLoadReportFields};

constexpr Field kConnectionFields[] = {
    Choice<&Connections::protocol>("protocol", "auto|http1|http2",
                                   "What backends speak; auto: what TLS agrees on, without TLS "
                                   "HTTP/1.1. http2 without TLS is prior knowledge (h2c)."),
    Time<&Connections::idle_timeout>("idle_timeout",
                                     "A connection without a request is closed after this."),
    Count<&Connections::max_streams>(
        "max_streams", "HTTP/2: requests on one connection; the backend may allow fewer.", 1, 1e6),
    Count<&Connections::max_connections>(
        "max_connections", "HTTP/2: connections to one backend, per worker.", 1, 1024),
    Time<&Connections::ping_interval>(
        "ping_interval", "HTTP/2: silence after which a PING is sent; 0s: none is.", 0),
    Time<&Connections::ping_timeout>(
        "ping_timeout", "HTTP/2: no answer to a PING within this, and the connection is lost."),
};
constexpr Section kConnections = {.fields = kConnectionFields};

constexpr Field kBackendTlsFields[] = {
    Flag<&BackendTls::enabled>("enabled", "Speak TLS to the backends."),
    File<&BackendTls::ca_file>("ca_file",
                               "PEM: authorities that they are checked by; not given: the system's."),
    Text<&BackendTls::server_name>(
        "server_name", "The name that their certificates must have; not given: each one's host."),
    Flag<&BackendTls::insecure_skip_verify>("insecure_skip_verify",
                                            "Believe whoever answers: for experiments only."),
    File<&BackendTls::cert_file>("cert_file",
                                 "PEM: our certificate, for backends that ask for one."),
    File<&BackendTls::key_file>("key_file", "PEM: its key, without a passphrase."),
};
constexpr Section kBackendTls = {.fields = kBackendTlsFields};

// --- pools ---

constexpr Field kModelFields[] = {
    Required(Text<&Model::name>("name", "The model that requests ask for.")),
    Texts<&Model::aliases>("aliases", "Other names for it.", 64),
};
constexpr Section kModel = {.fields = kModelFields, .short_key = "name"};

constexpr Field kBackendFields[] = {
    Name<&Backend::name>("name", "Name in logs and metrics; its address if not given."),
    Required(Address<&Backend::address>("address", "Where the engine listens.")),
    Number<&Backend::weight>("weight", "Its size next to the others.", 0.001, 1e6),
    Count<&Backend::max_requests>(
        "max_requests", "Requests open there from this proxy; more wait in the queue.", 1, 1e6),
};
constexpr Section kBackend = {
    .fields = kBackendFields, .short_key = "address", .where = Where<Backend>};

constexpr Field kAuthFields[] = {
    Choice<&Auth::mode>("mode", "pass|replace|require",
                        "Pass the client's Authorization on; replace it by `key`; or require one "
                        "of the keys of `keys_file`."),
    Secret<&Auth::key>("key", "Sent to backends as Bearer KEY; only as ${NAME}."),
    SecretFile<&Auth::key>("key_file", "The same, read from a file."),
    SecretsFile<&Auth::keys>("keys_file", "Keys that clients may use, one a line."),
};
constexpr Section kAuth = {.fields = kAuthFields};

constexpr Field kPoolFields[] = {
    Required(Name<&Pool::name>("name", "Name in routes, logs and metrics.")),
    List<&Pool::models>("models", kModel, "What it serves; none: requests come by route only.",
                        1024),
    Required(List<&Pool::backends>("backends", kBackend, "The engines.", 1024)),
    Part<&Pool::auth>("auth", kAuth, "What happens to the Authorization header."),
    Name<&Pool::cache>("cache", "The cache that answers are kept in; not given: none."),
    Texts<&Pool::upgrades>("upgrades", "Protocols that a connection may change to: websocket, over HTTP/1.1, "
                                       "which TLS backends must speak too; not given: none, Upgrade is dropped.", 8),
    Part<&Pool::load_balancing>("load_balancing", kLoadBalancing, "How a backend is chosen."),
    Part<&Pool::health_check>("health_check", kHealthCheck, "Active checks."),
    Part<&Pool::circuit_breaker>("circuit_breaker", kCircuitBreaker,
                                 "When a backend that fails is left alone."),
    Part<&Pool::timeouts>("timeouts", kTimeouts, "How long backends may take."),
    Part<&Pool::retry>("retry", kRetry, "When a request is sent again."),
    Part<&Pool::hedge>("hedge", kHedge, "When a second backend is tried beside the first."),
    Part<&Pool::queue>("queue", kQueue, "Where requests wait when every backend is full."),
    Part<&Pool::load_reports>("load_reports", kLoadReports, "Where the engines' load comes from."),
    Part<&Pool::connections>("connections", kConnections, "What backends speak, and for how long."),
    Part<&Pool::tls>("tls", kBackendTls, "TLS to the backends."),
};
constexpr Section kPool = {.fields = kPoolFields, .where = Where<Pool>};

constexpr size_t kShared = 10;  // The last rows of a pool stand in `defaults` as well.
constexpr Section kDefaults = {.fields = std::span(kPoolFields).last<kShared>()};
static_assert(kDefaults.fields.front().key == "load_balancing");

// --- routes, caches, the rest ---

constexpr Field kMatchFields[] = {
    Path<&Route::path>("path", "The request's whole path."),
    Path<&Route::path_prefix>("path_prefix", "How its path begins."),
    Text<&Route::model>("model", "The model that it asks for; not given: any."),
};
constexpr Section kMatch = {.fields = kMatchFields};

constexpr Field kRouteFields[] = {
    Required(Name<&Route::name>("name", "Name in logs and `explain`.")),
    Group("match", kMatch, "Which requests; not given: all."),
    Name<&Route::pool>("pool", "Where they go; not given: the pool that has the model."),
};
constexpr Section kRoute = {.fields = kRouteFields, .where = Where<Route>};

constexpr Field kCacheFields[] = {
    Required(Name<&Cache::name>("name", "What pools call it.")),
    Bytes<&Cache::max_bytes>("max_bytes", "Memory for answers; the longest unused go first.", kKiB,
                             1024 * kGiB),
    Bytes<&Cache::max_entry_bytes>("max_entry_bytes", "Longer answers are not kept.", 256, kGiB),
    Time<&Cache::ttl>("ttl", "How long an answer is kept.", kMs, 720 * kHour),
    Flag<&Cache::only_deterministic>("only_deterministic",
                                     "Only requests with temperature 0 (or top_k 1) and n = 1."),
    Flag<&Cache::coalesce>("coalesce", "Identical requests in progress share one answer."),
};
constexpr Section kCache = {.fields = kCacheFields, .where = Where<Cache>};

constexpr Field kObservabilityFields[] = {
    Text<&Observability::access_log>("access_log", "stdout, off, or a file; JSON, one line each."),
    Count<&Observability::decisions>(
        "decisions", "Decision records kept for /decisions, an equal share by each worker.", 0, 1e6),
};
constexpr Section kObservability = {.fields = kObservabilityFields};

constexpr Field PoolList() {
  Field field =
      List<&Config::pools, PolicyFile>("pools", kPool, "Engines that serve the same.", 256);
  field.append = [](void* object) -> void* {
    auto& file = *static_cast<PolicyFile*>(object);
    return &file.pools.emplace_back(file.defaults);
  };
  return field;
}

// `defaults` is read before `pools`: each pool begins as a copy of it.
constexpr Field kFileFields[] = {
    Required(Text<&PolicyFile::version>("version", "v1; the first line of the file.")),
    Part<&Config::server, PolicyFile>("server", kServer, "The proxy itself."),
    Part<&PolicyFile::defaults>("defaults", kDefaults,
                                "Holds for every pool that does not say otherwise."),
    Required(PoolList()),
    List<&Config::routes, PolicyFile>(
        "routes", kRoute,
        "First match wins; none: by model, and everything else to the first pool.", 1024),
    List<&Config::caches, PolicyFile>("caches", kCache, "Where answers are kept.", 64),
    Part<&Config::observability, PolicyFile>("observability", kObservability, "What is recorded."),
};
constexpr Section kFile = {.fields = kFileFields};

}  // namespace

const Section& FileSection() { return kFile; }

}  // namespace penstock::config
