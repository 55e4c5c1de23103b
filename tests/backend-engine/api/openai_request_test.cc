#include "backend-engine/api/openai_request.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "backend-engine/api/json_fields.h"

namespace penstock::engine {
namespace {

const RequestLimits kLimits = {.vocab_size = 2048};

struct Parsed {
  std::optional<OpenAiRequest> request;
  std::optional<ApiError> error;
};

Parsed ParseBody(std::string body, bool chat) {
  JsonDocument document;
  Parsed parsed;
  if (const auto object = document.Parse(body, parsed.error)) {
    parsed.request = chat ? ParseChatRequest(*object, kLimits, parsed.error)
                          : ParseCompletionRequest(*object, kLimits, parsed.error);
  }
  EXPECT_NE(parsed.request.has_value(), parsed.error.has_value());
  return parsed;
}

// A chat request that is right but for `fields`.
Parsed Chat(const std::string& fields) {
  return ParseBody(R"({"model":"m","messages":[{"role":"user","content":"hi"}])" +
                       (fields.empty() ? "" : "," + fields) + "}", true);
}

Parsed Completion(const std::string& fields) {
  return ParseBody(R"({"model":"m",)" + fields + "}", false);
}

struct Wrong {
  std::string fields;
  std::string param;
  std::string message;
};

void ExpectRefused(const std::vector<Wrong>& table) {
  for (const Wrong& wrong : table) {
    const Parsed parsed = Chat(wrong.fields);
    ASSERT_TRUE(parsed.error) << wrong.fields;
    EXPECT_EQ(parsed.error->status, 400) << wrong.fields;
    EXPECT_EQ(parsed.error->type, "invalid_request_error") << wrong.fields;
    EXPECT_EQ(parsed.error->param, wrong.param) << wrong.fields;
    EXPECT_EQ(parsed.error->message, wrong.message);
  }
}

// Above nothing as it is written, nothing as a float.
TEST(ChatRequest, TakesNoPenaltyThatItWouldDivideByAsNothing) {
  EXPECT_EQ(Chat(R"("repetition_penalty":1e-46)").error->message,
            "repetition_penalty is 1e-46; allowed: a number from 0.001 to 10");
  EXPECT_FALSE(Chat(R"("repetition_penalty":0.001)").error);
}

TEST(ChatRequest, SaysOfEveryWrongFieldWhatWasFoundAndWhatIsAllowed) {
  const std::string stop = "a string or up to 4 strings, each of 1 to 256 bytes";
  const std::vector<Wrong> table = {
      {R"("temperature":3.5)", "temperature", "temperature is 3.5; allowed: a number from 0 to 2"},
      {R"("temperature":"hot")", "temperature",
       "temperature is \"hot\"; allowed: a number from 0 to 2"},
      {R"("temperature":-1)", "temperature", "temperature is -1; allowed: a number from 0 to 2"},
      {R"("top_p":0)", "top_p", "top_p is 0; allowed: a number above 0, up to 1"},
      {R"("top_p":2)", "top_p", "top_p is 2; allowed: a number above 0, up to 1"},
      {R"("top_k":-5)", "top_k", "top_k is -5; allowed: a whole number from -1 to 2147483647"},
      {R"("min_p":1.5)", "min_p", "min_p is 1.5; allowed: a number from 0 to 1"},
      {R"("repetition_penalty":0)", "repetition_penalty",
       "repetition_penalty is 0; allowed: a number from 0.001 to 10"},
      {R"("presence_penalty":1e9)", "presence_penalty",
       "presence_penalty is 1e+09; allowed: a number from -2 to 2"},
      {R"("frequency_penalty":[])", "frequency_penalty",
       "frequency_penalty is an array of 0; allowed: a number from -2 to 2"},
      {R"("n":0)", "n", "n is 0; allowed: a whole number from 1 to 8"},
      {R"("n":-1)", "n", "n is -1; allowed: a whole number from 1 to 8"},
      {R"("n":1.5)", "n", "n is 1.5; allowed: a whole number from 1 to 8"},
      {R"("n":1000000000)", "n", "n is 1000000000; allowed: a whole number from 1 to 8"},
      {R"("best_of":3)", "best_of",
       "best_of is 3; allowed: the value of n, since answers are not ranked here"},
      {R"("max_tokens":0)", "max_tokens",
       "max_tokens is 0; allowed: a whole number from 1 to 2147483647"},
      {R"("max_tokens":2147483648)", "max_tokens",
       "max_tokens is 2147483648; allowed: a whole number from 1 to 2147483647"},
      {R"("max_completion_tokens":true)", "max_completion_tokens",
       "max_completion_tokens is true; allowed: a whole number from 1 to 2147483647"},
      {R"("seed":"x")", "seed", "seed is \"x\"; allowed: a whole number of 64 bits"},
      {R"("stop":"")", "stop", "stop is \"\"; allowed: " + stop},
      {R"("stop":["a","b","c","d","e"])", "stop", "stop is an array of 5; allowed: " + stop},
      {R"("stop":["a",1])", "stop", "stop[1] is 1; allowed: " + stop},
      {R"("logit_bias":[])", "logit_bias",
       "logit_bias is an array of 0; allowed: an object of up to 1024 token ids, each with a "
       "number from -100 to 100"},
      {R"("logit_bias":{"2048":1})", "logit_bias",
       "a key of logit_bias is not a token id of this model; allowed: 0 to 2047"},
      {R"("logit_bias":{"7":101})", "logit_bias",
       "logit_bias[7] is 101; allowed: a number from -100 to 100"},
      {R"("logprobs":"yes")", "logprobs", "logprobs is \"yes\"; allowed: true or false"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs",
       "top_logprobs is 21; allowed: a whole number from 0 to 20"},
      {R"("top_logprobs":2)", "top_logprobs",
       "top_logprobs is given but logprobs is not true; set logprobs to true or leave "
       "top_logprobs out"},
      {R"("stream":"yes")", "stream", "stream is \"yes\"; allowed: true or false"},
      {R"("stream":1)", "stream", "stream is 1; allowed: true or false"},
      {R"("stream":true,"stream_options":7)", "stream_options",
       "stream_options is 7; allowed: an object"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options",
       "stream_options.include_usage is 1; allowed: true or false"},
      {R"("stream_options":{})", "stream_options",
       "stream_options is given but stream is not true; set stream to true or leave "
       "stream_options out"},
  };
  ExpectRefused(table);
}

TEST(ChatRequest, SaysOfWhatItCannotDoHowToAskWithoutIt) {
  const std::vector<Wrong> table = {
      {R"("response_format":{"type":"json_object"})", "response_format",
       "this engine answers in plain text only; leave response_format out or set its type to "
       "\"text\""},
      {R"("tools":[{"type":"function"}])", "tools",
       "this engine calls no tools; leave tools out or set tool_choice to \"none\""},
      {R"("tool_choice":"required")", "tool_choice",
       "this engine calls no tools; leave tool_choice out or set it to \"none\""},
      {R"("tool_choice":{"type":"function"})", "tool_choice",
       "this engine calls no tools; leave tool_choice out or set it to \"none\""},
      {R"("stop_token_ids":7)", "stop_token_ids",
       "stop_token_ids is 7; allowed: an array of up to 64 token ids from 0 to 2047"},
      {R"("stop_token_ids":[7,2048])", "stop_token_ids",
       "stop_token_ids[1] is 2048; allowed: an array of up to 64 token ids from 0 to 2047"},
      {R"("min_tokens":-1)", "min_tokens",
       "min_tokens is -1; allowed: a whole number from 0 to 2147483647"},
      {R"("modalities":["text","audio"])", "modalities",
       "this engine answers in plain text only; leave modalities out or set it to [\"text\"]"},
      {R"("modalities":"audio")", "modalities",
       "this engine answers in plain text only; leave modalities out or set it to [\"text\"]"},
      {R"("chat_template":"{{ mine }}")", "chat_template",
       "the model's own template is used; leave chat_template out"},
      {R"("prompt_logprobs":0)", "prompt_logprobs",
       "the logprobs of the prompt are not computed; leave prompt_logprobs out"},
  };
  ExpectRefused(table);
}

TEST(Request, RefusesWhatWouldChangeTheAnswerAndLetsThroughWhatAsksForNothing) {
  for (const char* field :
       {R"("structured_outputs":{"json":{}})", R"("guided_json":{"type":"object"})",
        R"("guided_regex":"[0-9]+")", R"("guided_choice":["a"])", R"("guided_grammar":"root ::= x")",
        R"("use_beam_search":true)", R"("bad_words":["a"])", R"("allowed_token_ids":[1])",
        R"("include_stop_str_in_output":true)", R"("truncate_prompt_tokens":8)",
        R"("continue_final_message":true)"}) {
    for (const Parsed& parsed : {Chat(field), Completion(R"("prompt":"a",)" + std::string(field))}) {
      ASSERT_TRUE(parsed.error) << field;
      EXPECT_EQ(parsed.error->status, 400);
      const std::string quoted = '"' + parsed.error->param + '"';
      EXPECT_TRUE(std::string_view(field).starts_with(quoted)) << parsed.error->param;
    }
  }
  const Parsed parsed = Chat(
      R"("structured_outputs":{},"guided_json":null,"guided_regex":"","guided_choice":[],)"
      R"("use_beam_search":false,"tool_choice":"auto","modalities":["text"],"prompt_logprobs":null,)"
      R"("stop_token_ids":[],"min_tokens":0,"response_format":{"type":"text"},"tools":[])");
  EXPECT_FALSE(parsed.error) << parsed.error->message;
}

TEST(ChatRequest, ASeedIsAnyWholeNumberOf64BitsAndNothingElse) {
  EXPECT_EQ(Chat(R"("seed":-1)").request->settings.seed, ~uint64_t{0});
  EXPECT_EQ(Chat(R"("seed":18446744073709551615)").request->settings.seed, ~uint64_t{0});
  EXPECT_EQ(Chat(R"("seed":5.0)").request->settings.seed, 5u);
  EXPECT_EQ(Chat(R"("seed":18446744073709551616)").error->status, 400);
  EXPECT_EQ(Chat(R"("seed":1.5)").error->message, "seed is 1.5; allowed: a whole number of 64 bits");
}

TEST(ChatRequest, RefusesMessagesThatAreNone) {
  const std::string roles =
      "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"";
  const std::vector<std::pair<std::string, std::string>> table = {
      {R"({"model":"m"})", "messages is missing; it must be an array of 1 to 2048 messages"},
      {R"({"model":"m","messages":[]})",
       "messages is an array of 0; allowed: an array of 1 to 2048 messages"},
      {R"({"model":"m","messages":null})",
       "messages is null; allowed: an array of 1 to 2048 messages"},
      {R"({"model":"m","messages":[7]})",
       "messages[0] is 7; allowed: an object with role and content"},
      {R"({"model":"m","messages":[{"role":"king","content":""}]})",
       "messages[0].role is \"king\"; allowed: " + roles},
      {R"({"model":"m","messages":[{"content":""}]})",
       "messages[0].role is missing; it must be " + roles},
      {R"({"model":"m","messages":[{"role":"user","content":"a"},{"role":"user","content":null}]})",
       "messages[1].content is null; allowed: a string or an array of text parts"},
      {R"({"model":"m","messages":[{"role":"user","content":7}]})",
       "messages[0].content is 7; allowed: a string or an array of text parts"},
      {R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":)"
       R"({"url":"http://169.254.169.254/"}}]}]})",
       "messages[0].content[0] is not a text part; this model reads text only: "
       "{\"type\":\"text\",\"text\":...}"},
  };
  for (const auto& [body, message] : table) {
    const Parsed parsed = ParseBody(body, true);
    ASSERT_TRUE(parsed.error) << body;
    EXPECT_EQ(parsed.error->param, "messages") << body;
    EXPECT_EQ(parsed.error->message, message);
  }
}

TEST(ChatRequest, ReadsWhatIsGivenAndTakesTheModelsDefaultsForTheRest) {
  JsonDocument document;
  std::optional<ApiError> error;
  std::string body = R"({"model":"m","messages":[
      {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null},{"role":"user","content":"q","name":"x"}],
      "max_tokens":5,"max_completion_tokens":7.0,"top_k":-1,"seed":-1,"stop":"S","stream":true,
      "stream_options":{"include_usage":true},"logprobs":true,"logit_bias":{"7":-100},
      "user":"u","unknown":{"a":[1]},"stop_token_ids":[7,0],"min_tokens":3,
      "prompt_embeds":"AAAA"})";
  RequestLimits limits = kLimits;
  limits.defaults.temperature = 0;
  limits.defaults.top_p = 0.5F;
  const auto request = ParseChatRequest(*document.Parse(body, error), limits, error);
  ASSERT_TRUE(request) << error->message;
  ASSERT_EQ(request->messages.size(), 3u);
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[0].content, "ab");
  EXPECT_EQ(request->messages[2].content, "q");
  const AnswerSettings& settings = request->settings;
  EXPECT_EQ(settings.max_tokens, 7);
  EXPECT_EQ(settings.sampling.temperature, 0);
  EXPECT_EQ(settings.sampling.top_p, 0.5F);
  EXPECT_EQ(settings.sampling.top_k, 0);
  EXPECT_EQ(settings.seed, ~uint64_t{0});
  EXPECT_EQ(settings.stop, std::vector<std::string>{"S"});
  EXPECT_EQ(settings.stop_token_ids, (std::vector<int32_t>{7, 0}));
  EXPECT_EQ(settings.min_tokens, 3);
  EXPECT_TRUE(settings.stream);
  EXPECT_TRUE(settings.include_usage);
  EXPECT_EQ(settings.sampling.logprobs, 0);
  EXPECT_EQ(settings.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{7, -100.0F}}));
}

