#include "proxy/admin/admin.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "proxy/admin/backend_view.h"
#include "proxy/admin/metrics.h"
#include "proxy/backends/operator_words.h"
#include "proxy/base/ip.h"
#include "proxy/base/log.h"
#include "proxy/http/message.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kText = "text/plain; charset=utf-8";
constexpr std::string_view kMetricsText = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::string_view kLinks[] = {"/metrics", "/livez", "/readyz", "/backends",
                                       "/cache",   "/config", "/decisions"};

void Send(HttpAnswer& answer, int status, std::string_view type, std::string_view body,
          HeaderList headers = {}) {
  headers.push_back({"cache-control", "no-store"});
  headers.push_back({"x-content-type-options", "nosniff"});
  answer.Send(status, type, body, headers);
}

std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void SendJson(HttpAnswer& answer, const Json& json) { Send(answer, 200, kJson, Dump(json)); }

void SendError(HttpAnswer& answer, int status, std::string_view message, HeaderList headers = {}) {
  Send(answer, status, kJson, Dump({{"error", {{"message", message}}}}), std::move(headers));
}

void Done(HttpAnswer& answer, const HttpRequest& request, std::string_view what) {
  LogInfo("admin: {} (asked by {})", what, request.peer);
  SendJson(answer, {{"ok", true}, {"done", what}});
}

// The next step of a path, percent-decoded, and takes it off.
std::string TakeStep(std::string_view& path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  const size_t end = std::min(path.find('/'), path.size());
  std::string step;
  for (size_t i = 0; i < end; ++i) {
    unsigned value = 0;
    const char* digits = path.data() + i + 1;
    const bool escaped = path[i] == '%' && i + 2 < end &&
                         std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2;
    step += escaped ? static_cast<char>(value) : path[i];
    if (escaped) i += 2;
  }
  path.remove_prefix(end);
  return step;
}

// Any name may stand in Host for these: scrapers and probes go by names.
bool ForAnyHost(std::string_view path) {
  return path == "/metrics" || path == "/livez" || path == "/readyz";
}

// An IP address or localhost, with a port or without; or none, which no browser sends.
bool AskedByAddress(std::string_view host) {
  if (host.empty()) return true;
  const bool v6 = host.front() == '[';
  const size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && (!v6 || host[colon - 1] == ']')) host = host.substr(0, colon);
  if (v6) return host.back() == ']' && ParseIp(host.substr(1, host.size() - 2)).has_value();
  return EqualsIgnoringCase(host, "localhost") || ParseIp(host).has_value();
}

void SendIndex(HttpAnswer& answer, bool html) {
  std::string page = html ? "<!doctype html><title>penstock admin</title><ul>\n" : "";
  for (const std::string_view link : kLinks) {
    page += html ? fmt::format("<li><a href=\"{0}\">{0}</a>\n", link) : fmt::format("{}\n", link);
  }
  page += html ? "</ul>\n" : "";
  Send(answer, 200, html ? "text/html; charset=utf-8" : kText, page);
}

}  // namespace

AdminPages::AdminPages(AdminSources sources, AdminTime time)
    : sources_(std::move(sources)), time_(std::move(time)) {}

void AdminPages::Handle(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
  if (!ForAnyHost(request.path) && !AskedByAddress(request.Header("host"))) {
    return SendError(*answer, 421,
                     "this page is told where Host is an IP address or localhost: web pages can have "
                     "names of their own lead here");
  }
  if (request.method == "GET" || request.method == "HEAD") return Get(request, std::move(answer));
  if (request.method == "POST") return Post(request, std::move(answer));
  SendError(*answer, 405, "only GET and POST are answered here", {{"allow", "GET, HEAD, POST"}});
}

void AdminPages::Get(const HttpRequest& request, Answer answer) {
  const std::string_view path = request.path;
  if (path == "/") {
    return SendIndex(*answer, request.Header("accept").find("text/html") != std::string_view::npos);
  }
  if (path == "/metrics") return Metrics(std::move(answer));
  if (path == "/livez") return Send(*answer, 200, kText, "ok\n");
  if (path == "/readyz") return Ready(*answer);
  if (path == "/backends") return Backends(*answer);
  if (path == "/cache") return Cache(*answer);
  if (path == "/config") return Config(*answer);
  if (path == "/decisions") return Decisions("", std::move(answer));
  if (path.starts_with("/decisions/")) {
    std::string_view rest = path.substr(std::string_view("/decisions").size());
    const std::string id = TakeStep(rest);
    if (!id.empty() && rest.empty()) return Decisions(id, std::move(answer));
  }
  if (path.starts_with("/backends/") || path == "/cache/flush") {
    return SendError(*answer, 405, "operations are asked for with POST (curl -X POST)", {{"allow", "POST"}});
  }
  SendError(*answer, 404, fmt::format("no such page; there are {}", fmt::join(kLinks, ", ")));
}

