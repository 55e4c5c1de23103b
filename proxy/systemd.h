// What systemd and programs like it are told, and the sockets that they open for us:
// the protocols of sd_notify(3) and sd_listen_fds(3), which need no library.
//
// Threads: the control thread; the environment is read at the start.
#pragma once

#include <string_view>
#include <vector>

#include "proxy/net/listening_socket.h"

namespace penstock {

// "READY=1", "STOPPING=1", "MAINPID=7": lines of sd_notify(3). Without a supervisor
// that wants to know, nothing. Never blocks.
void Notify(std::string_view state);

// Sockets that the supervisor has opened and passed on; none of another process.
std::vector<ListeningSocket> PassedSockets();

}  // namespace penstock
