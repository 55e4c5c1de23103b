#include "proxy/http/sse.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace penstock {
namespace {

// How much of a line is looked at: before the first token enough for the whole
// chunk of an ordinary stream, after it only what tells [DONE] and errors apart.
constexpr size_t kLineBeforeToken = 32 * 1024;
constexpr size_t kLineAfterToken = 64;
constexpr size_t kDepthMax = 16;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

void SkipSpace(std::string_view& text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
}

// Walks JSON just far enough to know under which keys each value stands. It
// validates nothing: what is malformed has no token.
class TokenFinder {
 public:
  explicit TokenFinder(std::string_view json) : rest_(json) {}

  bool Find() {
    while (!rest_.empty()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      switch (c) {
        case '{':
        case '[':
          if (OpensCall(c)) return true;
          if (depth_ == kDepthMax) return false;
          frames_[depth_++] = {key_, c == '['};
          value_next_ = c == '[';
          break;
        case '}':
        case ']':
          if (depth_ == 0) return false;
          key_ = frames_[--depth_].key;
          value_next_ = false;
          break;
        case ':': value_next_ = true; break;
        case ',': value_next_ = depth_ > 0 && frames_[depth_ - 1].array; break;
        case '"':
          if (OnString()) return true;
          break;
        default: break;
      }
    }
    return false;
  }

 private:
  struct Frame {
    std::string_view key;     // Under which this container stands.
    bool array;
  };

  std::string_view Parent(size_t up) const {
    return depth_ >= up ? frames_[depth_ - up].key : std::string_view();
  }

  // A call: an object in delta.tool_calls, or delta.function_call.
  bool OpensCall(char opening) const {
    if (opening != '{') return false;
    if (key_ == "function_call") return Parent(1) == "delta";
    return key_ == "tool_calls" && Parent(1) == "tool_calls" && Parent(2) == "delta";
  }

  // Whether a non-empty string under key_ is (part of) a token.
  bool IsTokenKey() const {
    if (depth_ > 0 && frames_[depth_ - 1].array) return false;
    const std::string_view parent = Parent(1);
    if (parent == "delta") {
      return key_ == "content" || key_ == "reasoning_content" || key_ == "reasoning" ||
             key_ == "refusal" || key_ == "text";
    }
    if (parent == "choices") return key_ == "text";
    return depth_ == 1 && key_ == "delta";
  }

  bool OnString() {
    if (value_next_ && !rest_.empty() && rest_.front() != '"' && IsTokenKey()) return true;
    size_t end = 0;
    while (end < rest_.size() && rest_[end] != '"') end += rest_[end] == '\\' ? 2 : 1;
    end = std::min(end, rest_.size());
    if (!value_next_) key_ = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return false;
  }

