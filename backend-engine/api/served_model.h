// A model that is ready to be served: what the API needs to turn requests into
// prompts and tokens into text, and what it says about itself. Immutable once
// made, so that prompts may be prepared on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend-engine/api/openai_request.h"
#include "backend-engine/text/added_tokens.h"
#include "backend-engine/text/chat.h"
#include "backend-engine/text/tokenizer.h"

namespace penstock::engine {

struct ServedModel {
  std::vector<std::string> names;    // Told to clients; the first is the model's own. At least one.
  std::vector<std::string> aliases;  // Taken from clients too, but not listed: names[i] without
                                     // what the device added to it. As long as names, or empty.
  std::string device;                // "cpu", "emulated h200", "cuda".
  std::string dtype;
  std::string weights;               // Identity in hexadecimal.
  std::string fingerprint;
  int64_t created = 0;               // Seconds since 1970.
  int32_t tensor_parallel = 1;
  int32_t block_tokens = 0;
  int32_t max_length = 0;            // Prompt and answer together, in tokens: what the model
                                     // allows and the KV cache holds.
  RequestLimits limits;
  std::optional<int32_t> default_max_tokens;
  std::vector<int32_t> eos;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::vector<std::string> special_texts;    // How special tokens are spelt,
  AddedTokenFinder special_finder;           // and where; ids are places in special_texts.
  size_t token_bytes_max = 0;                // Of the longest token.
  std::unique_ptr<const ChatTemplate> chat;  // Null: the model has no template.

  bool emulated() const { return device.starts_with("emulated"); }

  // The name that an answer to a request for `asked` carries; nothing: it is not served here.
  std::optional<std::string_view> Match(std::string_view asked) const {
    for (size_t index = 0; index < names.size(); ++index) {
      if (asked == names[index] || (index < aliases.size() && asked == aliases[index])) {
        return names[index];
      }
    }
    return std::nullopt;
  }
};

}  // namespace penstock::engine
