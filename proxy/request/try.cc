#include "proxy/request/try.h"

#include <utility>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"

namespace penstock {
namespace {

constexpr size_t kCapacityKept = 64 * 1024;

void Empty(std::string& text) {
  if (text.capacity() > kCapacityKept) std::string().swap(text);
  text.clear();
}

}  // namespace

void Try::Begin(TryKind kind_in, std::string_view name, bool fresh_in) {
  CHECK(!live() && call == nullptr && dialing == nullptr);
  stage = Stage::kConnecting;
  kind = kind_in;
  fresh = fresh_in;
  unwell = busy = error = false;
  rest = 0;
  limit = patience = kNever;
  when = event_count = 0;
  error_first = unclean = false;
  backend_name.assign(name);
  scanner.Clear();
  Empty(events);
  Empty(partial);
}

void Try::Keep(std::string_view data) {
  const size_t rest = scanner.partial_bytes();
  partial.append(data);
  if (partial.size() <= rest) return;
  const size_t whole = partial.size() - rest;
  events.append(partial, 0, whole);
  partial.erase(0, whole);
}

void Try::Leave() {
  if (dialing != nullptr && call == nullptr) dialing->Cancel(*this);
  dialing = nullptr;
  if (call != nullptr) std::exchange(call, nullptr)->Leave();
}

void Try::OnConnReady(BackendCall& ready) {
  dialing = nullptr;
  call = &ready;
  exchange.OnTryReady(*this);
}

void Try::OnAnswerHead(ResponseHead& head) { exchange.OnTryHead(*this, head); }
void Try::OnAnswerBody(std::string_view data) { exchange.OnTryBody(*this, data); }

void Try::OnAnswerEnd(std::span<Header> trailers) {
  call = nullptr;  // It has gone back to its pool.
  exchange.OnTryEnd(*this, trailers);
}

void Try::OnConnFailed(const ConnFailure& failure) {
  call = nullptr;
  dialing = nullptr;
  exchange.OnTryFailed(*this, failure);
}

void Try::OnConnWritable() { exchange.OnTryWritable(); }

}  // namespace penstock
