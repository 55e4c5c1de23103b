// JSON for the checks, which have no library: trusted files of this repository
// alone. A mistake in them ends the check.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::engine {

struct Json {
  enum class Kind { kNull, kTrue, kFalse, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json* Find(const std::string& name) const {
    const auto found = members.find(name);
    return found == members.end() ? nullptr : &found->second;
  }
  const Json& At(const std::string& name) const {
    const Json* found = Find(name);
    if (found == nullptr) {
      std::fprintf(stderr, "JSON without a member %s\n", name.c_str());
      std::exit(1);
    }
    return *found;
  }
  std::vector<int32_t> Tokens() const {
    std::vector<int32_t> tokens;
    for (const Json& item : items) tokens.push_back(static_cast<int32_t>(item.number));
    return tokens;
  }
};

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json Read() {
    Json value;
    const char first = Next();
    if (first == '{') {
      value.kind = Json::Kind::kObject;
      while (Peek() != '}') {
        std::string name = String();
        Expect(':');
        value.members.emplace(std::move(name), Read());
        if (Peek() == ',') Next();
      }
      Next();
      return value;
    }
    if (first == '[') {
      value.kind = Json::Kind::kArray;
      while (Peek() != ']') {
        value.items.push_back(Read());
        if (Peek() == ',') Next();
      }
      Next();
      return value;
    }
    if (first == '"') {
      --at_;
      value.kind = Json::Kind::kString;
      value.text = String();
      return value;
    }
    return Word(first, std::move(value));
  }

 private:
  Json Word(char first, Json value) {
    if (first == 't' || first == 'f' || first == 'n') {
      value.kind = first == 't'   ? Json::Kind::kTrue
                   : first == 'f' ? Json::Kind::kFalse
                                  : Json::Kind::kNull;
      at_ += first == 'f' ? 4 : 3;
      return value;
    }
    --at_;
    const std::string number(text_.substr(at_, 40));
    char* end = nullptr;
    value.kind = Json::Kind::kNumber;
    value.number = std::strtod(number.c_str(), &end);
    if (end == number.c_str()) Fail();
    at_ += static_cast<size_t>(end - number.c_str());
    return value;
  }

  // As it stands, but for escaped quotes and backslashes.
  std::string String() {
    Expect('"');
    std::string text;
    while (text_[at_] != '"') {
      if (text_[at_] == '\\') ++at_;
      text += text_[at_++];
      if (at_ >= text_.size()) Fail();
    }
    ++at_;
    return text;
  }

  char Peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' ||
                                  text_[at_] == '\t')) {
      ++at_;
    }
    if (at_ >= text_.size()) Fail();
    return text_[at_];
  }
  char Next() {
    const char next = Peek();
    ++at_;
    return next;
  }
  void Expect(char wanted) {
    if (Next() != wanted) Fail();
  }
  [[noreturn]] void Fail() {
    std::fprintf(stderr, "JSON is broken at byte %zu\n", at_);
    std::exit(1);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace penstock::engine