TEST(CompletionRequest, ReadsTextTokenIdsAndListsOfBoth) {
  EXPECT_EQ(std::get<std::string>(Completion(R"("prompt":"a")").request->prompts[0]), "a");
  EXPECT_EQ(std::get<TokenIds>(Completion(R"("prompt":[1,2047])").request->prompts[0]),
            (TokenIds{1, 2047}));
  const auto many = Completion(R"("prompt":["a",[5,6],"b"])").request->prompts;
  ASSERT_EQ(many.size(), 3u);
  EXPECT_EQ(std::get<TokenIds>(many[1]), (TokenIds{5, 6}));
}

TEST(CompletionRequest, SaysWhatIsWrongWithAPrompt) {
  const std::string allowed =
      "a string, an array of token ids from 0 to 2047, or an array of up to 32 of either, none "
      "empty";
  std::string long_list = R"("prompt":["a")";
  for (int i = 0; i < 32; ++i) long_list += R"(,"a")";
  const std::vector<std::pair<std::string, std::string>> table = {
      {R"("prompt":"")", "prompt is \"\"; allowed: " + allowed},
      {R"("prompt":[])", "prompt is an array of 0; allowed: " + allowed},
      {R"("prompt":[1,-1])", "prompt[1] is -1; allowed: " + allowed},
      {R"("prompt":[1,2048])", "prompt[1] is 2048; allowed: " + allowed},
      {R"("prompt":[1,1.5])", "prompt[1] is 1.5; allowed: " + allowed},
      {R"("prompt":[1099511627776])", "prompt[0] is 1099511627776; allowed: " + allowed},
      {R"("prompt":["a",[5,2048]])", "prompt[1][1] is 2048; allowed: " + allowed},
      {R"("prompt":["a",""])", "prompt[1] is \"\"; allowed: " + allowed},
      {R"("prompt":["a",7])", "prompt[1] is 7; allowed: " + allowed},
      {long_list + "]", "prompt is an array of 33; allowed: " + allowed},
      {R"("n":1)", "prompt is missing; it must be " + allowed},
  };
  for (const auto& [fields, message] : table) {
    const Parsed parsed = Completion(fields);
    ASSERT_TRUE(parsed.error) << fields;
    EXPECT_EQ(parsed.error->param, "prompt");
    EXPECT_EQ(parsed.error->message, message);
  }
  EXPECT_EQ(Completion(R"("prompt":"a","suffix":"b")").error->param, "suffix");
  EXPECT_EQ(Completion(R"("prompt":"a","echo":true,"logprobs":1)").error->param, "echo");
  EXPECT_EQ(Completion(R"("prompt":"a","logprobs":21)").error->message,
            "logprobs is 21; allowed: a whole number from 0 to 20");
  EXPECT_EQ(Completion(R"("prompt":["a","a","a","a","a","a","a","a","a"],"n":8)").error->message,
            "n is 8 for 9 prompts; allowed: up to 64 answers in one request");
}

