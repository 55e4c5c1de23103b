// Server-sent events as they pass: finds event boundaries without holding bytes
// back, and tells the first event that carries a token. The bytes themselves
// are relayed as they came; a partial event is held by the caller until it is
// whole (bounded by its event_bytes limit), nothing else is.
//
// Threads: one exchange's loop.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

class SseScanner {
 public:
  struct Result {
    size_t complete = 0;       // Bytes of `data` up to and with the last whole event.
    int events = 0;            // Whole data events that ended in `data`.
    bool first_token = false;  // The first data event whose delta has content, reasoning or a
                               // tool call (or text, for completions) ended in `data`.
    bool done = false;         // data: [DONE] was seen.
    bool error = false;        // An event with an error object was seen.
    bool blames_client = false;   // That error is one of the request: a 4xx but 408 and 429.
    bool unclean = false;      // A whole event has something that CleanEvents takes out.
  };

  // Scans the next bytes of the stream, split anywhere. CR, LF and CRLF end lines.
  Result Scan(std::string_view data);

  bool saw_first_token() const { return saw_first_token_; }
  bool saw_done() const { return saw_done_; }
  size_t partial_bytes() const { return partial_bytes_; }  // Since the last whole event.
  void Clear();                                            // For the next stream; keeps capacity.

 private:
  void OnLine(std::string_view line, Result& result);
  void OnEventEnd(Result& result);
  size_t LineBound() const;
  void Keep(std::string_view part);

  std::string line_;           // Start of the current line, up to a small bound.
  size_t partial_bytes_ = 0;
  size_t line_length_ = 0;
  bool event_has_data_ = false;
  bool event_has_other_ = false;   // A field that is no data, and no comment.
  bool event_has_place_ = false;   // An id or a retry.
  bool event_has_token_ = false;
  bool after_cr_ = false;
  bool saw_first_token_ = false;
  bool saw_done_ = false;
};

}  // namespace penstock
