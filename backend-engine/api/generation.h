// One answer in progress, from the submission of its sequences to its last
// byte: tokens in, text out, streamed or whole.
//
// A generation lives until each of its sequences has ended in the engine, also
// after the client has left or a stop string has ended the answer: cancelled
// sequences report their end like all others. So the number of generations is
// the number of answers that hold anything.
//
// A client that takes a stream more slowly than it is made is not pressed: while
// much of it is unsent, further tokens wait as text, a fiftieth of their size as
// events, and become one event once some was taken. What waits has a bound, which
// only the logprobs of many tokens reach: there the answer ends with an error.
//
// Threads: the loop's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend-engine/api/engine_metrics.h"
#include "backend-engine/api/load_report.h"
#include "backend-engine/api/openai_response.h"
#include "backend-engine/api/prompt.h"
#include "backend-engine/api/served_model.h"
#include "backend-engine/exec/engine.h"
#include "backend-engine/text/detokenizer.h"
#include "proxy/base/time.h"
#include "proxy/http/server.h"

namespace penstock::engine {

// What a generation uses of its surroundings; outlives it.
struct GenerationContext {
  Engine& engine;
  const ServedModel& model;
  EngineMetrics& metrics;
  std::function<std::string(OrcaFormat)> orca;  // The load field of this moment.
  std::function<MonoTime()> now;
};

struct GenerationStart {
  AnswerSettings settings;
  AnswerHead head;
  HeaderList headers;        // On the answer whatever it is: x-request-id.
  OrcaFormat orca = OrcaFormat::kText;
  uint64_t seed = 0;         // Where the request gives none.
  MonoTime received = 0;
};

class Generation {
 public:
  static constexpr MonoTime kKeepAlive = 15 * kSecond;
  static constexpr size_t kUnsentBytes = 256 << 10;  // From here on tokens are held,
  static constexpr size_t kHeldBytes = 4 << 20;      // up to so much of them.

  Generation(GenerationContext& context, GenerationStart start,
             std::unique_ptr<HttpAnswer> answer);

  // Submits the sequences of every prompt, all of them or none: if the engine
  // refuses, the client is told.
  void Submit(std::vector<PreparedPrompt> prompts);
  // Answers with an error instead, or after an answer has begun, ends it with one.
  void Fail(const ApiError& error);

  void OnEvent(TokenEvent& event);
  void Flush();                  // Writes what OnEvent gathered.
  void OnTick();                 // Now and then: keeps a silent stream alive.

  std::vector<SequenceId> sequences() const;  // Those that have not ended.
  bool over() const { return live_ == 0 && submitted_; }
  void Abandon();                // Cancels what runs; the client hears no more.

 private:
  struct Choice {
    int32_t index = 0;
    SequenceId id = 0;
    Detokenizer detokenizer;
    std::string text;                     // Whole answers: all of it. Streams: not yet sent.
    std::vector<TokenLogprobs> logprobs;  // Likewise.
    int64_t characters = 0;               // Of text so far, for text_offset.
    size_t held = 0;                      // About what held tokens take.
    MonoTime last_token = 0;
    bool begun = false;                   // A stream's first event was made.
    bool finished = false;                // Nothing more goes to the client.
    bool ended = false;                   // The engine has let go of the sequence.
    std::string_view reason = {};
  };

  using TokenMask = std::shared_ptr<const std::vector<uint32_t>>;
  std::vector<int32_t> StopTokens() const;
  TokenMask AllButStopTokens() const;
  GenerateRequest RequestFor(const PreparedPrompt& prompt, int32_t number,
                             const TokenMask& early_allowed) const;
  void AddChoice(const PreparedPrompt& prompt, int32_t number, SequenceId id);
  Choice* Find(SequenceId id);
  void OnToken(Choice& choice, const TokenEvent& event);
  void AddLogprobs(Choice& choice, const TokenEvent& event);
  bool Behind() const { return answer_->buffered() >= kUnsentBytes; }
  void Hold(Choice& choice, size_t bytes);
  void Finish(Choice& choice, std::string_view reason);
  void AppendChunk(Choice& choice, std::string_view reason);
  void Complete();
  void Begin();
  HeaderList Headers() const;

  GenerationContext& context_;
  GenerationStart start_;
  const AnswerWriter writer_;
  std::unique_ptr<HttpAnswer> answer_;
  std::vector<Choice> choices_;
  Usage usage_;
  std::string out_;
  size_t held_ = 0;           // Of all choices.
  size_t live_ = 0;           // Sequences in the engine.
  size_t unfinished_ = 0;     // Choices still to be answered.
  bool submitted_ = false;
  bool begun_ = false;        // The stream's head is out.
  bool closed_ = false;       // The answer is complete, cut, or nobody reads it.
  bool too_slow_ = false;     // The client: the answer was ended for it.
  MonoTime last_write_ = 0;
};

}  // namespace penstock::engine
