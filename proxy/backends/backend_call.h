// One request on its way to a backend, and its answer on the way back: on HTTP/1
// a whole connection (h1_conn.h), on HTTP/2 one stream among many.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "proxy/http/message.h"

namespace penstock {

// Why a request can have no answer from its connection.
struct ConnFailure {
  enum class Kind : uint8_t {
    kConnect,
    kConnectTimeout,
    kNoSocket,                 // Ours: no descriptor or port was left to connect with.
    kTls,                      // Connected, but no TLS that we trust.
    kReset,
    kBadAnswer,
    kRefused,                  // HTTP/2: the backend promises that it did nothing with it.
    kBusy,                     // HTTP/2: it asked for calm.
    kNoStream,                 // HTTP/2: none was free in time; nothing was sent.
  };
  Kind kind = Kind::kReset;
  bool reused = false;         // The connection had carried an answer before.
  bool answer_begun = false;   // Some byte of this answer had arrived.
  bool shared = false;         // One of many calls that failed by the same event, and not the first.
  std::string message;
};

class BackendCall {
 public:
  // Whoever's request it is. After OnAnswerEnd and OnConnFailed the call is gone.
  class User {
   public:
    virtual void OnConnReady(BackendCall& call) = 0;   // Never from inside ConnPool::Acquire().
    virtual void OnAnswerHead(ResponseHead& head) = 0;
    virtual void OnAnswerInterim(ResponseHead& head) = 0;
    virtual void OnAnswerBody(std::string_view data) = 0;
    virtual void OnAnswerEnd(std::span<Header> trailers) = 0;
    virtual void OnConnFailed(const ConnFailure& failure) = 0;
    virtual void OnConnWritable() = 0;

   protected:
    ~User() = default;
  };

  // REQUIRES: in the turn in which the call was given.
  virtual void WriteRequest(const RequestHead& head, std::span<const Header> extra) = 0;
  virtual void WriteBody(std::string_view data) = 0;
  // The whole body, of the length that the head announced; it stays valid until the
  // call is gone, so nothing of it is copied and nobody looks at above_mark().
  virtual void WriteKept(std::string_view body) = 0;
  virtual void WriteEnd(std::span<const Header> trailers) = 0;
  virtual bool above_mark() = 0;   // True: OnConnWritable follows.
  virtual void PauseAnswer() = 0;
  virtual void ResumeAnswer() = 0;
  // The user loses interest, and the call is gone. Unless the answer is whole or
  // nearly so, the backend is told to stop.
  virtual void Leave() = 0;

 protected:
  ~BackendCall() = default;
};

}  // namespace penstock
