// Why things are counted: enums, and what /metrics and the log call them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace penstock {

// What clients speak. H2Reset: why a message of a client's HTTP/2 connection was reset.
// H2GoAway: why the connection was ended.
enum class ClientProtocol : uint8_t { kHttp1, kHttp2 };
inline constexpr std::array<std::string_view, 2> kClientProtocolNames = {"http1", "http2"};
enum class H2Reset : uint8_t { kByClient, kCut, kRefused, kStalled };
inline constexpr std::array<std::string_view, 4> kH2ResetNames = {"client", "cut", "refused",
                                                                 "stalled"};
enum class H2GoAway : uint8_t {
  kDrain, kIdle, kClient, kHeaders, kProtocol, kFlood, kNearFlood, kSettings
};
inline constexpr std::array<std::string_view, 8> kH2GoAwayNames = {
    "drain", "idle", "client", "headers", "protocol", "flood", "near_flood", "settings"};
// Which limit a flooding client passed: the words of proxy/http/h2_flood.cc.
inline constexpr std::array<std::string_view, 9> kH2FloodNames = {
    "resets",     "continuations",  "control_frames", "outbound_frames", "empty_frames",
    "priorities", "window_updates", "settings",       "glitches"};

// Why an answer is not what the backend said, in the words of access logs:
// UH no healthy backend, UF no connection, UO overflow (queue or limits), NR no
// route, URX retries used up, UT no answer in time, UC backend broke off, DC client
// left, RL rate limited, IH invalid headers, UPE bad bytes from the backend, HT
// request headers too slow, BT request body too slow, FT no first token in time,
// SI stream idle, TT total time, DE the client's deadline.
enum class Flag : uint8_t { kUH, kUF, kUO, kNR, kURX, kUT, kUC, kDC, kRL, kIH, kUPE,
                            kHT, kBT, kFT, kSI, kTT, kDE };
inline constexpr std::array<std::string_view, 17> kFlagNames = {
    "UH", "UF", "UO", "NR", "URX", "UT", "UC", "DC", "RL", "IH", "UPE", "HT", "BT", "FT", "SI", "TT", "DE"};

enum class TimeoutKind : uint8_t { kConnect, kRequestHeaders, kRequestBody, kFirstToken, kResponse,
                                   kTry, kIdle, kTotal, kDeadline, kKeepAlive, kQueue,
                                   kTunnel };
inline constexpr std::array<std::string_view, 12> kTimeoutNames = {
    "connect", "request_headers", "request_body", "first_token", "response", "try",
    "idle", "total", "deadline", "keep_alive", "queue", "tunnel"};

// What a request was doing when its deadline passed.
enum class Stage : uint8_t { kBody, kQueue, kBackOff, kConnect, kAnswer, kStream, kShared };
inline constexpr std::array<std::string_view, 7> kStageNames = {
    "body", "queue", "back_off", "connect", "answer", "stream", "shared"};

// How a hedge ended: it won, it lost, it failed; or there was none, because the budget
// was spent or no other backend was there.
enum class HedgeResult : uint8_t { kWon, kLost, kFailed, kNoBudget, kNoBackend };
inline constexpr std::array<std::string_view, 5> kHedgeResultNames = {
    "won", "lost", "failed", "no_budget", "no_backend"};

enum class RetryReason : uint8_t { kConnect, kReset, kBusy, kStatus, kTimeout, kRefused };
inline constexpr std::array<std::string_view, 6> kRetryReasonNames = {
    "connect", "reset", "busy", "status", "timeout", "refused"};

enum class CacheResult : uint8_t { kHit, kMiss, kStale, kBypass, kCoalesced };
inline constexpr std::array<std::string_view, 5> kCacheResultNames = {"hit", "miss", "stale",
                                                                      "bypass", "coalesced"};

enum class ProxyHeaderFault : uint8_t { kInvalid, kTimeout, kUntrusted };
inline constexpr std::array<std::string_view, 3> kProxyHeaderFaultNames = {"invalid", "timeout", "untrusted"};

enum class LbOutcome : uint8_t { kPicked, kPanic, kRefused };
inline constexpr std::array<std::string_view, 3> kLbOutcomeNames = {"picked", "panic", "refused"};

}  // namespace penstock
