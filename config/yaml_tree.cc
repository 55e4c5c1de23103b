// Built from yaml-cpp's events rather than from its nodes: nodes lose duplicate
// keys, follow aliases and stop after the first document without a word.
#include "config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"

namespace penstock::config {
namespace {

constexpr size_t kDepthMax = 16;
constexpr size_t kValuesMax = 100'000;
constexpr size_t kBracketsMax = 20'000;  // Each open one costs yaml-cpp hundreds of bytes.

Location At(const YAML::Mark& mark) {
  return mark.is_null() ? Location{} : Location{mark.line + 1, mark.column + 1};
}

// One map or list that is still open.
struct Open {
  YamlNode node;
  bool wants_value = false;                     // A map's key was read.
  absl::flat_hash_map<std::string, int> lines;  // Of a map's keys.
};

class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::vector<Diagnostic>& diagnostics) : diagnostics_(diagnostics) {}

  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    YamlNode node;
    node.where = At(mark);
    Add(std::move(node), "~");
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Complain(At(mark), "aliases (*name) are not supported; write the value out, or use `defaults`");
    OnNull(mark, 0);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    CheckPlain(At(mark), tag, anchor);
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.where = At(mark);
    node.scalar = value;
    Add(std::move(node), value);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Begin(YamlNode::Kind::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { End(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Begin(YamlNode::Kind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { End(); }

 private:
  void Complain(Location where, std::string message) {
    config::Add(diagnostics_, {.where = where, .message = std::move(message)});
  }

  void CheckPlain(Location where, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) {
      Complain(where, "anchors (&name) are not supported; write the value out, or use `defaults`");
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      Complain(where, fmt::format("tags ({}) are not supported; leave it out", tag));
    }
  }

  void Begin(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
             YAML::anchor_t anchor) {
    CheckPlain(At(mark), tag, anchor);
    if (open_.size() == kDepthMax && !too_deep_) {
      Complain(At(mark), fmt::format("nested deeper than {} levels", kDepthMax));
      too_deep_ = true;
    }
    if (!open_.empty() && open_.back().node.kind == YamlNode::Kind::kMap &&
        !open_.back().wants_value) {
      Complain(At(mark), "a key is a word, not a map or a list");
    }
    Open open;
    open.node.kind = kind;
    open.node.where = At(mark);
    open_.push_back(std::move(open));
  }

  void End() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    node.items.resize(std::max(node.items.size(), node.keys.size()));
    Add(std::move(node), "");
  }

  // Puts a finished node where it belongs; `text` is its spelling as a key.
  void Add(YamlNode node, const std::string& text) {
    if (++values_ > kValuesMax) {
      if (values_ == kValuesMax + 1) {
        Complain(node.where, fmt::format("more than {} values", kValuesMax));
      }
      return;
    }
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kMap && !parent.wants_value) {
      AddKey(parent, text, node.where);
      return;
    }
    // An empty value's own mark is unreliable; its key's is not.
    if (parent.wants_value && node.kind == YamlNode::Kind::kNothing) {
      node.where = parent.node.keys.back().second;
    }
    parent.node.items.push_back(std::move(node));
    parent.wants_value = false;
  }

  void AddKey(Open& map, const std::string& key, Location where) {
    if (key == "<<") {
      Complain(where, "merge keys (<<) are not supported; use `defaults`");
    } else if (const auto [first, is_new] = map.lines.emplace(key, where.line); !is_new) {
      Complain(where,
               fmt::format("\"{}\" is given twice; the first is on line {}", key, first->second));
    }
    map.node.keys.emplace_back(key, where);
    map.wants_value = true;
  }

  std::vector<Diagnostic>& diagnostics_;
  YamlNode root_;
  std::vector<Open> open_;
  size_t values_ = 0;
  bool too_deep_ = false;
};

// Bytes of the UTF-8 character at the start of `text`, or 0 if it is none. Surrogates
// and overlong forms are left to whoever draws them.
size_t CharacterLength(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t length = first < 0x80                    ? 1
                        : first >= 0xc2 && first < 0xe0 ? 2
                        : first >= 0xe0 && first < 0xf0 ? 3
                        : first >= 0xf0 && first < 0xf5 ? 4
                                                        : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

// yaml-cpp passes control characters and broken UTF-8 through; names with them would
// end up in logs, metrics and JSON. Returns what is wrong, or "".
std::string_view CheckCharacters(std::string_view text, Location& where) {
  where = {1, 1};
  while (!text.empty()) {
    const char c = text[0];
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7f) {
      return "a control character; is this a text file?";
    }
    const size_t length = CharacterLength(text);
    if (length == 0) return "a byte that is not UTF-8; is this a text file?";
    text.remove_prefix(length);
    where = c == '\n' ? Location{where.line + 1, 1} : Location{where.line, where.column + 1};
  }
  return "";
}

}  // namespace

const YamlNode* YamlNode::Get(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].first == key) return &items[i];
  }
  return nullptr;
}

YamlNode ReadYaml(std::string_view text, std::vector<Diagnostic>& diagnostics) {
  Location where;
  if (const std::string_view wrong = CheckCharacters(text, where); !wrong.empty()) {
    diagnostics.push_back({.where = where, .message = std::string(wrong)});
    return {};
  }
  const auto brackets =
      std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; });
  if (static_cast<size_t>(brackets) > kBracketsMax) {
    diagnostics.push_back({.message = fmt::format("more than {} brackets", kBracketsMax)});
    return {};
  }
  // yaml-cpp takes a quote that nothing closes for closed when a line ends before the file does.
  text = text.substr(0, text.find_last_not_of(" \r\n") + 1);
  Builder builder(diagnostics);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return {};
    YamlNode root = builder.TakeRoot();
    if (Builder rest(diagnostics); parser.HandleNextDocument(rest)) {
      diagnostics.push_back({.where = rest.TakeRoot().where,
                             .message = "a second document (---); a policy file has one"});
    }
    return root;
  } catch (const YAML::Exception& error) {
    diagnostics.push_back(
        {.where = At(error.mark),
         .message = fmt::format("not YAML: {}; look at quotes, brackets and indentation (spaces alone) there and above",
                                error.msg)});
  } catch (const std::exception& error) {
    diagnostics.push_back({.message = fmt::format("not YAML: {}", error.what())});
  }
  return {};
}

}  // namespace penstock::config
