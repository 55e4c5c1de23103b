#include "proxy/tls_files.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/net/address.h"
#include "proxy/net/tls_certificate.h"

namespace penstock {
namespace {

using config::Diagnostic;

// What is offered to clients, best first.
std::vector<std::string> AlpnOf(const std::vector<std::string>& protocols) {
  std::vector<std::string> alpn;
  for (const auto& [name, word] : {std::pair("http2", "h2"), std::pair("http1", "http/1.1")}) {
    if (std::find(protocols.begin(), protocols.end(), name) != protocols.end()) alpn.push_back(word);
  }
  return alpn;
}

class Checker {
 public:
  Checker(const config::Config& config, const config::Locations& where, const ReadFile& read,
          absl::Time now)
      : config_(config), where_(where), read_(read), now_(now) {}

  std::vector<Diagnostic> Check() {
    for (size_t i = 0; i < config_.server.listeners.size(); ++i) {
      const config::ListenerTls& tls = config_.server.listeners[i].tls;
      const std::string path = fmt::format("server.listeners[{}].tls.", i);
      for (size_t c = 0; c < tls.certificates.size(); ++c) {
        const std::string at = fmt::format("{}certificates[{}].", path, c);
        CheckPair(at, tls.certificates[c].cert_file, tls.certificates[c].key_file);
      }
      CheckCa(path + "client_ca_file", tls.client_ca_file);
    }
    for (size_t i = 0; i < config_.pools.size(); ++i) {
      const config::BackendTls& tls = config_.pools[i].tls;
      if (!tls.enabled) continue;
      const std::string path = fmt::format("pools[{}].tls.", i);
      CheckCa(path + "ca_file", tls.ca_file);
      if (!tls.cert_file.empty()) CheckPair(path, tls.cert_file, tls.key_file);
    }
    return std::move(found_);
  }

 private:
  // Pools that inherit a file from `defaults` say it there, and once.
  void Say(const std::string& path, std::string message, bool warning) {
    std::string at = path;
    if (const size_t end = path.find("].tls."); path.starts_with("pools[") && !where_.contains(path)) {
      const std::string shared = "defaults" + path.substr(end + 1);
      if (where_.contains(shared)) at = shared;
    }
    if (!said_.insert(at + message).second) return;
    found_.push_back({.file = config_.file, .where = config::Find(where_, at), .path = at,
                      .message = std::move(message), .warning = warning});
  }

  std::optional<std::string> Text(const std::string& path, const std::string& file) {
    auto text = read_(config::PathOf(config_.file, file));
    if (text.ok()) return *std::move(text);
    Say(path, std::string(S(text.status().message())), false);
    return std::nullopt;
  }

  void CheckPair(const std::string& path, const std::string& cert_file, const std::string& key_file) {
    const auto certificates = Text(path + "cert_file", cert_file);
    const auto key = Text(path + "key_file", key_file);
    if (!certificates || !key) return;
    for (const CertificateProblem& problem : CheckKeyPair(*certificates, *key, now_)) {
      const bool of_key = problem.of == CertificateProblem::Of::kKey;
      Say(path + (of_key ? "key_file" : "cert_file"),
          fmt::format("{}: {}", of_key ? key_file : cert_file, problem.message), problem.warning);
    }
  }

  void CheckCa(const std::string& path, const std::string& file) {
    if (file.empty()) return;
    const auto text = Text(path, file);
    if (!text) return;
    for (const CertificateProblem& problem : CheckAuthorities(*text, now_)) {
      Say(path, fmt::format("{}: {}", file, problem.message), problem.warning);
    }
  }