TEST(Request, HoldsNoMoreThanItsLimits) {
  const auto repeated = [](size_t count, const std::string& item) {
    std::string list = item;
    for (size_t i = 1; i < count; ++i) list += "," + item;
    return list;
  };
  const auto messages = [&](size_t count) {
    return ParseBody(R"({"model":"m","messages":[)" +
                         repeated(count, R"({"role":"user","content":"a"})") + "]}", true);
  };
  EXPECT_TRUE(messages(kMessagesMax).request);
  EXPECT_EQ(messages(kMessagesMax + 1).error->message,
            "messages is an array of 2049; allowed: an array of 1 to 2048 messages");
  const auto parts = [&](size_t count) {
    return ParseBody(R"({"model":"m","messages":[{"role":"user","content":[)" +
                         repeated(count, R"({"type":"text","text":"a"})") + "]}]}", true);
  };
  EXPECT_TRUE(parts(kContentPartsMax).request);
  EXPECT_EQ(parts(kContentPartsMax + 1).error->param, "messages");
  const auto biases = [](size_t count) {
    std::string list = R"("logit_bias":{"0":1)";
    for (size_t i = 1; i < count; ++i) list += ",\"" + std::to_string(i) + "\":1";
    return Chat(list + "}");
  };
  EXPECT_TRUE(biases(kLogitBiasMax).request);
  EXPECT_EQ(biases(kLogitBiasMax + 1).error->param, "logit_bias");
  const auto stop = [](size_t bytes) { return Chat(R"("stop":")" + std::string(bytes, 's') + "\""); };
  EXPECT_TRUE(stop(kStopBytesMax).request);
  EXPECT_EQ(stop(kStopBytesMax + 1).error->param, "stop");
}

