// Answers made from events that the test writes down, at times that it tells.
// The engine is real but only takes sequences in and lets go of them.
#include "backend-engine/api/generation.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "backend-engine/api/open_model.h"

namespace penstock::engine {
namespace {

// What a client would see.
struct Seen {
  int status = 0;
  HeaderList headers;
  std::string body;
  HeaderList trailers;
  bool begun = false, ended = false, cut = false;
  size_t unsent = 0;
  absl::AnyInvocable<void()> on_gone;
};

class SeenAnswer final : public HttpAnswer {
 public:
  explicit SeenAnswer(Seen& seen) : seen_(seen) {}
  void Send(int status, std::string_view, std::string_view body,
            const HeaderList& headers) override {
    seen_.status = status;
    seen_.body = body;
    seen_.headers = headers;
    seen_.ended = true;
  }
  void Begin(int status, std::string_view, const HeaderList& headers) override {
    EXPECT_FALSE(seen_.begun);
    seen_.status = status;
    seen_.headers = headers;
    seen_.begun = true;
  }
  void Write(std::string_view data) override {
    EXPECT_TRUE(seen_.begun && !seen_.ended && !seen_.cut);
    seen_.body += data;
  }
  void End(const HeaderList& trailers) override {
    seen_.trailers = trailers;
    seen_.ended = true;
  }
  void Cut() override { seen_.cut = true; }
  size_t buffered() const override { return seen_.unsent; }
  bool client_gone() const override { return false; }
  void OnClientGone(absl::AnyInvocable<void()> callback) override {
    seen_.on_gone = std::move(callback);
  }

 private:
  Seen& seen_;
};

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() {
    auto opened = OpenModel({.model = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m",
                             .device = "emulated",
                             .timing = "v100"},
                            absl::UnixEpoch(), [](double) {});
    EXPECT_TRUE(opened.ok()) << opened.status();
    opened_.emplace(*std::move(opened));
    engine_.emplace(std::move(opened_->runner), EngineOptions{.max_length = 512},
                    [](std::span<TokenEvent>) {});
    context_.emplace(GenerationContext{.engine = *engine_,
                                       .model = opened_->model,
                                       .metrics = metrics_,
                                       .orca = [](OrcaFormat) { return std::string("TEXT x=1"); },
                                       .now = [this] { return now_; }});
  }

  Generation& Start(AnswerSettings settings, bool chat = true) {
    settings.chat = chat;
    GenerationStart start{.settings = std::move(settings), .received = now_};
    start.head = {.chat = chat, .id = "i", .model = "m"};
    start.head.logprobs = start.settings.sampling.logprobs >= 0;
    start.head.include_usage = start.settings.include_usage;
    generation_.emplace(*context_, std::move(start), std::make_unique<SeenAnswer>(seen_));
    generation_->Submit({{.ids = {1, 2, 3}, .max_tokens = 200}});
    return *generation_;
  }

  void Token(const std::string& text, FinishReason finish = FinishReason::kNone) {
    const auto ids = opened_->model.tokenizer->Encode(text, false, false);
    ASSERT_TRUE(ids.ok());
    for (size_t i = 0; i < ids->size(); ++i) {
      Event((*ids)[i], i + 1 == ids->size() ? finish : FinishReason::kNone);
    }
  }
  void Event(int32_t token, FinishReason finish, std::string error = "") {
    TokenEvent event{.id = id(), .token = token, .finish = finish, .error = std::move(error)};
    generation_->OnEvent(event);
    generation_->Flush();
  }
  SequenceId id() const {
    const auto ids = generation_->sequences();
    return ids.empty() ? 0 : ids.front();
  }

  std::optional<OpenedModel> opened_;
  EngineMetrics metrics_{MetricNames::kPenstock};
  MonoTime now_ = 1000 * kSecond;
  std::optional<Engine> engine_;
  std::optional<GenerationContext> context_;
  Seen seen_;
  std::optional<Generation> generation_;
};

// Also where text is held back because a stop string may have begun in it.
TEST_F(GenerationTest, SaysOfEveryTokenWhereItsTextBegins) {
  AnswerSettings settings;
  settings.sampling.logprobs = 0;
  settings.stop = {" the end of it"};
  Start(std::move(settings), /*chat=*/false);
  Token("in the end of word the", FinishReason::kLength);
  const auto choice = nlohmann::json::parse(seen_.body)["choices"][0];
  EXPECT_EQ(choice["text"], "in the end of word the");
  const auto& logprobs = choice["logprobs"];
  ASSERT_GT(logprobs["tokens"].size(), 3u);
  size_t offset = 0;
  for (size_t i = 0; i < logprobs["tokens"].size(); ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], offset) << logprobs;
    offset += logprobs["tokens"][i].get<std::string>().size();
  }
}

TEST_F(GenerationTest, SendsNothingBeforeTheFirstToken) {
  Start({.stream = true});
  generation_->Flush();
  EXPECT_FALSE(seen_.begun);
  Token("word");
  EXPECT_TRUE(seen_.begun);
  EXPECT_NE(seen_.body.find(R"("role":"assistant","content":)"), std::string::npos);
}

TEST_F(GenerationTest, KeepsASilentStreamAliveWithACommentAndNothingElse) {
  Start({.stream = true});
  now_ += Generation::kKeepAlive - 1;
  generation_->OnTick();
  EXPECT_EQ(seen_.body, "");
  now_ += 1;
  generation_->OnTick();
  EXPECT_EQ(seen_.body, ": keep-alive\n\n");
  generation_->OnTick();
  EXPECT_EQ(seen_.body, ": keep-alive\n\n");
}