void AdminPages::Post(const HttpRequest& request, Answer answer) {
  if (!request.from_loopback) {
    return SendError(*answer, 403, "changes are taken from loopback addresses only");
  }
  if (!request.Header("origin").empty()) {
    return SendError(*answer, 403, "changes are not taken from web pages (Origin is there)");
  }
  if (request.path == "/cache/flush") return FlushCache(request, *answer);
  if (request.path.starts_with("/backends/")) return OperateBackend(request, *answer);
  SendError(*answer, 404,
            "no such operation; there are /backends/POOL/NAME/drain, undrain, breaker/open, "
            "breaker/close, breaker/auto, and /cache/flush, of one cache with ?cache=NAME");
}

void AdminPages::Metrics(Answer answer) {
  auto scrape = std::make_shared<Scrape>();
  scrape->now = time_.now();
  if (sources_.fleet) scrape->fleet = sources_.fleet();
  if (sources_.workers) scrape->workers = sources_.workers();
  if (sources_.caches) scrape->caches = sources_.caches();
  if (sources_.policy) scrape->policy = sources_.policy();
  if (sources_.tls) scrape->tls = sources_.tls();
  if (sources_.overload) scrape->overload = sources_.overload();
  scrape->ready = !sources_.not_ready || sources_.not_ready().empty();
  scrape->version = sources_.version;
  scrape->revision = sources_.revision;
  auto text = std::make_shared<std::string>();
  time_.offload([scrape, text] { *text = RenderMetrics(*scrape); },
                [text, answer = std::move(answer)] { Send(*answer, 200, kMetricsText, *text); });
}

void AdminPages::Ready(HttpAnswer& answer) {
  const std::string why = sources_.not_ready ? sources_.not_ready() : std::string();
  if (why.empty()) return Send(answer, 200, kText, "ok\n");
  Send(answer, 503, kText, why + "\n");
}

void AdminPages::Backends(HttpAnswer& answer) {
  const auto fleet = sources_.fleet ? sources_.fleet() : nullptr;
  if (!fleet) return SendError(answer, 503, "no policy file is in force yet");
  Send(answer, 200, kJson,
       BackendsJson(*fleet, time_.now(), time_.wall_now(), sources_.last_score));
}

void AdminPages::Cache(HttpAnswer& answer) {
  Json caches = Json::array();
  if (sources_.caches) {
    for (const auto& cache : sources_.caches()) {
      const ResultCache::Stats stats = cache->stats();
      const ResultCacheSettings& settings = cache->settings();
      const uint64_t lookups = stats.hits + stats.misses + stats.joins + stats.stale;
      const double served = static_cast<double>(stats.hits + stats.joins);
      caches.push_back({{"name", settings.name},
                        {"hit_ratio", lookups > 0 ? Json(served / static_cast<double>(lookups)) : Json(nullptr)},
                        {"hits", stats.hits},
                        {"joins", stats.joins},
                        {"misses", stats.misses},
                        {"stale", stats.stale},
                        {"bypasses", stats.bypasses},
                        {"entries", stats.entries},
                        {"bytes", stats.bytes},
                        {"max_bytes", settings.max_bytes},
                        {"in_progress", stats.flights},
                        {"evicted", stats.evicted},
                        {"expired", stats.expired},
                        {"flushed", stats.flushed},
                        {"too_large", stats.too_large}});
    }
  }
  SendJson(answer, {{"caches", std::move(caches)}});
}

void AdminPages::Config(HttpAnswer& answer) {
  const std::string text = sources_.config_text ? sources_.config_text() : std::string();
  HeaderList headers;
  if (sources_.policy) {
    const PolicyStatus status = sources_.policy();
    headers.push_back({"x-penstock-policy-hash", fmt::format("{:016x}", status.hash)});
    headers.push_back({"x-penstock-policy-generation", fmt::format("{}", status.generation)});
    headers.push_back({"x-penstock-last-reload", status.last_reload_ok ? "accepted" : "rejected"});
  }
  Send(answer, 200, "application/yaml", text, std::move(headers));
}

