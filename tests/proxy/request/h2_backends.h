// A world whose backends speak HTTP/2, and clients that speak HTTP/1.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/proxy/backends/h2_end.h"
#include "tests/proxy/request/world.h"

namespace penstock {

inline config::Pool Http2Pool() {
  config::Pool pool;
  pool.connections.protocol = config::Protocol::kHttp2;
  return pool;
}

// The backends of a world, speaking HTTP/2.
struct H2Backends {
  explicit H2Backends(World& world_in, const CodecLimits& limits = {}) : world(world_in) {
    ends.resize(world.backends.size());
    for (size_t i = 0; i < world.backends.size(); ++i) {
      world.backends[i]->listener.reset();
      world.backends[i]->listener = *world.outside.Listen(
          *Address::Parse(world.backends[i]->address), [this, i, limits](std::unique_ptr<Stream> stream) {
            ends[i].push_back(std::make_unique<H2End>(std::move(stream), limits));
            H2End& end = *ends[i].back();
            if (answers) end.peer.on_end = [&end](MessageId id) { end.Answer(id, "{}"); };
          });
    }
  }
  // Requests that have arrived at backend `i` and are not over.
  size_t open(size_t i) const {
    size_t count = 0;
    for (const auto& end : ends[i]) {
      if (!end->closed) count += static_cast<size_t>(end->peer.all().size());
    }
    return count;
  }
  World& world;
  bool answers = false;        // Connections that are accepted from now on answer at once.
  std::vector<std::vector<std::unique_ptr<H2End>>> ends;
};

struct Clients {
  Clients(World& world, size_t count, std::string_view body = R"({"model":"m"})") {
    for (size_t i = 0; i < count; ++i) {
      all.push_back(world.Connect());
      all.back()->stream->Write(Post(body));
    }
    world.Run();
  }
  size_t Answered(int status) {
    return static_cast<size_t>(std::ranges::count_if(
        all, [&](const auto& client) { return StatusOf(client->heard) == status; }));
  }
  std::vector<std::unique_ptr<Peer>> all;
};

}  // namespace penstock
