#include "backend-engine/api/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "backend-engine/api/error_answer.h"
#include "proxy/base/log.h"

namespace penstock::engine {
namespace {

ApiError RefusalError(const SubmitResult& refusal, const AnswerSettings& settings) {
  const std::string param = settings.chat ? "messages" : "prompt";
  switch (refusal.code) {
    case SubmitCode::kQueueFull:
      return {.status = 429,
              .type = "rate_limit_error",
              .code = "queue_full",
              .message = refusal.message,
              .retry_after_seconds = std::max(refusal.retry_after_seconds, 0.001)};
    case SubmitCode::kTooLong:
      return {.code = "context_length_exceeded", .param = param, .message = refusal.message};
    case SubmitCode::kDraining:
      return {.status = 503,
              .type = "server_error",
              .code = "draining",
              .message = "this engine is shutting down and takes no new requests",
              .retry_after_seconds = 1,
              .close = true};
    case SubmitCode::kTooMany: return BadField(settings.n > 1 ? "n" : param, refusal.message);
    case SubmitCode::kInvalid: return BadField(param, refusal.message);
    default:
      return {.status = 500,
              .type = "server_error",
              .code = "internal_error",
              .message = refusal.message};
  }
}

// Distinct for each choice of one request, and the request's own seed for the first.
uint64_t SeedOf(uint64_t seed, int32_t number) {
  return seed + static_cast<uint64_t>(number) * 0x9E3779B97F4A7C15u;
}

int64_t CharacterCount(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

}  // namespace

Generation::Generation(GenerationContext& context, GenerationStart start,
                       std::unique_ptr<HttpAnswer> answer)
    : context_(context),
      start_(std::move(start)),
      writer_(start_.head),
      answer_(std::move(answer)),
      last_write_(start_.received) {
  answer_->OnClientGone([this] { Abandon(); });
}

void Generation::Submit(std::vector<PreparedPrompt> prompts) {
  submitted_ = true;
  if (closed_) return;  // The client left while the prompts were prepared.
  const int32_t n = start_.settings.n;
  const auto count = static_cast<int32_t>(prompts.size()) * n;
  const auto prompt_of = [&](int32_t number) -> const PreparedPrompt& {
    return prompts[static_cast<size_t>(number / n)];
  };
  std::vector<GenerateRequest> group;
  group.reserve(static_cast<size_t>(count));
  const TokenMask early_allowed = start_.settings.min_tokens > 0 ? AllButStopTokens() : nullptr;
  for (int32_t number = 0; number < count; ++number) {
    group.push_back(RequestFor(prompt_of(number), number, early_allowed));
  }
  const SubmitResult result = context_.engine.Submit(std::move(group));
  if (result.code != SubmitCode::kOk) return Fail(RefusalError(result, start_.settings));
  choices_.reserve(static_cast<size_t>(count));
  for (int32_t number = 0; number < count; ++number) {
    AddChoice(prompt_of(number), number, result.id + static_cast<SequenceId>(number));
  }
  for (const PreparedPrompt& prompt : prompts) {
    usage_.prompt_tokens += static_cast<int64_t>(prompt.ids.size());
  }
}

std::vector<int32_t> Generation::StopTokens() const {
  const AnswerSettings& settings = start_.settings;
  std::vector<int32_t> stops = settings.stop_token_ids;
  const std::vector<int32_t>& eos = context_.model.eos;
  if (!settings.ignore_eos) stops.insert(stops.end(), eos.begin(), eos.end());
  return stops;
}

Generation::TokenMask Generation::AllButStopTokens() const {
  const auto vocabulary = static_cast<size_t>(context_.model.limits.vocab_size);
  std::vector<uint32_t> words((vocabulary + 31) / 32, ~uint32_t{0});
  for (const int32_t token : StopTokens()) {
    words[static_cast<size_t>(token) / 32] &= ~(uint32_t{1} << (token % 32));
  }
  return std::make_shared<const std::vector<uint32_t>>(std::move(words));
}

GenerateRequest Generation::RequestFor(const PreparedPrompt& prompt, int32_t number,
                                       const TokenMask& early_allowed) const {
  const AnswerSettings& settings = start_.settings;
  GenerateRequest generate{.prompt = prompt.ids,
                           .max_tokens = prompt.max_tokens,
                           .stop_tokens = StopTokens(),
                           .sampling = settings.sampling,
                           .min_tokens = settings.min_tokens,
                           .early_allowed = early_allowed};
  generate.sampling.seed = SeedOf(settings.seed.value_or(start_.seed), number);
  return generate;
}

void Generation::AddChoice(const PreparedPrompt& prompt, int32_t number, SequenceId id) {
  Choice& choice = choices_.emplace_back(
      Choice{.index = number,
             .id = id,
             .detokenizer = Detokenizer(*context_.model.tokenizer, start_.settings.stop,
                                        /*skip_special=*/true)});
  choice.text = prompt.echo;
  choice.characters = CharacterCount(prompt.echo);
  ++live_;
  ++unfinished_;
}

Generation::Choice* Generation::Find(SequenceId id) {
  for (Choice& choice : choices_) {
    if (choice.id == id) return &choice;
  }
  return nullptr;
}

std::vector<SequenceId> Generation::sequences() const {
  std::vector<SequenceId> ids;
  for (const Choice& choice : choices_) {
    if (!choice.ended) ids.push_back(choice.id);
  }
  return ids;
}

void Generation::OnEvent(TokenEvent& event) {
  Choice* choice = Find(event.id);
  if (choice == nullptr || choice->ended) return;
  if (!choice->finished && event.token >= 0) OnToken(*choice, event);
  if (event.finish == FinishReason::kNone) return;

  choice->ended = true;
  --live_;
  const double seconds = static_cast<double>(context_.now() - start_.received) / kSecond;
  // Also where the engine was at its end before it could be stopped.
  const bool unread = too_slow_ && choice->reason.empty();
  switch (event.finish) {
    case FinishReason::kStop:
    case FinishReason::kLength: {
      const bool stop = event.finish == FinishReason::kStop;
      context_.metrics.OnEnd(unread ? EndReason::kSlowClient
                             : stop ? EndReason::kStop
                                    : EndReason::kLength,
                             seconds);
      if (!choice->finished) Finish(*choice, stop ? "stop" : "length");
      break;
    }
    case FinishReason::kFailed:
      context_.metrics.OnEnd(EndReason::kError, seconds);
      if (!choice->finished) {
        Fail({.status = 500,
              .type = "server_error",
              .code = "internal_error",
              .message = fmt::format("the engine could not finish the answer: {}", event.error)});
      }
      break;
    default:
      // Cancelled: by a stop string of the request, or because nobody reads on.
      context_.metrics.OnEnd(choice->reason == "stop" ? EndReason::kStop
                             : unread                 ? EndReason::kSlowClient
                                                      : EndReason::kAbort,
                             seconds);
  }
}

void Generation::OnToken(Choice& choice, const TokenEvent& event) {
  const MonoTime now = context_.now();
  const MonoTime since = choice.last_token == 0 ? start_.received : choice.last_token;
  const double seconds = static_cast<double>(now - since) / kSecond;
  if (choice.last_token == 0) {
    context_.metrics.OnFirstToken(seconds);
  } else {
    context_.metrics.OnNextToken(seconds);
  }
  choice.last_token = now;
  ++usage_.completion_tokens;
  if (event.finish == FinishReason::kStop) return;  // The end token is counted, not shown.

  if (start_.head.logprobs) AddLogprobs(choice, event);
  const std::string piece = choice.detokenizer.Push(event.token);
  choice.characters += CharacterCount(piece);
  choice.text += piece;
  if (choice.detokenizer.stopped()) {
    choice.reason = "stop";
    context_.engine.Cancel(choice.id);
    Finish(choice, "stop");
  } else if (start_.settings.stream && Behind()) {
    Hold(choice, piece.size() + (start_.head.logprobs ? 90 * (1 + event.top.size()) : 0));
  } else if (start_.settings.stream && !choice.text.empty()) {
    AppendChunk(choice, {});
  }
}

// The text stays where it is; more than the bound ends the answer in words.
void Generation::Hold(Choice& choice, size_t bytes) {
  choice.held += bytes;
  held_ += bytes;
  if (held_ <= kHeldBytes) return;
  too_slow_ = true;
  LogInfo("{}: ended: its client reads too slowly, {} bytes are not taken and more than {} wait",
          start_.head.id, answer_->buffered(), kHeldBytes);
  Fail({.status = 408,
        .code = "slow_client",
        .message = fmt::format("this stream is read so much more slowly than it is made that {} MiB "
                               "of it wait, the most that is kept; read faster, or ask for fewer "
                               "logprobs", kHeldBytes >> 20)});
}

void Generation::AddLogprobs(Choice& choice, const TokenEvent& event) {
  const Tokenizer& tokenizer = *context_.model.tokenizer;
  TokenLogprobs entry{
      .token = {std::string(tokenizer.TokenBytes(event.token)), event.logprob},
      .text_offset = choice.characters + CharacterCount(choice.detokenizer.held())};
  for (const TokenLogprob& top : event.top) {
    entry.top.push_back({std::string(tokenizer.TokenBytes(top.token)), top.logprob});
  }
  choice.logprobs.push_back(std::move(entry));
}

void Generation::Finish(Choice& choice, std::string_view reason) {
  choice.finished = true;
  choice.reason = reason;
  choice.text += choice.detokenizer.Finish();
  if (start_.settings.stream && !closed_) {
    if (!choice.text.empty()) AppendChunk(choice, {});
    AppendChunk(choice, reason);
  }
  if (--unfinished_ == 0) Complete();
}

void Generation::AppendChunk(Choice& choice, std::string_view reason) {
  writer_.AppendChunk(out_, {.index = choice.index,
                             .text = choice.text,
                             .logprobs = choice.logprobs,
                             .first = !choice.begun,
                             .finish_reason = reason});
  choice.begun = true;
  choice.text.clear();
  choice.logprobs.clear();
  held_ -= std::exchange(choice.held, 0);
}

HeaderList Generation::Headers() const {
  HeaderList headers = start_.headers;
  headers.emplace_back("endpoint-load-metrics", context_.orca(start_.orca));
  return headers;
}

void Generation::Begin() {
  if (begun_) return;
  begun_ = true;
  HeaderList headers = Headers();
  headers.emplace_back("cache-control", "no-cache");
  headers.emplace_back("x-accel-buffering", "no");
  answer_->Begin(200, "text/event-stream; charset=utf-8", headers);
  context_.metrics.OnAnswer(200);
}

void Generation::Flush() {
  if (closed_) return;
  if (held_ > 0 && !Behind()) {
    for (Choice& choice : choices_) {
      if (choice.held > 0 && !choice.text.empty()) AppendChunk(choice, {});
    }
  }
  if (out_.empty()) return;
  Begin();
  answer_->Write(out_);
  out_.clear();
  last_write_ = context_.now();
}

// Every choice has its end: the answer's own.
void Generation::Complete() {
  if (closed_) return;
  if (start_.settings.stream) {
    if (start_.head.include_usage) writer_.AppendUsageChunk(out_, usage_);
    out_ += AnswerWriter::kDone;
    Flush();
    answer_->End({{"endpoint-load-metrics", context_.orca(start_.orca)}});
  } else {
    std::vector<ChoicePart> parts;
    parts.reserve(choices_.size());
    for (const Choice& choice : choices_) {
      parts.push_back({.index = choice.index,
                       .text = choice.text,
                       .logprobs = choice.logprobs,
                       .finish_reason = choice.reason});
    }
    HeaderList headers = Headers();
    headers.emplace_back("openai-processing-ms",
                         fmt::format("{}", (context_.now() - start_.received) / kMillisecond));
    answer_->Send(200, "application/json", writer_.Whole(parts, usage_), headers);
    context_.metrics.OnAnswer(200);
  }
  closed_ = true;
}

void Generation::Fail(const ApiError& error) {
  submitted_ = true;
  if (closed_) return;
  if (begun_) {
    // The status is out already: an error event, and a cut that no client takes for an end.
    out_ += "data: " + ErrorJson(error) + "\n\n";
    answer_->CutAfter(out_);
    out_.clear();
  } else {
    SendError(*answer_, error, Headers());
    context_.metrics.OnAnswer(error.status);
  }
  Abandon();
}

void Generation::OnTick() {
  if (closed_ || !start_.settings.stream) return;
  Flush();
  if (context_.now() - last_write_ < kKeepAlive) return;
  out_ += ": keep-alive\n\n";
  Flush();
}

void Generation::Abandon() {
  closed_ = true;
  for (Choice& choice : choices_) {
    choice.finished = true;
    if (!choice.ended) context_.engine.Cancel(choice.id);
  }
}

}  // namespace penstock::engine
