#include "proxy/net/tls_ticket_keys.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "proxy/base/check.h"

namespace penstock {

// Keys never move in memory: what is freed would not be wiped.
TlsTicketKeys::TlsTicketKeys() {
  keys_.reserve(2 * kKept);
  Add();
}

TlsTicketKeys::~TlsTicketKeys() {
  for (Key& key : keys_) OPENSSL_cleanse(&key, sizeof(key));
}

void TlsTicketKeys::Add() {
  Key key{};
  const bool made = RAND_bytes(key.name.data(), static_cast<int>(key.name.size())) == 1 &&
                    RAND_priv_bytes(key.cipher.data(), static_cast<int>(key.cipher.size())) == 1 &&
                    RAND_priv_bytes(key.digest.data(), static_cast<int>(key.digest.size())) == 1;
  CHECK(made, "this machine has no randomness");
  const std::lock_guard lock(mutex_);
  keys_.insert(keys_.begin(), key);
  OPENSSL_cleanse(&key, sizeof(key));
  DropOld();
}

void TlsTicketKeys::DropOld() {
  while (keys_.size() > kKept) {
    OPENSSL_cleanse(&keys_.back(), sizeof(Key));
    keys_.pop_back();
  }
}

static_assert(std::is_trivially_copyable_v<TlsTicketKeys::Key> && sizeof(TlsTicketKeys::Key) == 80);

std::string TlsTicketKeys::Export() const {
  const std::lock_guard lock(mutex_);
  return {reinterpret_cast<const char*>(keys_.data()), keys_.size() * sizeof(Key)};
}

bool TlsTicketKeys::Import(std::string_view bytes) {
  const size_t count = bytes.size() / sizeof(Key);
  if (count == 0 || count > kKept || bytes.size() != count * sizeof(Key)) return false;
  const std::lock_guard lock(mutex_);
  const size_t own = keys_.size();
  keys_.resize(own + count);
  std::memcpy(keys_.data() + own, bytes.data(), bytes.size());
  DropOld();
  return true;
}

void TlsTicketKeys::RotateAt(MonoTime now) {
  if (next_ != 0 && now < next_) return;
  if (next_ != 0) Add();
  next_ = now + kRotation;
}

TlsTicketKeys::Key TlsTicketKeys::Current() const {
  const std::lock_guard lock(mutex_);
  return keys_.front();
}

std::optional<TlsTicketKeys::Found> TlsTicketKeys::Find(const uint8_t* name) const {
  const std::lock_guard lock(mutex_);
  for (const Key& key : keys_) {
    if (std::equal(key.name.begin(), key.name.end(), name)) return Found{key, &key == &keys_.front()};
  }
  return std::nullopt;
}

}  // namespace penstock
