// Who the client is, and what backends are told of it: X-Forwarded-*, Forwarded, Via,
// and fields that only trusted peers may send.
//
// A peer is believed if the policy file says so (a range of addresses, or a number of
// hops); what anybody else says of its own origin is dropped, never passed on. Without
// such fields in a request, reading it allocates nothing and copies one address.
//
// Threads: the worker's thread only. Reused from request to request.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "proxy/base/ip.h"
#include "proxy/http/message.h"

namespace penstock {

// server.forwarding of one policy file, made ready. Immutable.
struct ForwardingRules {
  explicit ForwardingRules(const config::Forwarding& settings);

  const config::Forwarding& settings;
  std::vector<IpRange> trusted;              // xff_trusted_cidrs.
  std::vector<std::string> internal_names;   // internal_only_headers without '*' ...
  std::vector<std::string> internal_prefixes;  // ... and what stands before it.
  std::string via;                           // "1.1 NAME"; empty: none.

  bool Trusts(std::string_view ip) const;
  bool IsInternal(std::string_view name) const;
};

class Forwarding {
 public:
  static constexpr size_t kFieldsMax = 5;

  // Looks through the fields of `head` and drops what is not passed on as it came.
  // `peer`: "10.0.0.7:4711"; `secure`: the client came by TLS. False: Via says that the
  // request has been here before.
  bool Read(const ForwardingRules& rules, std::string_view peer, bool secure, RequestHead& head);

  // Who the client is: an address, with its port where the peer itself is the client.
  std::string_view client() const { return client_; }
  // The peer may speak for others, and send what is internal.
  bool trusted() const { return trusted_; }

  // The fields that are added towards a backend; views are valid until the next Read().
  std::span<const Header> fields() const { return {fields_.data(), count_}; }

 private:
  struct Said;                               // What came.
  void Collect(RequestHead& head, Said& said);
  void FindClient(const Said& said);
  void Write(std::string_view scheme, std::string_view authority, const Said& said);
  void Add(std::string_view name, std::string_view value, KnownHeader id) {
    fields_[count_++] = {name, value, id};
  }

  const ForwardingRules* rules_ = nullptr;
  std::array<char, 64> peer_storage_;
  std::string_view peer_ip_, client_;
  bool trusted_ = false;
  std::array<Header, kFieldsMax> fields_;
  size_t count_ = 0;
  std::string joined_for_, joined_forwarded_;   // Of several fields.
  std::string for_, forwarded_;                 // What is written.
};

}  // namespace penstock
