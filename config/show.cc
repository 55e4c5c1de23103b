#include "config/show.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "config/field.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace penstock::config {
namespace {

bool IsSecret(Kind kind) {
  return kind == Kind::kSecret || kind == Kind::kSecretFile || kind == Kind::kSecretsFile;
}

// The field table is written for reading into objects; here they are only read.
PolicyFile FileOf(const Config& config) {
  PolicyFile file;
  static_cast<Config&>(file) = config;
  file.version = "v1";
  return file;
}

// `defaults` has gone into the pools; a secret's file has gone into the secret.
bool IsHidden(const Field& field) {
  return field.key == "defaults" || field.kind == Kind::kSecretFile;
}

// A listener without TLS has no `tls` at all.
bool IsGiven(const Field& field, void* object) {
  return field.kind != Kind::kSection || field.section->given == nullptr ||
         field.section->given(field.at(object));
}

// Whether a YAML reader takes `text` for text: not for a number, a time or a flag.
bool IsPlain(std::string_view text) {
  constexpr std::string_view kFlags[] = {"off",   "on",   "yes", "no", "true",
                                         "false", "null", "y",   "n"};
  if (text.empty() || std::find(std::begin(kFlags), std::end(kFlags), text) != std::end(kFlags)) {
    return false;
  }
  const bool safe = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (std::isalnum(c) != 0 && c < 0x80) || c == '.' || c == '_' || c == '-' || c == '/' ||
           c == ':';
  });
  const bool begins_as_text = std::isalpha(static_cast<unsigned char>(text[0])) != 0 ||
                              text[0] == '/' || std::count(text.begin(), text.end(), '.') > 1;
  return safe && begins_as_text && text.back() != ':';
}

