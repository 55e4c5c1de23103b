// Strings as Python understands them, for chat templates: counted in
// characters, split, stripped and cased by Python's rules. All input is valid
// UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::engine::jinja {

bool IsPythonSpace(char32_t code);

std::u32string Chars(std::string_view text);
std::string FromChars(std::u32string_view chars);
size_t CharCount(std::string_view text);

enum class Side { kLeft, kRight, kBoth };
// Without `chars`: white space.
std::string_view Strip(std::string_view text, Side side, std::optional<std::string_view> chars = {});

// An empty `separator` splits at runs of white space. A negative `limit` is none.
std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

// Linear, whatever the texts.
size_t FindText(std::string_view text, std::string_view part, size_t from = 0);
size_t CountText(std::string_view text, std::string_view part);
// A negative `limit` is none.
std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t limit);

std::string UpperText(std::string_view text);
std::string LowerText(std::string_view text);
std::string CapitalizeText(std::string_view text);
std::string TitleText(std::string_view text);
std::string SwapCaseText(std::string_view text);

// Text of a template or a request as it may stand in a one-line message.
std::string OneLine(std::string_view text);

// repr() of a string and of a float.
void AppendStringRepr(std::string_view text, std::string& out);
std::string FloatRepr(double value);

}  // namespace penstock::engine::jinja
