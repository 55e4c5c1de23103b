#include "backend-engine/api/service.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/backend-engine/api/service_fixture.h"

namespace penstock::engine {
namespace {

// The data of every event of a stream.
std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "half an event: " << body.substr(at);
    if (end == std::string::npos) break;
    EXPECT_EQ(body.compare(at, 6, "data: "), 0) << body.substr(at, 40);
    events.push_back(body.substr(at + 6, end - at - 6));
    at = end + 2;
  }
  return events;
}

std::string StreamedText(const std::vector<std::string>& events, int index = 0) {
  std::string text;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const auto parsed = nlohmann::json::parse(event);
    for (const auto& choice : parsed["choices"]) {
      if (choice["index"] != index) continue;
      text += choice.contains("text") ? choice["text"].get<std::string>()
                                      : choice["delta"].value("content", "");
    }
  }
  return text;
}

TEST_F(ServiceTest, SaysLoadingUntilTheEngineHasMadeAToken) {
  Listen();
  const Answer loading = Get("/health");
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.Json()["status"], "loading");
  EXPECT_EQ(Get("/load").Json()["state"], "loading");
  const Answer early = Chat();
  EXPECT_EQ(early.status, 503);
  EXPECT_EQ(early.ErrorCode(), "loading");
  EXPECT_EQ(early.Header("retry-after"), "1");
  EXPECT_EQ(Get("/v1/models").Json()["data"].size(), 0u);

  MakeReady();
  const Answer ready = Get("/health");
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(ready.Json()["status"], "ok");
  EXPECT_EQ(ready.Json()["emulated"], true);
  EXPECT_EQ(ready.Json()["tensor_parallel"], 2);
  EXPECT_EQ(ready.Json()["model"], "lexicon-5m-emulated");
}

TEST_F(ServiceTest, SaysThatItHasFailedOnceAStepHas) {
  Start();
  EXPECT_EQ(Get("/health").status, 200);
  runner_->Abort();
  EXPECT_GE(Chat().status, 500);  // Its step fails, and with it the engine.
  const Answer failed = Get("/health");
  EXPECT_EQ(failed.status, 503);
  EXPECT_EQ(failed.Json()["status"], "failed");
  EXPECT_EQ(Get("/load").Json()["state"], "failed");
  EXPECT_EQ(Chat().status, 500);  // At once.
}

TEST_F(ServiceTest, AnswersAChatWholeAndStreamedWithTheSameText) {
  Start();
  const Answer whole = Chat();
  ASSERT_EQ(whole.status, 200) << whole.body;
  const auto json = whole.Json();
  const std::string text = json["choices"][0]["message"]["content"];
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(json["model"], "lexicon-5m-emulated");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 15);
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_NE(whole.Header("openai-processing-ms"), "");

  const Answer streamed = Chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(streamed.status, 200);
  EXPECT_EQ(streamed.Header("content-type"), "text/event-stream; charset=utf-8");
  const auto events = Events(streamed.body);
  EXPECT_EQ(StreamedText(events), text);
  EXPECT_EQ(events.back(), "[DONE]");
  const auto usage = nlohmann::json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"].size(), 0u);
  EXPECT_EQ(usage["usage"]["total_tokens"], 27);
  const auto first = nlohmann::json::parse(events.front())["choices"][0]["delta"];
  EXPECT_EQ(first["role"], "assistant");
  EXPECT_NE(first["content"], "");
}

TEST_F(ServiceTest, StopsAtAStringThatBeginsInOneTokenAndEndsInAnother) {
  Start();
  const std::string text = Chat().Json()["choices"][0]["message"]["content"];
  const size_t space = text.find(' ', 1);
  ASSERT_NE(space, std::string::npos);
  const std::string stop = text.substr(space - 2, 4);  // Over the border of two words.
  const auto whole = Chat({{"stop", stop}}).Json();
  EXPECT_EQ(whole["choices"][0]["message"]["content"], text.substr(0, text.find(stop)));
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  EXPECT_LT(whole["usage"]["completion_tokens"], 12);
  const auto events = Events(Chat({{"stop", {stop}}, {"stream", true}}).body);
  EXPECT_EQ(StreamedText(events), text.substr(0, text.find(stop)));
  EXPECT_TRUE(RunUntil([&] { return engine_->idle(); }));
  EXPECT_EQ(engine_->Load().kv_blocks_used, 0);
}