TEST(Request, NeedsAModel) {
  EXPECT_EQ(Completion(R"("prompt":"a")").error, std::nullopt);
  const Parsed parsed = ParseBody(R"({"prompt":"a"})", false);
  EXPECT_EQ(parsed.error->message, "model is missing; it must be the name of a model");
  EXPECT_EQ(ParseBody(R"({"model":")" + std::string(300, 'x') + R"(","prompt":"a"})", false)
                .error->param,
            "model");
}

TEST(RequestBody, MustBeOneWholeJsonObject) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"", "the body is empty; allowed: one JSON object"},
      {std::string(1000000, ' '), "the body is empty; allowed: one JSON object"},
      {"null", "the body is null; allowed: one JSON object"},
      {"[]", "the body is an array of 0; allowed: one JSON object"},
      {"\"x\"", "the body is \"x\"; allowed: one JSON object"},
      {R"({"model":"a","model":"b"})",
       "the key \"model\" stands twice in one object; every key may be given once"},
      {R"({"a":[{"b":1,"c":2,"b":3}]})",
       "the key \"b\" stands twice in one object; every key may be given once"},
  };
  for (const auto& [body, message] : table) {
    EXPECT_EQ(ParseBody(body, true).error->message, message);
  }
  for (const std::string body :
       {"{", "{\"a\":1} x", "{\"a\":1}{}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":0x1}", "{\"a\":NaN}",
        "{\"a\":Infinity}", "{\"a\":1e400}", "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}",
        "\xEF\xBB\xBF{}", "{\"a\":1,}", "{/**/}", "{'a':1}"}) {
    const Parsed parsed = ParseBody(body, true);
    EXPECT_EQ(parsed.error->status, 400) << body;
    EXPECT_EQ(parsed.error->message.find("the body is not valid JSON: "), 0u) << body;
  }
}

