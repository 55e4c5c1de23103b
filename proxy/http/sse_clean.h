// Events as every client of the OpenAI API can read them. SDKs parse a server-sent
// event whenever it is not quite empty: one without data becomes an error of its JSON,
// and after an `id:` so does every blank line that follows. Reconnecting with a
// Last-Event-ID means nothing there, so nobody misses those lines.
//
// Threads: any.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

// `events` without `id` and `retry` lines, and of events without data only their
// comments. All other bytes stay as they are. REQUIRES: whole events, as SseScanner
// tells where they end.
std::string CleanEvents(std::string_view events);

}  // namespace penstock
