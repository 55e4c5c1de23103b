#include <algorithm>
#include <map>

#include "proxy/admin/families.h"

namespace penstock {

void AddTls(const Scrape& scrape, Families& families) {
  std::map<std::string, std::vector<const ListenerCells*>> listeners;
  for (const WorkerMetrics* worker : scrape.workers) {
    for (const ListenerCells* cells : worker->listeners.All()) listeners[cells->name].push_back(cells);
  }
  // Listeners that speak TLS; the others have nothing to say here.
  std::erase_if(listeners, [&](const auto& listener) {
    return std::ranges::none_of(scrape.tls.certificates, [&](const CertificateExpiry& one) {
      return one.listener == listener.first;
    });
  });
  for (const auto& [listener, parts] : listeners) {
    const auto add = [&](std::string_view result, auto&& cell) {
      double sum = 0;
      for (const ListenerCells* part : parts) sum += static_cast<double>(cell(*part).value());
      families.Add("penstock_tls_handshakes_total", {{"listener", listener}, {"result", result}}, sum);
    };
    add("full", [](const ListenerCells& cells) -> const Cell& { return cells.full; });
    add("resumed", [](const ListenerCells& cells) -> const Cell& { return cells.resumed; });
    for (size_t i = 0; i < kTlsFailureNames.size(); ++i) {
      add(kTlsFailureNames[i],
          [i](const ListenerCells& cells) -> const Cell& { return cells.failures[i]; });
    }
  }
  const TlsStatus& tls = scrape.tls;
  for (const CertificateExpiry& one : tls.certificates) {
    families.Add("penstock_certificate_expiry_timestamp_seconds",
                 {{"listener", one.listener}, {"pool", one.pool}, {"name", one.name}},
                 static_cast<double>(absl::ToUnixSeconds(one.not_after)));
  }
  families.Add("penstock_tls_reloads_total", {{"result", "accepted"}}, static_cast<double>(tls.accepted));
  families.Add("penstock_tls_reloads_total", {{"result", "rejected"}}, static_cast<double>(tls.rejected));
  families.Add("penstock_tls_last_reload_successful", {}, tls.last_ok ? 1 : 0);
}

}  // namespace penstock
