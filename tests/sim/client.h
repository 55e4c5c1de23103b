// Clients of the simulation: each one connection to the proxy, over HTTP/1 (one request
// after the other, or pipelined) or HTTP/2 (side by side). What they ask comes from the
// traffic; how they send, read and leave is their own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/backend.h"
#include "tests/sim/ledger.h"

namespace penstock::sim {

// How one request is sent.
struct Sending {
  Fields fields;
  bool chunked = false;        // HTTP/1.
  bool old = false;            // HTTP/1.0.
  bool last = false;           // Connection: close.
  uint32_t at_once = 0;        // Bytes that go at once; the rest comes when Act() says so.
};

class Client {
 public:
  virtual ~Client() = default;
  virtual bool ready() const = 0;         // Takes a request now.
  virtual void Ask(Asked& asked, const Sending& sending) = 0;
  virtual void Act() = 0;                 // Something that clients do, by chance.
  virtual void Behave() = 0;              // Sends what is due and reads from now on.
  virtual void Leave(bool cleanly) = 0;
  virtual bool closed() const = 0;
  virtual void Excuse() = 0;              // Its connection is to be broken.
};

std::unique_ptr<Client> MakeHttp1Client(Outside& outside, std::unique_ptr<Stream> stream);
std::unique_ptr<Client> MakeHttp2Client(Outside& outside, std::unique_ptr<Stream> stream);

}  // namespace penstock::sim
