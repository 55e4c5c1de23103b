#include "proxy/net/tls_ticket_keys.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>

#include "proxy/base/check.h"

namespace penstock {

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
  while (keys_.size() > kKept) {
    OPENSSL_cleanse(&keys_.back(), sizeof(Key));
    keys_.pop_back();
  }
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
