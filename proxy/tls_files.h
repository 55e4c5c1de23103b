// The files behind every `tls:` of a policy file: what is wrong with them, and the
// contexts that are made from them, anew whenever their contents change.
//
// Contents are compared, not the files' identity: a renewal tool replaces a file, a
// Secret swaps a symbolic link above it, and both look like new text. What does not
// fit (half a renewal, garbage, a file that is gone) is refused and told once, and the
// context before it stays in force.
//
// Threads: the control thread only; the contexts themselves go to any.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "config/config.h"
#include "config/diagnostic.h"
#include "proxy/admin/admin.h"
#include "proxy/backends/backend.h"
#include "proxy/net/tls_client_context.h"
#include "proxy/net/tls_server_context.h"

namespace penstock {

using ReadFile = std::function<absl::StatusOr<std::string>(const std::string& path)>;

// Every problem of every file that `config` names, at the place that names it.
std::vector<config::Diagnostic> CheckTlsFiles(const config::Config& config,
                                              const config::Locations& where, const ReadFile& read,
                                              absl::Time now);

class TlsFiles {
 public:
  TlsFiles(ReadFile read, const TlsTicketKeys& keys) : read_(std::move(read)), keys_(keys) {}

  // Makes what `config` asks for; what stays the same is kept. Error: nothing changed.
  absl::Status Use(const config::Config& config, absl::Time now);
  // Reads all files again. True: some context is a new one.
  bool Look(absl::Time now);

  // Of the listener with that address in the policy file; null: it speaks no TLS.
  std::shared_ptr<const TlsServerContext> OfListener(std::string_view address) const;
  // Tells each backend of `fleet` how to speak TLS, or not to.
  void GiveTo(const Fleet& fleet);

  std::vector<CertificateExpiry> expiries() const;
  // Of changed files; not of what Use() read.
  uint64_t accepted() const { return accepted_; }
  uint64_t rejected() const { return rejected_; }
  bool last_ok() const;                // What lies on disk is in force everywhere.

 private:
  using Texts = std::vector<std::string>;   // Of one site's files, in the order that it names them.
  struct Site {
    std::string what;                  // "listener public", "pool chat"
    std::string key;                   // A listener's address, a pool's name.
    config::ListenerTls listener;      // One of these two.
    std::vector<std::string> protocols;   // Of a listener.
    config::BackendTls pool;
    bool is_listener = false;
    std::vector<std::string> paths;    // As they are opened.
    Texts texts;
    std::string refused;               // What was wrong with the files' last contents; told already.
    std::shared_ptr<const TlsServerContext> server;
    std::shared_ptr<const TlsClientContext> client;
    std::map<std::string, std::shared_ptr<const TlsTarget>> targets;   // By name.
    std::vector<CertificateExpiry> expiries;
  };

  static std::vector<Site> SitesOf(const config::Config& config);
  absl::StatusOr<Texts> Read(const Site& site) const;
  absl::Status Make(Site& site, Texts texts, absl::Time now) const;
  static void Warn(const Site& site, absl::Time now);
  absl::Status MakeServer(Site& site) const;
  static absl::Status MakeClient(Site& site);

  const ReadFile read_;
  const TlsTicketKeys& keys_;
  std::vector<Site> sites_;
  uint64_t accepted_ = 0;
  uint64_t rejected_ = 0;
};

}  // namespace penstock
