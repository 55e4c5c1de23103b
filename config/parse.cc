// Walks the document and the field table side by side. The rows decide the order
// of reading, so `defaults` is complete before the first pool copies it.
#include "config/parse.h"

#include <algorithm>
#include <cstdlib>

#include "config/field.h"
#include "config/file.h"
#include "config/validate.h"
#include "config/yaml_tree.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "proxy/base/suggest.h"

namespace penstock::config {
namespace {

constexpr size_t kParamsMax = 64;
constexpr size_t kSecretsMax = 4096;

// FNV-1a: short, and the same on every machine.
uint64_t HashText(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string Join(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

std::string_view Describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNothing:
      return "nothing";
    case YamlNode::Kind::kScalar:
      return "a single value";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
  }
  return "";
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

class Reader {
 public:
  Reader(std::string_view file_name, const Outside& outside, std::vector<Diagnostic>& diagnostics,
         Locations& where)
      : folder_(file_name.substr(0, file_name.rfind('/') + 1)),
        outside_(outside),
        diagnostics_(diagnostics),
        where_(where) {}

  void ReadSection(const Section& section, const YamlNode& node, void* object,
                   const std::string& path) {
    if (node.kind != YamlNode::Kind::kMap) {
      Complain(node.where, path, fmt::format("expected a map of fields, found {}", Describe(node)));
      return;
    }
    if (section.where != nullptr) *section.where(object) = node.where;
    if (section.params != nullptr) DropForeignParams(node, object);
    for (const Field& field : section.fields) {
      if (const YamlNode* value = node.Get(field.key)) {
        where_[Join(path, field.key)] = value->where;
        ReadField(field, *value, object, Join(path, field.key));
      } else if (field.required) {
        Complain(node.where, path, fmt::format("has no \"{}\", which is required", field.key));
      }
    }
    ReadOtherKeys(section, node, object, path);
  }

 private:
  void Complain(Location where, const std::string& path, std::string message) {
    Add(diagnostics_, {.where = where, .path = path, .message = std::move(message)});
  }

  void ReadField(const Field& field, const YamlNode& node, void* object, const std::string& path) {
    if (node.kind == YamlNode::Kind::kNothing) {
      Complain(node.where, path, "has no value; give it one or leave the line out");
    } else if (field.kind == Kind::kSection) {
      ReadSection(*field.section, node, field.at(object), path);
    } else if (field.kind == Kind::kList || field.kind == Kind::kTexts) {
      ReadList(field, node, object, path);
    } else if (node.kind != YamlNode::Kind::kScalar) {
      Complain(node.where, path,
               fmt::format("expected {}, found {}", DescribeKind(field), Describe(node)));
    } else {
      ReadScalar(field, node, object, path);
    }
  }

  void ReadList(const Field& field, const YamlNode& node, void* object, const std::string& path) {
    if (node.kind != YamlNode::Kind::kList) {
      Complain(node.where, path, fmt::format("expected a list, found {}", Describe(node)));
      return;
    }
    const auto most = static_cast<size_t>(field.max);
    if (node.items.size() > most) {
      Complain(node.where, path,
               fmt::format("has {} entries; allowed: {}", node.items.size(), most));
      return;
    }
    // A list of texts says all of it; what it is without a word in the file is gone.
    if (field.kind == Kind::kTexts) static_cast<std::vector<std::string>*>(field.at(object))->clear();
    for (size_t i = 0; i < node.items.size(); ++i) {
      const std::string item_path = fmt::format("{}[{}]", path, i);
      where_[item_path] = node.items[i].where;
      if (field.kind == Kind::kTexts) {
        ReadText(field, node.items[i], object, item_path);
      } else {
        ReadItem(*field.section, node.items[i], field.append(object), item_path);
      }
    }
  }

  void ReadText(const Field& field, const YamlNode& node, void* object, const std::string& path) {
    struct Holder {
      std::string text;
    } holder;
    const Field one = {.key = field.key,
                       .kind = Kind::kText,
                       .effect = field.effect,
                       .max = 256,
                       .at = [](void* at) -> void* { return &static_cast<Holder*>(at)->text; }};
    ReadField(one, node, &holder, path);
    static_cast<std::vector<std::string>*>(field.at(object))->push_back(holder.text);
  }

  void ReadItem(const Section& section, const YamlNode& node, void* object,
                const std::string& path) {
    if (node.kind != YamlNode::Kind::kScalar || section.short_key.empty()) {
      ReadSection(section, node, object, path);
      return;
    }
    if (section.where != nullptr) *section.where(object) = node.where;
    const auto field = std::find_if(section.fields.begin(), section.fields.end(),
                                    [&](const Field& f) { return f.key == section.short_key; });
    where_[Join(path, field->key)] = node.where;
    ReadField(*field, node, object, Join(path, field->key));
  }

  void ReadScalar(const Field& field, const YamlNode& node, void* object, const std::string& path) {
    std::string text;
    if (std::string wrong = Expand(node.scalar, text); !wrong.empty()) {
      Complain(node.where, path, wrong);
      return;
    }
    if (field.kind == Kind::kSecret && node.scalar.find("${") == std::string::npos) {
      Complain(node.where, path,
               "a secret does not stand in the policy file; write ${NAME}, or use key_file");
      return;
    }
    const std::string wrong = field.kind == Kind::kSecretFile || field.kind == Kind::kSecretsFile
                                  ? ReadSecrets(field, text, object)
                                  : StoreScalar(field, text, object);
    if (!wrong.empty()) Complain(node.where, path, wrong);
  }

  std::string ReadSecrets(const Field& field, const std::string& path, void* object) {
    if (path.empty()) return "is empty; give the path of a file";
    const auto text = outside_.read_file(path[0] == '/' ? path : folder_ + path);
    if (!text.ok()) return std::string(text.status().message());
    std::vector<std::string> keys;
    for (std::string_view rest = *text; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = Trim(rest.substr(0, end));
      if (!line.empty() && line[0] != '#') {
        if (const std::string wrong = CheckControls(line); !wrong.empty()) {
          return fmt::format("{}: the key {} {}", path, keys.size() + 1, wrong);
        }
        keys.emplace_back(line);
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (keys.empty()) return fmt::format("{} holds no key", path);
    if (field.kind == Kind::kSecretsFile) {
      if (keys.size() > kSecretsMax) {
        return fmt::format("{} holds {} keys; allowed: {}", path, keys.size(), kSecretsMax);
      }
      *static_cast<std::vector<std::string>*>(field.at(object)) = std::move(keys);
      return "";
    }
    if (keys.size() > 1) return fmt::format("{} holds {} lines; expected one", path, keys.size());
    *static_cast<std::string*>(field.at(object)) = std::move(keys[0]);
    return "";
  }

  // Replaces ${NAME} and ${NAME:-default}. Returns what is wrong, or "".
  std::string Expand(const std::string& text, std::string& expanded) const {
    size_t at = 0;
    for (size_t open = text.find("${"); open != std::string::npos; open = text.find("${", at)) {
      const size_t close = text.find('}', open);
      if (close == std::string::npos) return fmt::format("\"{}\" lacks the closing }}", text);
      const std::string inside = text.substr(open + 2, close - open - 2);
      const size_t fallback = inside.find(":-");
      const std::string name = inside.substr(0, fallback);
      auto value = name.empty() ? std::nullopt : outside_.environment(name);
      if (!value && fallback != std::string::npos) value = inside.substr(fallback + 2);
      if (!value) {
        return fmt::format("the environment has no {}; set it, or write ${{{}:-DEFAULT}}",
                           name.empty() ? "variable without a name" : name, name);
      }
      expanded.append(text, at, open - at).append(*value);
      at = close + 1;
    }
    expanded.append(text, at);
    return "";
  }

  // Keys that are no fields: a policy's own settings where the section takes them.
  void ReadOtherKeys(const Section& section, const YamlNode& node, void* object,
                     const std::string& path) {
    std::vector<std::string_view> known;
    for (const Field& field : section.fields) known.push_back(field.key);
    for (size_t i = 0; i < node.keys.size(); ++i) {
      const auto& [key, where] = node.keys[i];
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      if (key == "<<") continue;  // Reported with the document.
      if (diagnostics_.size() >= kDiagnosticsKept) return;
      const std::string_view nearest = Nearest(key, known);
      if (section.params != nullptr && nearest.empty()) {
        ReadParam(*section.params(object), key, node.items[i], Join(path, key));
      } else {
        Complain(where, path,
                 nearest.empty()
                     ? fmt::format("unknown field \"{}\"; known: {}", key, fmt::join(known, ", "))
                     : fmt::format("unknown field \"{}\"; did you mean \"{}\"?", key, nearest));
      }
    }
  }

  // A pool that names another algorithm than `defaults` inherits no settings of that one.
  static void DropForeignParams(const YamlNode& node, void* object) {
    auto& balancing = *static_cast<LoadBalancing*>(object);
    const YamlNode* algorithm = node.Get("algorithm");
    if (algorithm == nullptr) return;
    balancing.where = algorithm->where;
    if (algorithm->scalar != balancing.algorithm) balancing.params.clear();
  }

  void ReadParam(std::vector<LoadBalancing::Param>& params, const std::string& key,
                 const YamlNode& node, const std::string& path) {
    where_[path] = node.where;
    if (node.kind != YamlNode::Kind::kScalar || node.scalar.empty()) {
      Complain(node.where, path, fmt::format("expected a single value, found {}", Describe(node)));
      return;
    }
    std::string value;
    if (std::string wrong = Expand(node.scalar, value); !wrong.empty()) {
      Complain(node.where, path, wrong);
      return;
    }
    if (std::string wrong = CheckControls(value); !wrong.empty()) {
      Complain(node.where, path, wrong);
      return;
    }
    std::erase_if(params, [&](const auto& param) { return param.key == key; });
    if (params.size() == kParamsMax) {
      Complain(node.where, path, fmt::format("more than {} settings", kParamsMax));
      return;
    }
    params.push_back({.key = key, .value = value, .where = node.where});
  }

  const std::string folder_;
  const Outside& outside_;
  std::vector<Diagnostic>& diagnostics_;
  Locations& where_;
};

void CheckVersion(const YamlNode& root, std::vector<Diagnostic>& diagnostics) {
  const YamlNode* version = root.Get("version");
  if (version == nullptr) return;  // Reported as a required field.
  if (root.keys.front().first != "version") {
    diagnostics.push_back({.where = root.Get("version")->where,
                           .path = "version",
                           .message = "is not the first field of the file; move it up"});
  }
  if (version->kind == YamlNode::Kind::kScalar && version->scalar != "v1") {
    diagnostics.push_back(
        {.where = version->where,
         .path = "version",
         .message = fmt::format("\"{}\" is not known; this penstock reads v1", version->scalar)});
  }
}

void FillIn(Config& config, const Locations& where) {
  auto& listeners = config.server.listeners;
  if (listeners.empty()) listeners.emplace_back();
  for (size_t i = 1; i < listeners.size(); ++i) {  // The first one's name has a default.
    if (!where.contains(fmt::format("server.listeners[{}].name", i))) listeners[i].name = listeners[i].address;
  }
  for (Pool& pool : config.pools) {
    for (Backend& backend : pool.backends) {
      if (backend.name.empty()) backend.name = backend.address;
    }
  }
}

bool HasErrors(const std::vector<Diagnostic>& diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(),
                     [](const Diagnostic& diagnostic) { return !diagnostic.warning; });
}

void ParseInto(std::string_view text, const Outside& outside, PolicyFile& file,
               ParseResult& result) {
  auto& diagnostics = result.diagnostics;
  if (text.size() > kFileBytesMax) {
    diagnostics.push_back(
        {.message = fmt::format("{} bytes is too long; allowed: {}", text.size(), kFileBytesMax)});
    return;
  }
  const YamlNode root = ReadYaml(text, diagnostics);
  if (root.kind == YamlNode::Kind::kNothing) {
    if (diagnostics.empty()) {
      diagnostics.push_back({.message = "is empty; begin with version: v1 and pools:"});
    }
    return;
  }
  if (root.kind == YamlNode::Kind::kMap) CheckVersion(root, diagnostics);
  Reader(file.file, outside, diagnostics, result.where).ReadSection(FileSection(), root, &file, "");
  FillIn(file, result.where);
  // Rules across fields need fields: half a config would break most of them.
  if (!HasErrors(diagnostics)) Validate(file, result.where, diagnostics);
}

}  // namespace

std::string ParseResult::Messages() const {
  std::string text;
  for (const Diagnostic& diagnostic : diagnostics) text += ToString(diagnostic) + "\n";
  return text;
}

const Outside& RealOutside() {
  static const Outside outside = {
      .environment = [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
      },
      .read_file = [](const std::string& path) { return ReadFileText(path); },
  };
  return outside;
}

ParseResult Parse(std::string_view text, std::string_view file_name, const Outside& outside) {
  ParseResult result;
  PolicyFile file;
  file.file = file_name;
  file.hash = HashText(text);
  ParseInto(text, outside, file, result);
  Sort(result.diagnostics);
  if (!HasErrors(result.diagnostics)) result.config = std::move(static_cast<Config&>(file));
  if (result.diagnostics.size() > kDiagnosticsMax) {
    const size_t more = result.diagnostics.size() - kDiagnosticsMax;
    result.diagnostics.resize(kDiagnosticsMax);
    result.diagnostics.push_back(
        {.message = fmt::format("... and {} more", more), .warning = result.ok()});
  }
  for (Diagnostic& diagnostic : result.diagnostics) diagnostic.file = file_name;
  return result;
}

ParseResult LoadFile(const std::string& path) {
  if (const auto text = ReadFileText(path); text.ok()) {
    return Parse(*text, path);
  } else {
    ParseResult result;
    result.diagnostics.push_back({.file = path, .message = std::string(text.status().message())});
    return result;
  }
}

}  // namespace penstock::config