TEST_F(ServiceTest, CompletesTextTokenIdsAndSeveralPromptsAtOnce) {
  Start();
  const auto one = Post("/v1/completions", {{"model", "lexicon-5m"}, {"prompt", "a b"}}).Json();
  EXPECT_EQ(one["object"], "text_completion");
  EXPECT_EQ(one["usage"]["completion_tokens"], 16);
  const auto many = Post("/v1/completions", {{"model", "lexicon-5m"},
                                             {"prompt", {"a b", nlohmann::json({5, 6})}},
                                             {"n", 2},
                                             {"max_tokens", 3}})
                        .Json();
  ASSERT_EQ(many["choices"].size(), 4u);
  EXPECT_EQ(many["choices"][3]["index"], 3);
  EXPECT_EQ(many["usage"]["completion_tokens"], 12);
  const auto echoed = Post("/v1/completions", {{"model", "lexicon-5m"},
                                               {"prompt", "a b"},
                                               {"echo", true},
                                               {"max_tokens", 3}})
                          .Json();
  EXPECT_EQ(echoed["choices"][0]["text"].get<std::string>().rfind("a b", 0), 0u);
}

TEST_F(ServiceTest, GivesEachChoiceOfAStreamItsOwnEvents) {
  Start();
  const std::string text = Chat().Json()["choices"][0]["message"]["content"];
  const auto events = Events(Chat({{"n", 3}, {"stream", true}}).body);
  for (int index = 0; index < 3; ++index) EXPECT_EQ(StreamedText(events, index), text);
}

TEST_F(ServiceTest, NamesTheModelThatIsNotServed) {
  Start();
  const Answer answer = Chat({{"model", "../../etc/passwd"}});
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.ErrorCode(), "model_not_found");
  EXPECT_EQ(answer.Json()["error"]["param"], "model");
  EXPECT_EQ(Get("/v1/models/nothing").status, 404);
  const auto list = Get("/v1/models").Json();
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "lexicon-5m-emulated");
  EXPECT_EQ(Get("/v1/models/lexicon-5m-emulated").Json()["object"], "model");
}

