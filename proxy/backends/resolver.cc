#include "proxy/backends/resolver.h"

#include <algorithm>
#include <string>
#include <utility>

#include "proxy/base/log.h"
#include "proxy/base/status.h"

namespace penstock {

Resolver::Resolver(const WatchSeams& seams, Backend& backend,
                   absl::AnyInvocable<void()> on_address)
    : seams_(seams), backend_(backend), on_address_(std::move(on_address)),
      self_(std::make_shared<Resolver*>(this)) {}

Resolver::~Resolver() { *self_ = nullptr; }

void Resolver::Start() {
  if (Address::Parse(backend_.authority).ok()) return on_address_();
  // Carried over from another snapshot: in use already, the look-up may confirm it.
  if (!backend_.address().text.empty()) {
    on_address_();
  } else {
    backend_.state.SetHealth(Health::kDown, seams_.now());
  }
  LookUp();
}

void Resolver::LookUp() {
  const auto where = SplitHostPort(backend_.authority);
  if (!where.ok()) return OnResult(where.status());
  seams_.resolve(where->host, where->port,
                 [self = self_](absl::StatusOr<std::vector<Address>> result) {
    if (*self != nullptr) (*self)->OnResult(std::move(result));
  });
}

void Resolver::OnResult(absl::StatusOr<std::vector<Address>> result) {
  const std::string current = backend_.address().text;
  if (!result.ok() || result->empty()) {
    const std::string_view why = result.ok() ? "the name has no address" : S(result.status().message());
    if (current.empty()) backend_.SetTrouble(why);
    if (!std::exchange(complained_, true)) {
      LogWarn("backend {}/{} at {}: {}; {}", backend_.pool, backend_.name, backend_.authority, why,
              current.empty() ? "not used until it resolves" : "keeping " + current);
    }
  } else {
    complained_ = false;
    if (std::ranges::find(*result, current, &Address::text) == result->end()) {
      backend_.SetAddress(result->front());
      backend_.state.ForgetReport();
      backend_.state.SetHealth(Health::kUnknown, seams_.now());
      backend_.SetTrouble("");
      LogInfo("backend {}/{} at {}: {} (was {})", backend_.pool, backend_.name,
              backend_.authority, result->front().text, current.empty() ? "unresolved" : current);
      on_address_();
    }
  }
  const bool known = !backend_.address().text.empty();
  timer_ = seams_.timers.After(seams_.Jittered(known ? kRefresh : kRetry), [this] { LookUp(); });
}

}  // namespace penstock
