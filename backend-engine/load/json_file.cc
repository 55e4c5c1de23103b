#include "backend-engine/load/json_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/status/status.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

// Builds the document while it is parsed, so that a duplicate key or a deep
// nest is refused where it starts and not after it was stored.
class StrictBuilder {
 public:
  bool null() { return Add(nullptr); }
  bool boolean(bool value) { return Add(value); }
  bool number_integer(json::number_integer_t value) { return Add(value); }
  bool number_unsigned(json::number_unsigned_t value) { return Add(value); }
  bool number_float(json::number_float_t value, const std::string&) { return Add(value); }
  bool string(std::string& value) { return Add(std::move(value)); }
  bool binary(json::binary_t&) { return Fail("binary value"); }
  bool start_object(size_t) { return Open(json::object()); }
  bool start_array(size_t) { return Open(json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }

  bool key(std::string& name) {
    if (stack_.back()->contains(name)) return Fail("key " + Quoted(name) + " appears twice");
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string& last_token, const json::exception&) {
    return Fail(fmt::format("not valid JSON at byte {}, near {}", position, Quoted(last_token)));
  }

  json root;
  std::string error;

 private:
  bool Fail(std::string why) {
    if (error.empty()) error = std::move(why);
    return false;
  }

  json* Place(json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[std::exchange(key_, {})] = std::move(value));
  }

  bool Add(json value) {
    Place(std::move(value));
    return true;
  }

  bool Open(json container) {
    if (stack_.size() >= kJsonDepthMax) {
      return Fail(fmt::format("nested deeper than {} levels", kJsonDepthMax));
    }
    stack_.push_back(Place(std::move(container)));
    return true;
  }

  bool Close() {
    stack_.pop_back();
    return true;
  }

  // Invariant: each entry is the last child of the one before, so that growing
  // a container never moves an open one.
  std::vector<json*> stack_;
  std::string key_;
};

}  // namespace

std::string Quoted(std::string_view text) {
  constexpr size_t kShownMax = 80;
  std::string out = "\"";
  for (const char c : text.substr(0, kShownMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (text.size() > kShownMax ? "...\"" : "\"");
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t bytes_max) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string why = fmt::format("{}: cannot be opened: {}", path, std::strerror(errno));
    if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(why);
    return absl::InvalidArgumentError(why);
  }
  struct stat info = {};
  std::string error;
  std::string content;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    error = fmt::format("{}: not a regular file", path);
  } else if (static_cast<uint64_t>(info.st_size) > bytes_max) {
    error = fmt::format("{}: {} bytes; at most {} are read", path, info.st_size, bytes_max);
  } else {
    content.resize(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < content.size()) {
      const ssize_t count = read(fd, content.data() + done, content.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        error = fmt::format("{}: reading stopped at byte {} of {}: {}", path, done, content.size(),
                            count < 0 ? std::strerror(errno) : "the file became shorter");
        break;
      }
      done += static_cast<size_t>(count);
    }
  }
  close(fd);
  if (!error.empty()) return absl::InvalidArgumentError(error);
  return content;
}

absl::StatusOr<json> ParseStrictJson(std::string_view text, std::string_view what) {
  StrictBuilder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", what, builder.error));
  }
  return std::move(builder.root);
}

absl::StatusOr<json> ReadJsonFile(const std::string& path, size_t bytes_max) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, bytes_max);
  if (!text.ok()) return text.status();
  return ParseStrictJson(*text, path);
}

}  // namespace penstock::engine