void AdminPages::Decisions(std::string_view request_id, Answer answer) {
  if (!sources_.decisions) return SendError(*answer, 404, "no decisions are recorded");
  sources_.decisions(request_id, [id = std::string(request_id), answer = std::move(answer)](
                                     std::vector<std::string> records) {
    if (records.empty() && !id.empty()) {
      return SendError(*answer, 404,
                       fmt::format("no decision about request {} is recorded: it had no choice of "
                                   "a backend, or newer ones have taken its place", id));
    }
    // Each is JSON already.
    Send(*answer, 200, kJson, fmt::format("{{\"decisions\": [\n{}\n]}}\n", fmt::join(records, ",\n")));
  });
}

void AdminPages::FlushCache(const HttpRequest& request, HttpAnswer& answer) {
  const std::string_view wanted = request.QueryValue("cache");
  size_t flushed = 0;
  if (sources_.caches) {
    for (const auto& cache : sources_.caches()) {
      if (!wanted.empty() && cache->settings().name != wanted) continue;
      cache->Flush();
      ++flushed;
    }
  }
  if (flushed == 0) {
    return SendError(answer, 404, wanted.empty() ? "there is no cache"
                                                 : fmt::format("no cache is named {}", wanted));
  }
  Done(answer, request, wanted.empty() ? "caches flushed" : fmt::format("cache {} flushed", wanted));
}

void AdminPages::OperateBackend(const HttpRequest& request, HttpAnswer& answer) {
  std::string_view rest = std::string_view(request.path).substr(std::string_view("/backends").size());
  const std::string pool_name = TakeStep(rest);
  const std::string name = TakeStep(rest);
  const auto fleet = sources_.fleet ? sources_.fleet() : nullptr;
  const std::shared_ptr<Backend> backend = fleet ? FindBackend(*fleet, pool_name, name) : nullptr;
  if (!backend) {
    return SendError(answer, 404,
                     fmt::format("pool {} has no backend {}; GET /backends lists them", pool_name, name));
  }
  if (!rest.starts_with('/') || !Operate(*backend, rest.substr(1), time_.now())) {
    return SendError(answer, 404,
                     "no such operation; there are drain, undrain, breaker/open, breaker/close, "
                     "breaker/auto");
  }
  Done(answer, request, fmt::format("backend {}/{}: {}", pool_name, name, rest.substr(1)));
}

namespace {

class ListeningAdmin final : public Admin {
 public:
  ListeningAdmin(Loop& loop, AdminSources sources)
      : pages_(std::move(sources),
               {.now = [&loop] { return loop.now(); },
                .wall_now = [&loop] { return loop.wall_now(); },
                .offload = [&loop](Loop::Task work, Loop::Task done) {
                  loop.Offload(std::move(work), std::move(done));
                }}) {}

  absl::Status Listen(Loop& loop, const Address& address) {
    auto server = HttpServer::Listen(loop, address, Options(), Handler());
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }
  void Listen(Loop& loop, ListeningSocket socket) {
    server_ = HttpServer::Listen(loop, std::move(socket), Options(), Handler());
  }
  const Address& address() const override { return server_->address(); }

 private:
  static HttpServerOptions Options() {
    HttpServerOptions options;
    options.body_bytes = 64 * 1024;
    options.connections = 256;
    return options;
  }
  HttpServer::Handler Handler() {
    return [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
      pages_.Handle(request, std::move(answer));
    };
  }

  AdminPages pages_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Admin>> Admin::Listen(Loop& loop, const Address& address,
                                                     AdminSources sources) {
  auto admin = std::make_unique<ListeningAdmin>(loop, std::move(sources));
  if (auto status = admin->Listen(loop, address); !status.ok()) return status;
  return std::unique_ptr<Admin>(std::move(admin));
}

std::unique_ptr<Admin> Admin::Listen(Loop& loop, ListeningSocket socket, AdminSources sources) {
  auto admin = std::make_unique<ListeningAdmin>(loop, std::move(sources));
  admin->Listen(loop, std::move(socket));
  return admin;
}

}  // namespace penstock