  std::string_view rest_;
  std::string_view key_;
  bool value_next_ = false;
  size_t depth_ = 0;
  std::array<Frame, kDepthMax> frames_;
};

// The value of a data line, without the one blank that may lead it.
bool IsDataLine(std::string_view line, std::string_view& value) {
  if (!line.starts_with("data")) return false;
  value = line.substr(4);
  if (value.empty()) return true;
  if (value.front() != ':') return false;
  value.remove_prefix(1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  return true;
}

// {"error": and then anything but null.
bool IsErrorObject(std::string_view json) {
  SkipSpace(json);
  if (!json.starts_with('{')) return false;
  json.remove_prefix(1);
  SkipSpace(json);
  if (!json.starts_with("\"error\"")) return false;
  json.remove_prefix(7);
  SkipSpace(json);
  if (!json.starts_with(':')) return false;
  json.remove_prefix(1);
  SkipSpace(json);
  return !json.empty() && !json.starts_with("null");
}

// What OpenAI and the engines write of requests that are wrong: a code of 4xx, or a
// type. Inside a message such words have escaped quotes and are not found.
bool BlamesClient(std::string_view json) {
  if (json.find("\"invalid_request_error\"") != std::string_view::npos) return true;
  if (json.find("\"BadRequestError\"") != std::string_view::npos) return true;
  for (size_t at = 0; (at = json.find("\"code\"", at)) != std::string_view::npos;) {
    std::string_view rest = json.substr(at += 6);
    SkipSpace(rest);
    if (!rest.starts_with(':')) continue;
    rest.remove_prefix(1);
    SkipSpace(rest);
    if (rest.size() > 3 && rest[0] == '4' && (rest[3] == ',' || rest[3] == '}' || IsSpace(rest[3]))) {
      return !rest.starts_with("408") && !rest.starts_with("429");
    }
  }
  return false;
}

}  // namespace

void SseScanner::OnLine(std::string_view line, Result& result) {
  std::string_view value;
  if (!IsDataLine(line, value)) {
    const std::string_view field = line.substr(0, line.find(':'));
    event_has_other_ |= !field.empty();
    event_has_place_ |= field == "id" || field == "retry";
    if (line == "event: error" || line == "event:error") result.error = true;
    return;
  }
  event_has_data_ = true;
  if (value.starts_with("[DONE]")) {
    saw_done_ = result.done = true;
    return;
  }
  if (IsErrorObject(value)) {
    result.error = true;
    result.blames_client = BlamesClient(value);
    return;
  }
  if (!saw_first_token_ && !event_has_token_) event_has_token_ = TokenFinder(value).Find();
}

void SseScanner::OnEventEnd(Result& result) {
  if (event_has_data_) ++result.events;
  if (event_has_token_ && !saw_first_token_) saw_first_token_ = result.first_token = true;
  result.unclean |= event_has_place_ || (event_has_other_ && !event_has_data_);
  event_has_data_ = event_has_token_ = event_has_other_ = event_has_place_ = false;
}

size_t SseScanner::LineBound() const {
  return saw_first_token_ ? kLineAfterToken : kLineBeforeToken;
}

// What is looked at of a line that came in several pieces.
void SseScanner::Keep(std::string_view part) {
  const size_t bound = LineBound();
  line_length_ += part.size();
  if (line_.size() < bound) line_.append(part.substr(0, bound - line_.size()));
}

SseScanner::Result SseScanner::Scan(std::string_view data) {
  Result result;
  if (data.empty()) return result;
  size_t pos = 0;
  if (after_cr_ && data[0] == '\n') {
    pos = 1;
    if (partial_bytes_ == 0) result.complete = 1;
  }
  after_cr_ = false;
  // A CR is rare: one look tells whether lines end with LF alone.
  const bool has_cr = std::memchr(data.data(), '\r', data.size()) != nullptr;
  while (pos < data.size()) {
    const std::string_view rest = data.substr(pos);
    const size_t end = has_cr ? rest.find_first_of("\r\n") : rest.find('\n');
    if (end == std::string_view::npos) {
      Keep(rest);
      break;
    }
    const std::string_view part = rest.substr(0, end);
    const bool blank = line_length_ == 0 && part.empty();
    if (line_length_ > 0) Keep(part);
    if (!blank) OnLine(line_length_ > 0 ? std::string_view(line_) : part.substr(0, LineBound()), result);
    line_.clear();
    line_length_ = 0;
    pos += end + 1;
    if (rest[end] == '\r') {
      after_cr_ = pos == data.size();
      if (!after_cr_ && data[pos] == '\n') ++pos;
    }
    if (blank) {
      OnEventEnd(result);
      result.complete = pos;
    }
  }
  partial_bytes_ =
      result.complete > 0 ? data.size() - result.complete : partial_bytes_ + data.size();
  return result;
}

void SseScanner::Clear() {
  line_.clear();
  partial_bytes_ = line_length_ = 0;
  event_has_other_ = event_has_place_ = false;
  event_has_data_ = event_has_token_ = after_cr_ = saw_first_token_ = saw_done_ = false;
}

}  // namespace penstock
