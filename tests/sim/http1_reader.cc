#include "tests/sim/http1_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace penstock::sim {
namespace {

bool ReadNumber(std::string_view text, int base, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

std::string_view Message::Field(std::string_view name) const {
  for (const auto& [key, value] : fields) {
    if (key == name) return value;
  }
  return {};
}

std::string_view Message::Word(size_t index) const {
  std::string_view rest = start;
  for (; index > 0; --index) rest.remove_prefix(std::min(rest.find(' '), rest.size() - 1) + 1);
  return rest.substr(0, rest.find(' '));
}

int Message::status() const {
  uint64_t status = 0;
  return start.starts_with("HTTP/1.") && ReadNumber(Word(1), 10, status) ? static_cast<int>(status) : 0;
}

bool Http1Reader::Feed(std::string_view bytes) {
  if (failed()) return false;
  buffer_ += bytes;
  while (Step()) continue;
  return !failed();
}

void Http1Reader::FeedEnd() {
  if (state_ == State::kUntilClose) End();
}

// False: more has to come.
bool Http1Reader::Step() {
  std::string line;
  switch (state_) {
    case State::kHead: return TakeHead();
    case State::kLength: return TakeBody(State::kHead);
    case State::kChunk: return TakeBody(State::kChunkEnd);
    case State::kUntilClose:
      if (buffer_.empty()) return false;
      receiver_.OnBody(std::exchange(buffer_, {}));
      return false;
    case State::kChunkSize:
      if (!TakeLine(line)) return false;
      if (!ReadNumber(line, 16, left_)) {
        state_ = State::kFailed;
        return false;
      }
      state_ = left_ == 0 ? State::kTrailers : State::kChunk;
      return true;
    case State::kChunkEnd:
      if (!TakeLine(line)) return false;
      state_ = line.empty() ? State::kChunkSize : State::kFailed;
      return !failed();
    case State::kTrailers:
      if (!TakeLine(line)) return false;
      if (line.empty()) End();
      return true;
    case State::kFailed: return false;
  }
  return false;
}

bool Http1Reader::TakeLine(std::string& line) {
  const size_t end = buffer_.find("\r\n");
  if (end == std::string::npos) return false;
  line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return true;
}

bool Http1Reader::TakeBody(State next) {
  if (buffer_.empty()) return false;
  const auto size = static_cast<size_t>(std::min<uint64_t>(left_, buffer_.size()));
  const std::string piece = buffer_.substr(0, size);
  buffer_.erase(0, size);
  left_ -= size;
  receiver_.OnBody(piece);
  if (left_ > 0) return false;
  if (next == State::kHead) {
    End();
  } else {
    state_ = next;
  }
  return true;
}

bool Http1Reader::TakeHead() {
  const size_t end = buffer_.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  const std::string head = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  message_ = {};
  for (size_t at = 0; at < head.size();) {
    const size_t stop = head.find("\r\n", at);
    const std::string line = head.substr(at, stop - at);
    at = stop + 2;
    if (message_.start.empty()) {
      message_.start = line;
      continue;
    }
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) {
      state_ = State::kFailed;
      return false;
    }
    message_.fields.emplace_back(line.substr(0, colon), line.substr(colon + 2));
    for (char& c : message_.fields.back().first) c = static_cast<char>(c | 0x20);
  }
  if (!requests_ && message_.status() == 0) {
    state_ = State::kFailed;
    return false;
  }
  using Framing = Message::Framing;
  const std::string_view length = message_.Field("content-length");
  left_ = 0;
  if (message_.Field("transfer-encoding") == "chunked") {
    message_.framing = Framing::kChunked;
  } else if (ReadNumber(length, 10, left_)) {
    message_.framing = Framing::kLength;
  } else {
    message_.framing = requests_ ? Framing::kNone : Framing::kUntilClose;
  }
  const bool interim = !requests_ && message_.status() / 100 == 1;
  if (interim) return true;  // Says nothing; the answer itself follows.
  if (receiver_.OnHead(message_) || message_.framing == Framing::kNone ||
      (message_.framing == Framing::kLength && left_ == 0)) {
    End();
    return true;
  }
  state_ = message_.framing == Framing::kChunked  ? State::kChunkSize
           : message_.framing == Framing::kLength ? State::kLength
                                                  : State::kUntilClose;
  return true;
}

void Http1Reader::End() {
  state_ = State::kHead;
  receiver_.OnEnd();
}

}  // namespace penstock::sim
