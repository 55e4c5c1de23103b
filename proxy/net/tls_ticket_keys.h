// The keys that session tickets are sealed with: made here, kept in memory only,
// shared by all workers (a client may come back to any of them) and replaced by
// and by, so that a key that leaks opens the sessions of a few hours at most. The process
// that takes over from this one gets them too, and never a file.
//
// Threads: any; a handshake takes a lock for a copy of one key.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/time.h"

namespace penstock {

class TlsTicketKeys {
 public:
  static constexpr MonoTime kRotation = 3600 * kSecond;
  static constexpr size_t kKept = 3;   // The one in use and those before it.

  struct Key {
    std::array<uint8_t, 16> name;      // In the clear in each ticket.
    std::array<uint8_t, 32> cipher;    // AES-256-CBC.
    std::array<uint8_t, 32> digest;    // HMAC-SHA-256.
  };

  TlsTicketKeys();
  ~TlsTicketKeys();
  TlsTicketKeys(const TlsTicketKeys&) = delete;
  TlsTicketKeys& operator=(const TlsTicketKeys&) = delete;

  // Puts a new key into use each kRotation. To be called now and then.
  void RotateAt(MonoTime now);

  // All of them, for another process; whoever is done with the bytes wipes them.
  std::string Export() const;
  // Adds those of another process behind the own one: they open tickets, and seal none.
  // False: the bytes are not of an Export().
  bool Import(std::string_view bytes);

  Key Current() const;
  struct Found {
    Key key;
    bool current = false;
  };
  std::optional<Found> Find(const uint8_t* name) const;   // 16 bytes.

 private:
  void Add();
  void DropOld();                      // REQUIRES: mutex_ is held.

  mutable std::mutex mutex_;           // Guards the keys.
  std::vector<Key> keys_;              // Newest first.
  MonoTime next_ = 0;
};

}  // namespace penstock
