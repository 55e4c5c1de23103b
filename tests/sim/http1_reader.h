// Reads HTTP/1 messages as plainly as can be, so that what the proxy's own codec wrote
// is judged by somebody else. Knows what the simulation's peers send, and nothing more.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::sim {

struct Message {
  enum class Framing { kNone, kLength, kChunked, kUntilClose };

  std::string start;                                        // The first line.
  std::vector<std::pair<std::string, std::string>> fields;  // Names in lower case.
  Framing framing = Framing::kNone;

  std::string_view Field(std::string_view name) const;      // Empty: not there.
  int status() const;                                       // Of an answer; 0: unreadable.
  std::string_view Word(size_t index) const;                // Of the first line.
};

class Http1Reader {
 public:
  class Receiver {
   public:
    // True: there is no body, whatever the fields say (an answer to HEAD).
    virtual bool OnHead(const Message& message) = 0;
    virtual void OnBody(std::string_view data) = 0;
    virtual void OnEnd() = 0;         // The message is whole.

   protected:
    ~Receiver() = default;
  };

  Http1Reader(bool requests, Receiver& receiver) : requests_(requests), receiver_(receiver) {}

  // False: this is not HTTP/1; nothing more is read.
  bool Feed(std::string_view bytes);
  void FeedEnd();                     // The peer has said all it has to say.
  bool between() const { return state_ == State::kHead && buffer_.empty(); }
  bool inside() const { return state_ != State::kHead; }  // A head has come, its end has not.
  bool failed() const { return state_ == State::kFailed; }

 private:
  enum class State { kHead, kLength, kUntilClose, kChunkSize, kChunk, kChunkEnd, kTrailers, kFailed };

  bool Step();
  bool TakeHead();
  bool TakeLine(std::string& line);
  bool TakeBody(State next);
  void End();

  const bool requests_;
  Receiver& receiver_;
  State state_ = State::kHead;
  std::string buffer_;
  Message message_;
  uint64_t left_ = 0;
};

}  // namespace penstock::sim