TEST(RequestBody, MayBeNestedSixtyFourDeepAndNoDeeper) {
  const auto nested = [](int depth) {
    return R"({"model":"m","prompt":"a","x":)" + std::string(depth - 1, '[') +
           std::string(depth - 1, ']') + "}";
  };
  EXPECT_FALSE(ParseBody(nested(63), false).error);
  for (const int depth : {66, 10'000, 1'000'000}) {
    EXPECT_EQ(ParseBody(nested(depth), false).error->message,
              "the body is nested deeper than 64 levels");
  }
}

// Whatever the bytes, the answer is a request or one error, and no crash.
TEST(RequestBody, SurvivesBytesThatWereChangedAtRandom) {
  const uint32_t seed = 20260;
  std::mt19937 random(seed);
  const std::string good =
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stop":["a","b"],"n":2,)"
      R"("logit_bias":{"1":2},"stream":true,"stream_options":{"include_usage":true},)"
      R"("temperature":0.5,"seed":7,"max_tokens":9,"prompt":["x",[1,2]]})";
  for (int round = 0; round < 20000; ++round) {
    std::string body = good;
    for (uint32_t change = random() % 4; change-- > 0;) {
      const size_t at = random() % body.size();
      switch (random() % 3) {
        case 0: body[at] = static_cast<char>(random()); break;
        case 1: body.erase(at, random() % 8); break;
        default: body.insert(at, body.substr(random() % body.size(), random() % 12));
      }
      if (body.empty()) body = "{";
    }
    SCOPED_TRACE(::testing::Message() << "seed " << seed << " round " << round);
    ParseBody(body, round % 2 == 0);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace penstock::engine