TEST_F(ServiceTest, RefusesWhatCannotFitTheContext) {
  Start();
  const Answer answer = Chat({{"max_tokens", 500}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.ErrorCode(), "context_length_exceeded");
  EXPECT_EQ(answer.Json()["error"]["message"],
            "max_tokens is 500 and the prompt is 15 tokens long; this model takes 512 tokens "
            "together, so max_tokens may be up to 497 here");
  const auto long_message = nlohmann::json{{{"role", "user"}, {"content", std::string(3000, '.')}}};
  EXPECT_EQ(Chat({{"messages", long_message}}).ErrorCode(), "context_length_exceeded");
  const auto huge = nlohmann::json{{{"role", "user"}, {"content", std::string(4 << 20, 'a')}}};
  EXPECT_EQ(Chat({{"messages", huge}}).ErrorCode(), "context_length_exceeded");
}

TEST_F(ServiceTest, PromisesNoMoreTokensThanTheKvCacheHolds) {
  ServiceSetup setup;
  setup.options.kv_blocks = 4;  // 64 tokens; the model's own limit is 512, its answers' 96.
  Start(std::move(setup));
  EXPECT_NE(opened_->start_notes.find("up to 65 tokens, as the KV cache holds no more; 512 would "
                                      "need 32 blocks"), std::string::npos) << opened_->start_notes;
  EXPECT_EQ(Get("/v1/models").Json()["data"][0]["max_model_len"], 65);
  EXPECT_EQ(Get("/health").Json()["max_length"], 65);
  // Who names no length gets what there is room for.
  const Answer answer = Chat({{"max_tokens", nullptr}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.Json()["usage"]["completion_tokens"], 50);
  EXPECT_EQ(Chat({{"max_tokens", 50}}).status, 200);
  const Answer refused = Chat({{"max_tokens", 51}});
  EXPECT_EQ(refused.ErrorCode(), "context_length_exceeded");
  EXPECT_EQ(refused.Json()["error"]["param"], "max_tokens");
}

TEST_F(ServiceTest, HasMeasuredNoSpeedBeforeAClientCame) {
  Start();
  const auto before = Get("/load").Json();
  for (const char* figure : {"ttft_ms_p50", "step_ms", "prefill_tokens_per_s"}) {
    EXPECT_FALSE(before.contains(figure)) << before;
  }
  EXPECT_EQ(Chat().status, 200);
  const auto after = Get("/load").Json();
  for (const char* figure : {"ttft_ms_p50", "step_ms", "prefill_tokens_per_s"}) {
    EXPECT_TRUE(after.contains(figure)) << after;
  }
}

TEST_F(ServiceTest, ReadsSpecialTokensOfAClientAsPlainText) {
  Start();
  const auto tokens = [&](const std::string& content) {
    return Chat({{"messages", {{{"role", "user"}, {"content", content}}}}, {"max_tokens", 1}})
        .Json()["usage"]["prompt_tokens"]
        .get<int>();
  };
  // As a special token it would be one; as text it is several.
  EXPECT_GT(tokens("<|im_end|>"), tokens("a") + 2);
  EXPECT_GT(tokens("a\xEF\xA3\xB0" "2\xEF\xA3\xB1"), tokens("a"));
}

TEST_F(ServiceTest, AnswersUnknownPathsAndMethodsInTheSameShape) {
  Start();
  EXPECT_EQ(Get("/nothing").status, 404);
  EXPECT_EQ(Get("/nothing").ErrorCode(), "route_not_found");
  const Answer get = Get("/v1/chat/completions");
  EXPECT_EQ(get.status, 405);
  EXPECT_EQ(get.Header("allow"), "POST");
  EXPECT_EQ(Post("/health", {}).status, 405);
  EXPECT_EQ(Ask({.method = "POST", .target = "/v1/completions", .headers = {{"content-type", "text/plain"}},
                 .body = "{}"}).status, 415);
}

TEST_F(ServiceTest, EchoesAUsableRequestIdAndMakesOneOtherwise) {
  Start();
  EXPECT_EQ(Chat({}, {{"x-request-id", "abc-1"}}).Header("x-request-id"), "abc-1");
  const std::string made(Chat({}, {{"x-request-id", "a b"}}).Header("x-request-id"));
  EXPECT_EQ(made.rfind("req_", 0), 0u);
  EXPECT_NE(made, Chat().Header("x-request-id"));
}

TEST_F(ServiceTest, TellsItsLoadWithEveryAnswer) {
  Start();
  EXPECT_EQ(Chat().Header("endpoint-load-metrics").rfind("TEXT named_metrics.", 0), 0u);
  EXPECT_EQ(Chat({}, {{"endpoint-load-metrics-format", "JSON"}})
                .Header("endpoint-load-metrics")
                .rfind("JSON {", 0),
            0u);
  const auto load = Get("/load").Json();
  EXPECT_EQ(load["epoch"], 77);
  EXPECT_EQ(load["state"], "ready");
  EXPECT_EQ(load["running"], 0);
  EXPECT_EQ(load["kv_blocks_used"], 0);
  EXPECT_EQ(load["weights"].get<std::string>().size(), 16u);
  EXPECT_LT(load["seq"], Get("/load").Json()["seq"]);
}

TEST_F(ServiceTest, PushesALineOnAChangeAndOneWhereNothingChanges) {
  ServiceSetup setup;
  setup.options.timing = "v100";  // A request runs for longer than there is between two lines.
  Start(std::move(setup));
  std::string lines;
  Answer answer;
  FetchOptions options{.target = "/load?watch=1"};
  options.on_data = [&](std::string_view data) { lines += data; };
  const auto watch = Send(std::move(options), answer, false);
  const auto count = [&] { return std::count(lines.begin(), lines.end(), '\n'); };
  ASSERT_TRUE(RunUntil([&] { return count() >= 1; }));
  ASSERT_TRUE(RunUntil([&] { return count() >= 3; })) << "no line while nothing changes";
  lines.clear();
  EXPECT_EQ(Chat().status, 200);
  EXPECT_NE(lines.find("\"running\":1"), std::string::npos) << lines;
}

TEST_F(ServiceTest, LetsOnlySoManyReadersWatchItsLoad) {
  Start();
  std::vector<Answer> answers(LoadWatch::kReadersMax);
  std::vector<std::unique_ptr<Fetch>> fetches;
  size_t begun = 0;
  for (Answer& answer : answers) {
    FetchOptions options{.target = "/load?watch=1"};
    options.on_data = [&begun, first = true](std::string_view) mutable {
      begun += std::exchange(first, false);
    };
    fetches.push_back(Send(std::move(options), answer, false));
  }
  ASSERT_TRUE(RunUntil([&] { return begun == answers.size(); }));
  const Answer refused = Get("/load?watch=1");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.ErrorCode(), "too_many_watchers");
  fetches.pop_back();  // Whoever leaves makes room.
  bool reads = false;
  FetchOptions options{.target = "/load?watch=1"};
  options.on_data = [&](std::string_view) { reads = true; };
  RunUntil([&, until = loop_->ReadClock() + 50 * kMillisecond] {
    return loop_->ReadClock() > until;
  });
  Answer answer;
  const auto another = Send(std::move(options), answer, false);
  EXPECT_TRUE(RunUntil([&] { return reads; }));
}

TEST_F(ServiceTest, GivesItsMetricsOwnNamesOrThoseOfVllm) {
  Start();
  EXPECT_EQ(Chat().status, 200);
  const std::string own = Get("/metrics").body;
  EXPECT_NE(own.find("penstock_engine_requests_running{model=\"lexicon-5m-emulated\"} 0"),
            std::string::npos) << own;
  EXPECT_NE(own.find("penstock_engine_request_success_total{model=\"lexicon-5m-emulated\","
                     "finish_reason=\"length\"} 1"), std::string::npos) << own;
  EXPECT_NE(own.find("penstock_engine_time_to_first_token_seconds_count"), std::string::npos);
}

TEST_F(ServiceTest, CountsTheTokensOfClientsAlone) {
  Start();
  const auto counts = [&](int64_t prompt, int64_t generated) {
    const std::string text = Get("/metrics").body;
    const auto counter = [](const char* name, int64_t value) {
      return fmt::format("penstock_engine_{}{{model=\"lexicon-5m-emulated\"}} {}\n", name, value);
    };
    return text.find(counter("prompt_tokens_total", prompt)) != std::string::npos &&
           text.find(counter("generation_tokens_total", generated)) != std::string::npos;
  };
  EXPECT_TRUE(counts(0, 0)) << "the self test's were counted";
  const auto usage = Chat().Json()["usage"];
  EXPECT_TRUE(counts(usage["prompt_tokens"], usage["completion_tokens"]));
}

TEST_F(ServiceTest, FreesEverythingOfAClientThatLeaves) {
  ServiceSetup setup;
  setup.options.timing = "v100";
  Start(std::move(setup));
  Answer answer;
  FetchOptions options =
      PostOptions("/v1/chat/completions", ChatBody({{"stream", true}, {"max_tokens", 400}}));
  std::string body;
  options.on_data = [&](std::string_view data) { body += data; };
  auto fetch = Send(std::move(options), answer, false);
  ASSERT_TRUE(RunUntil([&] { return !body.empty(); }));
  EXPECT_GT(engine_->Load().kv_blocks_used, 0);
  fetch.reset();
  EXPECT_TRUE(RunUntil([&] { return service_->answers() == 0; }));
  EXPECT_TRUE(RunUntil([&] { return engine_->idle(); }));
  EXPECT_EQ(engine_->Load().kv_blocks_used, 0);
  EXPECT_NE(Get("/metrics").body.find("finish_reason=\"abort\"} 1"), std::string::npos);
}

TEST_F(ServiceTest, SaysWhenToComeBackWhereTheQueueIsFull) {
  ServiceSetup setup;
  setup.options.timing = "v100";
  setup.engine.queue_max = 1;
  setup.engine.max_running = 1;
  setup.options.max_running = 1;
  Start(std::move(setup));
  std::vector<Answer> answers(6);
  std::vector<std::unique_ptr<Fetch>> fetches;
  for (Answer& answer : answers) {
    fetches.push_back(Send(PostOptions("/v1/chat/completions", ChatBody({{"max_tokens", 400}})),
                           answer, false));
  }
  ASSERT_TRUE(RunUntil([&] {
    return std::any_of(answers.begin(), answers.end(), [](auto& a) { return a.status == 429; });
  }));
  const auto full = std::find_if(answers.begin(), answers.end(),
                                 [](auto& a) { return a.status == 429; });
  EXPECT_EQ(full->ErrorCode(), "queue_full");
  EXPECT_GE(std::stoi(std::string(full->Header("retry-after"))), 1);
  fetches.clear();
  EXPECT_TRUE(RunUntil([&] { return engine_->idle() && service_->answers() == 0; }));
}

TEST_F(ServiceTest, TakesOnlySoManyAnswersAtOnce) {
  ServiceSetup setup;
  setup.service.answers_max = 2;
  setup.options.timing = "v100";
  Start(std::move(setup));
  std::vector<Answer> answers(3);
  std::vector<std::unique_ptr<Fetch>> fetches;
  for (Answer& answer : answers) {
    fetches.push_back(Send(PostOptions("/v1/chat/completions", ChatBody({{"max_tokens", 400}})),
                           answer, false));
  }
  EXPECT_TRUE(RunUntil([&] {
    return std::any_of(answers.begin(), answers.end(), [](auto& a) { return a.status == 429; });
  }));
  EXPECT_EQ(service_->answers(), 2u);
}

TEST_F(ServiceTest, PreparesLongPromptsBesideTheLoop) {
  ServiceSetup setup;
  setup.service.inline_bytes = 4;
  Start(std::move(setup));
  EXPECT_EQ(Chat().status, 200);
  EXPECT_EQ(Chat({{"max_tokens", 500}}).ErrorCode(), "context_length_exceeded");
  // A client that leaves meanwhile leaves nothing behind.
  Answer answer;
  auto fetch = Send(PostOptions("/v1/chat/completions", ChatBody()), answer, false);
  RunUntil([&] { return service_->answers() > 0 || answer.status != 0; });
  fetch.reset();
  EXPECT_TRUE(RunUntil([&] { return service_->answers() == 0 && engine_->idle(); }));
}

// Takes every thread beside the loop until it is let go of.
class BusyThreads {
 public:
  explicit BusyThreads(Loop& loop) {
    for (int thread = 0; thread < 16; ++thread) {
      loop.Offload([gate = gate_] { gate->wait(); }, [] {});
    }
  }
  ~BusyThreads() { LetGo(); }
  void LetGo() {
    if (!std::exchange(free_, true)) gate_->count_down();
  }

 private:
  std::shared_ptr<std::latch> gate_ = std::make_shared<std::latch>(1);
  bool free_ = false;
};

TEST_F(ServiceTest, DrainsByLettingInWhatIsStillBeingPrepared) {
  ServiceSetup setup;
  setup.service.inline_bytes = 4;
  Start(std::move(setup));
  BusyThreads busy(*loop_);
  Answer accepted;
  const auto fetch = Send(PostOptions("/v1/chat/completions", ChatBody()), accepted, false);
  ASSERT_TRUE(RunUntil([&] { return service_->answers() == 1; }));
  bool idle = false;
  service_->Drain([&] { idle = true; });
  EXPECT_EQ(Get("/load").Json()["state"], "draining");
  busy.LetGo();
  EXPECT_TRUE(RunUntil([&] { return idle && accepted.whole; }));
  EXPECT_EQ(accepted.status, 200) << accepted.body;
}

TEST_F(ServiceTest, PreparesOnlySoManyBytesAtOnce) {
  ServiceSetup setup;
  setup.service.inline_bytes = 4;
  setup.service.preparing_bytes = 100;
  Start(std::move(setup));
  const auto body = [](size_t bytes) {
    return ChatBody({{"messages", {{{"role", "user"}, {"content", std::string(bytes, 'a')}}}}});
  };
  BusyThreads busy(*loop_);
  Answer first, second;
  // Alone one may be larger than that: nobody else would have to make room for it.
  const auto big = Send(PostOptions("/v1/chat/completions", body(120)), first, false);
  ASSERT_TRUE(RunUntil([&] { return service_->answers() == 1; }));
  const auto more = Send(PostOptions("/v1/chat/completions", body(20)), second, false);
  ASSERT_TRUE(RunUntil([&] { return second.status != 0; }));
  EXPECT_EQ(second.status, 429);
  EXPECT_EQ(second.ErrorCode(), "queue_full");
  EXPECT_EQ(second.Header("retry-after"), "1");
  busy.LetGo();
  EXPECT_TRUE(RunUntil([&] { return first.whole; }));
  EXPECT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(Post("/v1/chat/completions", body(20)).status, 200);
}

TEST_F(ServiceTest, NamesNWhereTheQueueCouldNeverTakeAllOfIt) {
  ServiceSetup setup;
  setup.engine.queue_max = 2;
  Start(std::move(setup));
  const Answer refused = Chat({{"n", 3}});
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_EQ(refused.Json()["error"]["param"], "n");
  EXPECT_EQ(Chat({{"n", 2}}).status, 200);
  EXPECT_EQ(engine_->Load().kv_blocks_used, 0);
}

TEST_F(ServiceTest, RefusesMessagesThatHoldCalls) {
  Start();
  const auto ask = [&](const nlohmann::json& more) {
    nlohmann::json call = {{"role", "assistant"}, {"content", "let me see"}};
    call.update(more);
    return Chat({{"messages", {{{"role", "user"}, {"content", "a"}}, call}}});
  };
  const Answer refused =
      ask({{"tool_calls", {{{"id", "1"}, {"type", "function"}, {"function", {{"name", "f"}}}}}}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.Json()["error"]["message"],
            "messages[1].tool_calls: this engine reads the text of messages only; leave "
            "tool_calls out");
  EXPECT_EQ(ask({{"function_call", {{"name", "f"}}}}).status, 400);
  EXPECT_EQ(ask({{"tool_calls", nlohmann::json::array()}}).status, 200);
  EXPECT_EQ(ask({{"function_call", nullptr}}).status, 200);
}

TEST_F(ServiceTest, EndsAReaderOfItsLoadThatComesWhenReadersAreEnded) {
  Start();
  service_->EndWatches();
  const Answer late = Get("/load?watch=1");
  EXPECT_TRUE(late.whole);
  EXPECT_EQ(std::count(late.body.begin(), late.body.end(), '\n'), 1) << late.body;
}

TEST_F(ServiceTest, DrainsByFinishingWhatRunsAndRefusingWhatComes) {
  ServiceSetup setup;
  setup.options.timing = "v100";
  Start(std::move(setup));
  Answer running;
  const auto fetch = Send(PostOptions("/v1/chat/completions", ChatBody()), running, false);
  ASSERT_TRUE(RunUntil([&] { return engine_->Load().running == 1; }));
  bool idle = false;
  service_->Drain([&] { idle = true; });
  EXPECT_FALSE(idle);
  const Answer refused = Chat();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.ErrorCode(), "draining");
  EXPECT_EQ(refused.Header("connection"), "close");
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Get("/load").Json()["state"], "draining");
  EXPECT_TRUE(RunUntil([&] { return idle && running.whole; }));
  EXPECT_EQ(running.status, 200);
}

TEST_F(ServiceTest, CutsAStreamThatTheEngineCouldNotFinish) {
  ServiceSetup setup;
  setup.options.timing = "v100";
  Start(std::move(setup));
  Answer answer;
  std::string body;
  FetchOptions options =
      PostOptions("/v1/chat/completions", ChatBody({{"stream", true}, {"max_tokens", 400}}));
  options.on_data = [&](std::string_view data) { body += data; };
  const auto fetch = Send(std::move(options), answer, false);
  ASSERT_TRUE(RunUntil([&] { return !body.empty(); }));
  service_->CutAll();
  EXPECT_TRUE(RunUntil([&] { return body.find("\"error\"") != std::string::npos; })) << body;
  EXPECT_EQ(body.find("[DONE]"), std::string::npos);
  EXPECT_FALSE(answer.whole);
}

}  // namespace
}  // namespace penstock::engine