  const config::Config& config_;
  const config::Locations& where_;
  const ReadFile& read_;
  const absl::Time now_;
  std::vector<Diagnostic> found_;
  std::set<std::string> said_;
};

}  // namespace

std::vector<Diagnostic> CheckTlsFiles(const config::Config& config, const config::Locations& where,
                                      const ReadFile& read, absl::Time now) {
  return Checker(config, where, read, now).Check();
}

// A listener's files: each certificate and its key, then the clients' authorities. A
// pool's: our certificate and key, then the authorities. Empty names stay empty.
std::vector<TlsFiles::Site> TlsFiles::SitesOf(const config::Config& config) {
  std::vector<Site> sites;
  const auto add = [&](Site& site, const std::string& file) {
    site.paths.push_back(file.empty() ? "" : config::PathOf(config.file, file));
  };
  for (const config::Listener& listener : config.server.listeners) {
    if (!listener.tls.enabled()) continue;
    Site& site = sites.emplace_back();
    site.what = "listener " + listener.name;
    site.key = listener.address;
    site.listener = listener.tls;
    site.protocols = listener.protocols;
    site.is_listener = true;
    for (const config::TlsCertificate& pair : listener.tls.certificates) {
      add(site, pair.cert_file);
      add(site, pair.key_file);
      site.expiries.push_back({.listener = listener.name, .name = pair.cert_file});
    }
    add(site, listener.tls.client_ca_file);
  }
  for (const config::Pool& pool : config.pools) {
    if (!pool.tls.enabled) continue;
    Site& site = sites.emplace_back();
    site.what = "pool " + pool.name;
    site.key = pool.name;
    site.pool = pool.tls;
    add(site, pool.tls.cert_file);
    add(site, pool.tls.key_file);
    add(site, pool.tls.ca_file);
    if (!pool.tls.cert_file.empty()) site.expiries.push_back({.pool = pool.name, .name = pool.tls.cert_file});
  }
  return sites;
}

absl::StatusOr<TlsFiles::Texts> TlsFiles::Read(const Site& site) const {
  Texts texts;
  for (const std::string& path : site.paths) {
    auto text = path.empty() ? absl::StatusOr<std::string>("") : read_(path);
    if (!text.ok()) return text.status();
    texts.push_back(*std::move(text));
  }
  return texts;
}

// Fills `site` from `texts`; on an error it is as it was.
absl::Status TlsFiles::Make(Site& site, Texts texts, absl::Time now) const {
  for (size_t i = 0; i < site.expiries.size(); ++i) {
    const size_t at = 2 * i;   // A certificate stands before its key.
    for (const CertificateProblem& problem : CheckKeyPair(texts[at], texts[at + 1], now)) {
      const bool of_key = problem.of == CertificateProblem::Of::kKey;
      if (problem.warning) continue;
      return absl::InvalidArgumentError(
          A(fmt::format("{}: {}", site.paths[at + (of_key ? 1 : 0)], problem.message)));
    }
  }
  texts.swap(site.texts);
  const absl::Status made = site.is_listener ? MakeServer(site) : MakeClient(site);
  if (!made.ok()) {
    texts.swap(site.texts);
    return absl::Status(made.code(), A(fmt::format("{}: {}", site.paths.back(), S(made.message()))));
  }
  for (size_t i = 0; i < site.expiries.size(); ++i) {
    if (const auto facts = ReadCertificate(site.texts[2 * i]); facts.ok()) {
      site.expiries[i].not_after = facts->not_after;
    }
  }
  site.refused.clear();
  return absl::OkStatus();
}

absl::Status TlsFiles::MakeServer(Site& site) const {
  TlsServerSettings settings;
  for (size_t i = 0; i < site.listener.certificates.size(); ++i) {
    settings.certificates.push_back({site.texts[2 * i], site.texts[2 * i + 1]});
  }
  settings.require_sni = site.listener.require_sni;
  settings.only_13 = site.listener.minimum_version == config::TlsVersion::k13;
  settings.client_authorities = site.texts.back();
  switch (site.listener.client_certificates) {
    case config::ClientCertificateMode::kOff: break;
    case config::ClientCertificateMode::kOptional:
      settings.client_certificates = ClientCertificates::kOptional;
      break;
    case config::ClientCertificateMode::kRequired:
      settings.client_certificates = ClientCertificates::kRequired;
      break;
  }
  settings.alpn = AlpnOf(site.protocols);
  settings.scope = site.key;
  auto made = TlsServerContext::Create(settings, keys_);
  if (!made.ok()) return made.status();
  site.server = *std::move(made);
  return absl::OkStatus();
}

absl::Status TlsFiles::MakeClient(Site& site) {
  TlsClientSettings settings;
  settings.own = {site.texts[0], site.texts[1]};
  settings.authorities = site.texts[2];
  settings.insecure_skip_verify = site.pool.insecure_skip_verify;
  auto made = TlsClientContext::Create(settings);
  if (!made.ok()) return made.status();
  site.client = *std::move(made);
  site.targets.clear();
  return absl::OkStatus();
}

absl::Status TlsFiles::Use(const config::Config& config, absl::Time now) {
  std::vector<Site> next = SitesOf(config);
  for (Site& site : next) {
    auto texts = Read(site);
    if (!texts.ok()) return texts.status();
    const auto before = std::find_if(sites_.begin(), sites_.end(), [&](const Site& old) {
      return old.is_listener == site.is_listener && old.key == site.key &&
             old.listener == site.listener && old.protocols == site.protocols &&
             old.pool == site.pool && old.texts == *texts;
    });
    if (before != sites_.end()) {
      const std::string what = std::move(site.what);
      std::vector<CertificateExpiry> expiries = std::move(site.expiries);
      site = *before;
      site.what = what;
      site.refused.clear();
      for (size_t i = 0; i < expiries.size(); ++i) site.expiries[i].listener = expiries[i].listener;
      continue;
    }
    RETURN_IF_ERROR(Make(site, *std::move(texts), now));
  }
  sites_ = std::move(next);
  return absl::OkStatus();
}

// What is good enough to be used, and not good: expired, say.
void TlsFiles::Warn(const Site& site, absl::Time now) {
  for (size_t i = 0; i < site.expiries.size(); ++i) {
    const size_t at = 2 * i;
    for (const CertificateProblem& problem : CheckKeyPair(site.texts[at], site.texts[at + 1], now)) {
      LogWarn("{}: {}: {}", site.what, site.paths[at], problem.message);
    }
  }
}

bool TlsFiles::Look(absl::Time now) {
  bool changed = false;
  for (Site& site : sites_) {
    auto texts = Read(site);
    if (texts.ok() && *texts == site.texts) {
      site.refused.clear();          // It is as it was, again.
      continue;
    }
    const absl::Status made = texts.ok() ? Make(site, *std::move(texts), now) : texts.status();
    if (made.ok()) {
      ++accepted_;
      changed = true;
      LogInfo("{}: TLS files changed; new connections use them", site.what);
      Warn(site, now);
      continue;
    }
    if (site.refused == S(made.message())) continue;
    site.refused = S(made.message());
    ++rejected_;
    LogError("{}: TLS files changed and cannot be used, the last good ones stay: {}", site.what,
             site.refused);
  }
  return changed;
}

bool TlsFiles::last_ok() const {
  return std::all_of(sites_.begin(), sites_.end(), [](const Site& site) { return site.refused.empty(); });
}

std::shared_ptr<const TlsServerContext> TlsFiles::OfListener(std::string_view address) const {
  for (const Site& site : sites_) {
    if (site.is_listener && site.key == address) return site.server;
  }
  return nullptr;
}

void TlsFiles::GiveTo(const Fleet& fleet) {
  for (const auto& pool : fleet.pools) {
    const auto site = std::find_if(sites_.begin(), sites_.end(), [&](const Site& one) {
      return !one.is_listener && one.key == pool->settings.name;
    });
    for (const auto& backend : pool->backends) {
      if (site == sites_.end()) {
        backend->SetTls(nullptr);
        continue;
      }
      std::string name = site->pool.server_name;
      if (name.empty()) {
        if (const auto split = SplitHostPort(backend->authority); split.ok()) name = split->host;
      }
      std::shared_ptr<const TlsTarget>& target = site->targets[name];
      if (target == nullptr) target = std::make_shared<TlsTarget>(site->client, name);
      backend->SetTls(target);
    }
  }
}

std::vector<CertificateExpiry> TlsFiles::expiries() const {
  std::vector<CertificateExpiry> all;
  for (const Site& site : sites_) all.insert(all.end(), site.expiries.begin(), site.expiries.end());
  return all;
}

}  // namespace penstock
