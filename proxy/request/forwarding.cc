#include "proxy/request/forwarding.h"

#include <algorithm>

#include "proxy/http/forwarded.h"
#include "proxy/http/request_target.h"

namespace penstock {
namespace {

using Action = config::ForwardAction;

constexpr std::string_view kOurs = "x-penstock-";

bool HasPrefix(std::string_view name, std::string_view prefix) {
  return name.size() >= prefix.size() && EqualsIgnoringCase(name.substr(0, prefix.size()), prefix);
}

// "1.1 name (comment)": the name.
bool ViaNames(std::string_view element, std::string_view name) {
  const size_t blank = element.find(' ');
  if (blank == std::string_view::npos) return false;
  const std::string_view rest = TrimSpace(element.substr(blank));
  return EqualsIgnoringCase(rest.substr(0, rest.find(' ')), name);
}

// A field may come on several lines; the usual one is not copied.
void Join(std::string_view value, std::string_view& all, std::string& storage) {
  if (all.empty()) {
    all = value;
    return;
  }
  if (storage.empty()) storage.assign(all);
  storage += ", ";
  storage += value;
  all = storage;
}

}  // namespace

ForwardingRules::ForwardingRules(const config::Forwarding& its_settings) : settings(its_settings) {
  for (const std::string& range : settings.xff_trusted_cidrs) {
    if (const std::optional<IpRange> parsed = ParseIpRange(range)) trusted.push_back(*parsed);
  }
  for (const std::string& name : settings.internal_only_headers) {
    if (name.ends_with('*')) {
      internal_prefixes.push_back(name.substr(0, name.size() - 1));
    } else {
      internal_names.push_back(name);
    }
  }
  if (!settings.via.empty()) via = "1.1 " + settings.via;
}

bool ForwardingRules::Trusts(std::string_view ip) const {
  const std::optional<Ip> parsed = ParseIp(ip);
  return parsed && std::any_of(trusted.begin(), trusted.end(),
                               [&](const IpRange& range) { return range.Contains(*parsed); });
}

bool ForwardingRules::IsInternal(std::string_view name) const {
  if (HasPrefix(name, kOurs)) return true;
  for (const std::string& internal : internal_names) {
    if (EqualsIgnoringCase(name, internal)) return true;
  }
  for (const std::string& prefix : internal_prefixes) {
    if (HasPrefix(name, prefix)) return true;
  }
  return false;
}

struct Forwarding::Said {
  std::string_view hops;          // X-Forwarded-For.
  std::string_view forwarded;
  ForwardedList list;             // Of `forwarded`, if it is well formed.
  Header* proto = nullptr;
  Header* host = nullptr;
  bool been_here = false;
};

bool Forwarding::Read(const ForwardingRules& rules, std::string_view peer, bool secure, RequestHead& head) {
  rules_ = &rules;
  count_ = 0;
  joined_for_.clear();
  joined_forwarded_.clear();
  const std::string_view kept = peer.substr(0, peer_storage_.size());
  kept.copy(peer_storage_.data(), kept.size());
  client_ = {peer_storage_.data(), kept.size()};
  peer_ip_ = IpOfPeer(client_);
  trusted_ = rules.trusted.empty()
                 ? rules.settings.xff_num_trusted_hops > 0 || !rules.settings.use_remote_address
                 : rules.Trusts(peer_ip_);
  Said said;
  Collect(head, said);
  if (said.been_here) return false;
  if (trusted_) {
    if (!said.forwarded.empty() && !ReadForwarded(said.forwarded, said.list)) said.forwarded = {};
    FindClient(said);
  }
  Write(secure ? "https" : "http", head.authority, said);
  return true;
}

void Forwarding::Collect(RequestHead& head, Said& said) {
  const config::Forwarding& settings = rules_->settings;
  for (Header& header : head.headers) {
    switch (header.id) {
      case KnownHeader::kXForwardedFor:
        header.dropped |= settings.x_forwarded_for != Action::kIgnore;
        if (trusted_) Join(header.value, said.hops, joined_for_);
        break;
      case KnownHeader::kForwarded:
        header.dropped |= settings.forwarded != Action::kIgnore;
        if (trusted_) Join(header.value, said.forwarded, joined_forwarded_);
        break;
      case KnownHeader::kXForwardedProto:
        header.dropped |= settings.x_forwarded_proto != Action::kIgnore;
        said.proto = &header;
        break;
      case KnownHeader::kXForwardedHost:
        header.dropped |= settings.x_forwarded_host != Action::kIgnore;
        said.host = &header;
        break;
      case KnownHeader::kXForwardedClientCert:
        header.dropped |= settings.client_cert == config::ClientCertDetails::kSanitize;
        break;
      case KnownHeader::kVia:
        if (settings.via.empty()) break;
        ForEachToken(header.value, [&](std::string_view element) {
          said.been_here |= ViaNames(element, settings.via);
        });
        break;
      case KnownHeader::kOther:
      case KnownHeader::kXPenstockBackend:
      case KnownHeader::kXPenstockDecision:
        if (!trusted_ && rules_->IsInternal(header.name)) header.dropped = true;
        break;
      default: break;
    }
  }
}

// The nearest address that is not of a peer that we trust, as far as it can be told.
void Forwarding::FindClient(const Said& said) {
  const config::Forwarding& settings = rules_->settings;
  uint32_t left = settings.xff_num_trusted_hops + (settings.use_remote_address ? 0 : 1);
  std::string_view found;
  // True: the next one is asked for.
  const auto look = [&](std::string_view node) {
    const std::string_view ip = AddressOfNode(node);
    if (ip.empty()) return false;
    if (!rules_->trusted.empty()) {
      found = ip;
      return rules_->Trusts(ip);
    }
    if (--left == 0) found = ip;
    return left > 0;
  };
  if (!said.hops.empty()) {
    ForEachFromTheEnd(said.hops, look);
  } else {
    for (size_t i = 0; i < said.list.count && look(said.list.hops[i].client); ++i) {}
  }
  if (!found.empty()) client_ = found;
}

void Forwarding::Write(std::string_view scheme, std::string_view authority, const Said& said) {
  const config::Forwarding& settings = rules_->settings;
  const std::string_view client_ip = client_.data() == peer_storage_.data() ? peer_ip_ : client_;
  if (settings.x_forwarded_for == Action::kReplace) {
    Add("x-forwarded-for", client_ip, KnownHeader::kXForwardedFor);
  } else if (settings.x_forwarded_for == Action::kAppend) {
    std::string_view value = peer_ip_;
    if (!said.hops.empty()) {
      for_.assign(LastElements(said.hops, kForwardedHopsMax - 1)).append(", ").append(peer_ip_);
      value = for_;
    }
    Add("x-forwarded-for", value, KnownHeader::kXForwardedFor);
  }
  // Of these there is one value: a trusted peer's, where it is one, else ours.
  const auto add_one = [&](Action action, Header* theirs, bool fits, std::string_view name,
                           std::string_view ours, KnownHeader id) {
    const bool keep = action == Action::kAppend && trusted_ && theirs != nullptr && fits;
    if (keep) Add(name, theirs->value, id);
    if (!keep && (action == Action::kAppend || action == Action::kReplace)) Add(name, ours, id);
  };
  add_one(settings.x_forwarded_proto, said.proto,
          said.proto != nullptr && (said.proto->value == "http" || said.proto->value == "https"),
          "x-forwarded-proto", scheme, KnownHeader::kXForwardedProto);
  add_one(settings.x_forwarded_host, said.host, said.host != nullptr && IsAuthority(said.host->value),
          "x-forwarded-host", authority, KnownHeader::kXForwardedHost);
  if (settings.forwarded == Action::kAppend || settings.forwarded == Action::kReplace) {
    const bool append = settings.forwarded == Action::kAppend;
    forwarded_.clear();
    if (append && !said.forwarded.empty()) {
      forwarded_.append(LastElements(said.forwarded, kForwardedHopsMax - 1)).append(", ");
    }
    AppendForwarded(append ? peer_ip_ : client_ip, authority, scheme, forwarded_);
    Add("forwarded", forwarded_, KnownHeader::kForwarded);
  }
  if (!rules_->via.empty()) Add("via", rules_->via, KnownHeader::kVia);
}

}  // namespace penstock
