#include "config/schema.h"

#include "config/field.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace penstock::config {
namespace {

std::string Json(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

// A value in the form of a field, or a ${NAME} that the environment fills.
std::string Pattern(std::string_view expression) {
  return fmt::format("\"type\": \"string\", \"pattern\": {}",
                     Json(fmt::format("^({}|.*\\$\\{{.+\\}}.*)$", expression)));
}

std::string JoinWords(std::string_view words) {
  std::string list;
  for (size_t at = 0; at <= words.size();) {
    const size_t end = std::min(words.find('|', at), words.size());
    list += fmt::format("{}{}", list.empty() ? "" : ", ", Json(words.substr(at, end - at)));
    at = end + 1;
  }
  return list;
}

// A word like 1.2 is a number to YAML unless it is quoted: both spellings are fine.
std::string ChoiceWords(std::string_view words) {
  const bool numbers = words.find_first_not_of("0123456789.|") == std::string_view::npos;
  std::string list = JoinWords(words);
  if (!numbers) return list;
  list += ", ";
  for (const char c : words) list += c == '|' ? std::string(", ") : std::string(1, c);
  return list;
}

class SchemaWriter {
 public:
  explicit SchemaWriter(std::span<const std::string_view> algorithms) : algorithms_(algorithms) {}

  std::string Write() {
    PolicyFile file;
    return fmt::format(
        "{{\n  \"$schema\": \"http://json-schema.org/draft-07/schema#\",\n"
        "  \"title\": \"Penstock policy file\",\n  {}\n}}\n",
        SectionBody(FileSection(), &file, 1));
  }

 private:
  // The members of an object schema, without the braces around them.
  std::string SectionBody(const Section& section, void* object, size_t depth) {
    const std::string indent(depth * 2, ' ');
    std::string properties;
    std::string required;
    for (const Field& field : section.fields) {
      properties += fmt::format("{}\n{}  {}: {{{}}}", properties.empty() ? "" : ",", indent,
                                Json(field.key), FieldBody(field, object, depth + 1));
      if (field.required) {
        required += fmt::format("{}{}", required.empty() ? "" : ", ", Json(field.key));
      }
    }
    std::string body = fmt::format("\"type\": \"object\", \"additionalProperties\": {},\n{}",
                                   section.params != nullptr, indent);
    if (!required.empty()) body += fmt::format("\"required\": [{}],\n{}", required, indent);
    return body + fmt::format("\"properties\": {{{}\n{}}}", properties, indent);
  }

  std::string FieldBody(const Field& field, void* object, size_t depth) {
    std::string head = "\"description\": " + Json(field.effect);
    if (field.kind != Kind::kSection && field.kind != Kind::kList && field.kind != Kind::kTexts) {
      if (const std::string value = ShowScalar(field, object); !value.empty()) {
        head += ", \"default\": " + Json(value);
      }
    }
    return head + ", " + TypeBody(field, object, depth);
  }

  std::string TypeBody(const Field& field, void* object, size_t depth) {
    switch (field.kind) {
      case Kind::kSection:
        return SectionBody(*field.section, field.at(object), depth);
      case Kind::kList:
        return ListBody(field, object, depth);
      case Kind::kTexts:
        return "\"type\": \"array\", \"items\": {\"type\": \"string\"}";
      case Kind::kFlag:
        return "\"enum\": [true, false]";
      case Kind::kChoice:
        return fmt::format("\"enum\": [{}]", ChoiceWords(field.words));
      case Kind::kCount:
        return CountBody(field);
      case Kind::kCountOrAuto:
        return fmt::format("\"anyOf\": [{{\"enum\": [\"auto\"]}}, {{{}}}]", CountBody(field));
      case Kind::kNumber:
        return fmt::format(
            "\"type\": [\"number\", \"string\"], \"minimum\": {:g}, "
            "\"maximum\": {:g}, \"pattern\": \"\\\\$\\\\{{.+\\\\}}\"",
            field.min, field.max);
      case Kind::kBytes:
        return Pattern("[0-9.]+(B|KiB|MiB|GiB)");
      case Kind::kBytesOrAuto:
        return Pattern("auto|[0-9.]+(B|KiB|MiB|GiB)");
      case Kind::kDuration:
        return Pattern("[0-9.]+(ms|s|m|h)");
      case Kind::kShare:
        return Pattern("[0-9.]+%");
      case Kind::kPath:
        return Pattern("/[^ ?#]*");
      case Kind::kSecret:
        return "\"type\": \"string\", \"pattern\": \"\\\\$\\\\{.+\\\\}\"";
      default:
        break;
    }
    if (field.key == "version") return "\"enum\": [\"v1\"]";
    if (field.key != "algorithm") return "\"type\": \"string\", \"minLength\": 1";
    std::string words;
    for (const auto name : algorithms_) words += fmt::format("{}|", name);
    if (!words.empty()) words.pop_back();
    return fmt::format("\"enum\": [{}]", JoinWords(words));
  }

  static std::string CountBody(const Field& field) {
    return fmt::format(
        "\"type\": [\"integer\", \"string\"], \"minimum\": {:.0f}, "
        "\"maximum\": {:.0f}, \"pattern\": \"\\\\$\\\\{{.+\\\\}}\"",
        field.min, field.max);
  }

  std::string ListBody(const Field& field, void* object, size_t depth) {
    std::string item = SectionBody(*field.section, field.append(object), depth + 1);
    if (!field.section->short_key.empty()) {
      item = fmt::format("\"anyOf\": [{{\"type\": \"string\"}}, {{{}}}]", item);
    }
    return fmt::format("\"type\": \"array\", \"maxItems\": {:.0f}, \"items\": {{{}}}", field.max,
                       item);
  }

  std::span<const std::string_view> algorithms_;
};

void AddRows(const Section& section, void* object, const std::string& prefix, std::string& table) {
  for (const Field& field : section.fields) {
    const std::string path = prefix + std::string(field.key);
    if (field.kind == Kind::kSection) {
      // What `defaults` may say is described once, where a pool says it.
      if (field.key != "defaults") {
        AddRows(*field.section, field.at(object), path + ".", table);
        continue;
      }
    }
    std::string value;
    if (field.required) {
      value = "required";
    } else if (field.kind != Kind::kSection && field.kind != Kind::kList) {
      const std::string shown = ShowScalar(field, object);
      if (!shown.empty() && shown != "[]") value = fmt::format("`{}`", shown);
    }
    table +=
        fmt::format("| `{}` | {} | {} | {} |\n", path, DescribeKind(field), value, field.effect);
    if (field.kind == Kind::kList) {
      AddRows(*field.section, field.append(object), path + "[].", table);
    }
  }
}

}  // namespace

std::string JsonSchema(std::span<const std::string_view> algorithms) {
  return SchemaWriter(algorithms).Write();
}

std::string MarkdownTable() {
  std::string table = "| field | takes | default | effect |\n| --- | --- | --- | --- |\n";
  PolicyFile file;
  AddRows(FileSection(), &file, "", table);
  return table;
}

}  // namespace penstock::config
