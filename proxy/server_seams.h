// What a server finds around itself: loops, sockets, files, memory. A simulation is all
// of them (tests/sim), and so the whole server runs on told time in one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proxy/net/listening_socket.h"
#include "proxy/net/loop.h"
#include "proxy/request/access_log.h"

namespace penstock {

struct ServerSeams {
  std::function<std::unique_ptr<Loop>()> make_loop;  // The control thread's first, then the workers'.
  bool threads = true;                // False: whoever made the loops runs them all.
  // One of several of an address; the first one finds out whether somebody else has it.
  std::function<absl::StatusOr<ListeningSocket>(const Address& address, bool first)> open_socket;
  std::function<absl::StatusOr<std::string>(const std::string& path)> read_file;
  std::function<absl::StatusOr<std::shared_ptr<AccessLog>>(const std::string& target)> open_log;
  std::function<uint64_t()> memory_used;
  std::function<uint64_t()> memory_limit;
};

ServerSeams RealSeams();

}  // namespace penstock