TEST_F(GenerationTest, ATokenThatIsPartOfACharacterWaitsForTheRest) {
  Start({.stream = true});
  const auto ids = opened_->model.tokenizer->Encode("\xE2\x82\xAC", false, false);  // €
  ASSERT_TRUE(ids.ok());
  ASSERT_GT(ids->size(), 1u);
  for (size_t i = 0; i + 1 < ids->size(); ++i) Event((*ids)[i], FinishReason::kNone);
  EXPECT_EQ(seen_.body, "");
  Event(ids->back(), FinishReason::kNone);
  EXPECT_NE(seen_.body.find("€"), std::string::npos);
}

TEST_F(GenerationTest, NoPartOfAStopStringEverLeaves) {
  Start({.stop = {"LO WOR"}, .stream = true, .include_usage = true});
  Token("hel");
  Token("LO");
  Token(" WOR");
  EXPECT_EQ(seen_.body.find("LO"), std::string::npos) << seen_.body;
  EXPECT_NE(seen_.body.find(R"("finish_reason":"stop")"), std::string::npos);
  EXPECT_TRUE(seen_.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(seen_.ended);
  EXPECT_EQ(seen_.trailers.front().first, "endpoint-load-metrics");
  EXPECT_FALSE(generation_->over()) << "the engine has not let go yet";
  Event(-1, FinishReason::kCancelled);
  EXPECT_TRUE(generation_->over());
  EXPECT_EQ(metrics_.ended(EndReason::kStop), 1u);
}

TEST_F(GenerationTest, AFailureBeforeTheFirstByteIsAStatus) {
  Start({.stream = true});
  Event(-1, FinishReason::kFailed, "rank 1 is gone");
  EXPECT_EQ(seen_.status, 500);
  EXPECT_FALSE(seen_.begun);
  EXPECT_NE(seen_.body.find("rank 1 is gone"), std::string::npos);
  EXPECT_TRUE(generation_->over());
}

TEST_F(GenerationTest, AFailureAfterTheFirstByteIsAnErrorEventAndACut) {
  Start({.stream = true});
  Token("word");
  Event(-1, FinishReason::kFailed, "rank 1 is gone");
  EXPECT_TRUE(seen_.cut);
  EXPECT_FALSE(seen_.ended);
  EXPECT_NE(seen_.body.find("data: {\"error\":"), std::string::npos);
  EXPECT_EQ(seen_.body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(metrics_.ended(EndReason::kError), 1u);
}

TEST_F(GenerationTest, AClientThatLeftHearsNothingMore) {
  Start({.stream = true});
  Token("word");
  const std::string before = seen_.body;
  seen_.on_gone();
  Token("more");
  Event(-1, FinishReason::kCancelled);
  EXPECT_EQ(seen_.body, before);
  EXPECT_FALSE(seen_.ended);
  EXPECT_TRUE(generation_->over());
  EXPECT_EQ(metrics_.ended(EndReason::kAbort), 1u);
}

TEST_F(GenerationTest, WhatASlowReaderHasNotTakenBecomesOneEventOnceItTakesSome) {
  Start({.stream = true});
  Token("in the");
  const std::string before = seen_.body;
  seen_.unsent = Generation::kUnsentBytes;
  Token(" end of the");
  generation_->OnTick();
  EXPECT_EQ(seen_.body, before);
  seen_.unsent = 0;
  generation_->OnTick();
  EXPECT_NE(seen_.body.find(R"("content":" end of the"})"), std::string::npos) << seen_.body;
}

TEST_F(GenerationTest, ASlowReaderGetsTheWholeAnswer) {
  Start({.stream = true});
  seen_.unsent = Generation::kUnsentBytes;
  Token("in the end of the", FinishReason::kLength);
  EXPECT_NE(seen_.body.find(R"("content":"in the end of the"})"), std::string::npos) << seen_.body;
  EXPECT_TRUE(seen_.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(seen_.ended);
}

TEST_F(GenerationTest, AReaderTooSlowForItsLogprobsIsToldSoBeforeTheCut) {
  AnswerSettings settings{.stream = true};
  settings.sampling.logprobs = 20;
  Start(std::move(settings));
  Token("word");
  seen_.unsent = Generation::kUnsentBytes;
  const auto ids = opened_->model.tokenizer->Encode(" the", false, false);
  ASSERT_TRUE(ids.ok());
  int tokens = 0;
  for (; !seen_.cut && tokens < 10000; ++tokens) {
    TokenEvent event{.id = id(), .token = ids->front()};
    event.top.resize(20, {.token = ids->front()});
    generation_->OnEvent(event);
    generation_->Flush();
  }
  EXPECT_GT(tokens, 2000);
  EXPECT_TRUE(seen_.cut);
  EXPECT_NE(seen_.body.find(R"("code":"slow_client")"), std::string::npos);
  EXPECT_EQ(seen_.body.find("[DONE]"), std::string::npos);
  Event(-1, FinishReason::kCancelled);
  EXPECT_TRUE(generation_->over());
  EXPECT_EQ(metrics_.ended(EndReason::kSlowClient), 1u);
}

TEST_F(GenerationTest, AnAnswerOfNoTextIsStillAnAnswer) {
  Start({.stream = true});
  Event(opened_->model.eos.front(), FinishReason::kStop);
  EXPECT_NE(seen_.body.find(R"("delta":{"role":"assistant","content":""})"), std::string::npos);
  EXPECT_TRUE(seen_.ended);
}

}  // namespace
}  // namespace penstock::engine