std::string Quote(const Field& field, const std::string& value) {
  const bool is_text = field.kind <= Kind::kBindAddress && field.kind != Kind::kTexts;
  if (!IsSecret(field.kind) && (!is_text || IsPlain(value))) return value;
  std::string quoted = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

std::string ShowTexts(const Field& field, void* object) {
  const Field one = {.key = field.key, .kind = Kind::kText, .effect = {}};
  std::vector<std::string> quoted;
  for (const std::string& text : *static_cast<std::vector<std::string>*>(field.at(object))) {
    quoted.push_back(Quote(one, text));
  }
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

class Writer {
 public:
  std::string Take() { return std::move(text_); }

  void WriteSection(const Section& section, void* object, size_t indent) {
    for (const Field& field : section.fields) {
      if (!IsHidden(field)) WriteField(field, object, indent);
    }
    if (section.params == nullptr) return;
    for (const auto& param : *section.params(object)) Line(indent, param.key, param.value);
  }

 private:
  void Line(size_t indent, std::string_view key, std::string_view value) {
    const bool first_of_item = item_pending_;
    item_pending_ = false;
    text_ += fmt::format("{}{}{}:{}{}\n", std::string(first_of_item ? indent - 2 : indent, ' '),
                         first_of_item ? "- " : "", key, value.empty() ? "" : " ", value);
  }

  void WriteField(const Field& field, void* object, size_t indent) {
    if (field.kind == Kind::kSection) {
      if (!IsGiven(field, object)) return;
      const size_t before = text_.size();
      Line(indent, field.key, "");
      const size_t head = text_.size();
      WriteSection(*field.section, field.at(object), indent + 2);
      if (text_.size() == head) text_.resize(before);  // Nothing in it: not given.
    } else if (field.kind == Kind::kList) {
      WriteList(field, object, indent);
    } else if (field.kind == Kind::kTexts) {
      if (ShowScalar(field, object) != "[]") Line(indent, field.key, ShowTexts(field, object));
    } else if (const std::string value = ShowScalar(field, object); !value.empty()) {
      Line(indent, field.key, Quote(field, value));
    }
  }

  void WriteList(const Field& field, void* object, size_t indent) {
    if (field.size(object) == 0) return;
    Line(indent, field.key, "");
    for (size_t i = 0; i < field.size(object); ++i) {
      item_pending_ = true;
      WriteSection(*field.section, field.item(object, i), indent + 4);
      item_pending_ = false;
    }
  }

  std::string text_;
  bool item_pending_ = false;  // The next line begins a list's item.
};

// What an item is called; a backend or a model by its name, else by its place.
std::string ItemName(const Section& section, void* item, size_t index) {
  for (const Field& field : section.fields) {
    if (field.key == "name") {
      if (std::string name = ShowScalar(field, item); !name.empty()) return name;
    }
  }
  return std::to_string(index);
}

void FlattenSection(const Section& section, void* object, const std::string& prefix,
                    std::vector<Setting>& settings) {
  for (const Field& field : section.fields) {
    if (IsHidden(field) || !IsGiven(field, object)) continue;
    const std::string path =
        prefix.empty() ? std::string(field.key) : fmt::format("{}.{}", prefix, field.key);
    if (field.kind == Kind::kSection) {
      FlattenSection(*field.section, field.at(object), path, settings);
    } else if (field.kind == Kind::kList) {
      for (size_t i = 0; i < field.size(object); ++i) {
        void* item = field.item(object, i);
        FlattenSection(*field.section, item,
                       fmt::format("{}[{}]", path, ItemName(*field.section, item, i)), settings);
      }
    } else if (std::string value = ShowScalar(field, object); !value.empty() && value != "[]") {
      settings.push_back({path, std::move(value)});
    }
  }
  if (section.params == nullptr) return;
  for (const auto& param : *section.params(object)) {
    settings.push_back({fmt::format("{}.{}", prefix, param.key), param.value});
  }
}

void AddSecretChanges(const Config& before, const Config& after, std::vector<Change>& changes) {
  for (const Pool& pool : after.pools) {
    const auto old = std::find_if(before.pools.begin(), before.pools.end(),
                                  [&](const Pool& other) { return other.name == pool.name; });
    if (old == before.pools.end()) continue;
    const std::string path = fmt::format("pools[{}].auth.", pool.name);
    const std::string masked = "***";
    if (!old->auth.key.empty() && !pool.auth.key.empty() && old->auth.key != pool.auth.key) {
      changes.push_back({path + "key", masked, masked + " (another)"});
    }
    if (old->auth.keys.size() == pool.auth.keys.size() && old->auth.keys != pool.auth.keys) {
      changes.push_back({path + "keys_file", masked, masked + " (others)"});
    }
  }
}

void AddOrderChange(const Config& before, const Config& after, std::vector<Change>& changes) {
  const auto names = [](const Config& config) {
    std::vector<std::string> list;
    for (const Route& route : config.routes) list.push_back(route.name);
    return list;
  };
  std::vector<std::string> old = names(before);
  std::vector<std::string> now = names(after);
  const std::string old_order = fmt::format("{}", fmt::join(old, ", "));
  const std::string new_order = fmt::format("{}", fmt::join(now, ", "));
  std::sort(old.begin(), old.end());
  std::sort(now.begin(), now.end());
  if (old == now && old_order != new_order) changes.push_back({"routes", old_order, new_order});
}

}  // namespace

std::string Show(const Config& config) {
  PolicyFile file = FileOf(config);
  Writer writer;
  writer.WriteSection(FileSection(), &file, 0);
  return writer.Take();
}

std::vector<Setting> Flatten(const Config& config) {
  PolicyFile file = FileOf(config);
  std::vector<Setting> settings;
  FlattenSection(FileSection(), &file, "", settings);
  return settings;
}

std::vector<Change> Diff(const Config& before, const Config& after) {
  std::map<std::string, std::string> old;
  for (Setting& setting : Flatten(before)) old.emplace(setting.path, std::move(setting.value));
  std::vector<Change> changes;
  for (const Setting& setting : Flatten(after)) {
    const auto found = old.find(setting.path);
    if (found == old.end()) {
      changes.push_back({setting.path, "", setting.value});
    } else {
      if (found->second != setting.value) {
        changes.push_back({setting.path, found->second, setting.value});
      }
      old.erase(found);
    }
  }
  for (const auto& [path, value] : old) changes.push_back({path, value, ""});
  AddSecretChanges(before, after, changes);
  AddOrderChange(before, after, changes);
  return changes;
}

}  // namespace penstock::config
