#include "tests/sim/backend.h"

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace penstock::sim {
namespace {

constexpr MonoTime kFullWait = 10 * kMillisecond;

}  // namespace

void Call::Then(MonoTime delay, std::function<void()> step) {
  steps_.emplace_back(delay, std::move(step));
  if (!timer_.armed()) Arm();
}

void Call::Arm() {
  if (steps_.empty()) return;
  timer_ = backend.outside().loop.timers().After(steps_.front().first, [this] {
    if (full()) {
      steps_.front().first = kFullWait;
      return Arm();
    }
    const auto step = std::move(steps_.front().second);
    steps_.pop_front();
    step();
    if (!timer_.armed()) Arm();
  });
}

void Call::Stop() {
  steps_.clear();
  timer_.Cancel();
}

Backend::Backend(Outside& outside, std::string address, bool http2)
    : outside_(outside), address_(std::move(address)), http2_(http2) {
  Open();
}

void Backend::Open() {
  if (listener_ != nullptr) return;
  ++epoch_;
  seq_ = 0;
  listener_ = *outside_.loop.Listen(*Address::Parse(address_), [this](std::unique_ptr<Stream> stream) {
    lines_.push_back(http2_ ? MakeHttp2Line(*this, std::move(stream))
                            : MakeHttp1Line(*this, std::move(stream)));
  });
}

void Backend::Kill() {
  listener_.reset();
  outside_.network.ResetAllTo(address_);
}

void Backend::Reap() {
  std::erase_if(lines_, [](const auto& line) { return line->closed(); });
}

void Backend::CheckRest() const {
  for (const auto& line : lines_) line->CheckRest();
}

void Backend::Calm() {
  mood = Mood::kFine;
  speech = Speech::kTrue;
  healthy = calm = true;
  Open();
}

void Backend::OnHead(Call& call) {
  if (call.path == "/health" || call.path.starts_with("/load")) return;
  ++running_;
  outside_.ledger.OnArrival(call.nonce);
  // Some do not wait for the end of what they are told.
  const bool early = call.method == "POST" && mood != Mood::kFine && outside_.Chance(5);
  if (!early) return;
  call.answering = true;
  AnswerWell(call, 0);
}

void Backend::OnWhole(Call& call) {
  if (AnswerControl(call)) return;
  outside_.ledger.OnWholeRequest(call.nonce, call.body);
  if (!std::exchange(call.answering, true)) Answer(call);
}

void Backend::Gone(Call& call) {
  if (!call.nonce.empty() && !call.answered) --running_;
}

bool Backend::AnswerControl(Call& call) {
  if (call.path == "/health") {
    call.Then(outside_.Millis(0, 3), [this, &call] {
      call.Head(healthy ? 200 : 503, {{"content-type", "text/plain"}}, Call::Ends::kLength, 0);
      call.End();
    });
    return true;
  }
  if (!call.path.starts_with("/load")) return false;
  const bool watch = call.path.find("watch=1") != std::string::npos;
  const bool none = speech == Speech::kNone;
  call.Then(0, [this, &call, watch, none] {
    if (watch && !none) {
      call.Head(200, {{"content-type", "application/x-ndjson"}}, Call::Ends::kChunked, 0);
      return Speak(call);
    }
    const std::string line = none ? "no\n" : Load();
    call.Head(none ? 404 : 200, {{"content-type", "application/json"}}, Call::Ends::kLength, line.size());
    call.Body(line);
    call.End();
  });
  return true;
}

void Backend::Speak(Call& call) {
  if (speech == Speech::kTrue || speech == Speech::kLies) call.Body(Load());
  call.Then(outside_.Millis(100, 500), [this, &call] { Speak(call); });
}

std::string Backend::Load() {
  if (speech == Speech::kLies) {
    static constexpr const char* kLies[] = {
        "{\"running\":-3}\n", "{\"running\":1e400,\"waiting\":0}\n", "not json\n", "{}\n",
        "{\"epoch\":0,\"seq\":0,\"running\":0,\"waiting\":0,\"max_running\":1}\n",
        "{\"epoch\":1,\"seq\":1,\"running\":0,\"waiting\":0,\"max_running\":100000}\n",
        "{\"epoch\":9,\"seq\":1,\"running\":900,\"waiting\":90000,\"weights\":\"other\"}\n"};
    return kLies[outside_.random.Below(std::size(kLies))];
  }
  return fmt::format("{{\"epoch\":{},\"seq\":{},\"state\":\"ready\",\"running\":{},\"waiting\":0,"
                     "\"max_running\":8,\"weights\":\"w1\"}}\n", epoch_, ++seq_, running_);
}

void Backend::Answer(Call& call) {
  Mood now = mood;
  if (now == Mood::kMixed) now = static_cast<Mood>(outside_.random.Below(6));
  switch (now) {
    case Mood::kSlow: return AnswerWell(call, outside_.Millis(300, 4000));
    case Mood::kHangs:
      if (call.method == "HEAD" || outside_.Chance(50)) return;  // Says nothing, ever.
      return call.Then(outside_.Millis(0, 50), [this, &call] {
        Said& said = Compose(call, 200);
        call.Head(200, FieldsOf(said), Call::Ends::kChunked, 0);
        if (outside_.Chance(50)) call.Body(said.body.substr(0, said.body.size() / 2));
      });
    case Mood::kBusy: return AnswerBusy(call);
    case Mood::kErrors: return AnswerWrong(call);
    case Mood::kBreaks: return BreakOff(call);
    case Mood::kFine:
    case Mood::kMixed: break;
  }
  AnswerWell(call, outside_.Millis(0, 200));
}

Said& Backend::Compose(Call& call, int status) {
  Said& said = outside_.ledger.Say(call.question, status, call.events && status == 200);
  const auto id = fmt::format("\"id\":\"{}\",\"question\":\"{}\"", said.id, said.question);
  if (!said.events) {
    const uint32_t pad = outside_.Chance(6) ? outside_.Between(50'000, 400'000) : outside_.Between(0, 3000);
    said.body = fmt::format("{{{},\"bad\":{},\"pad\":\"{}\"}}", id, status >= 400, std::string(pad, 'p'));
    return said;
  }
  const uint32_t count = outside_.Chance(5) ? 200 : outside_.Between(1, 12);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t size = outside_.Chance(1) ? 90'000 : outside_.Between(0, 60);
    said.body += fmt::format("data: {{{},\"choices\":[{{\"delta\":{{\"content\":\"{}{}\"}}}}]}}\n\n", id, i,
                             std::string(size, 't'));
    if (outside_.Chance(3)) said.body += ": the engine's own comment\n\n";
  }
  if (!outside_.Chance(10)) said.body += "data: [DONE]\n\n";
  return said;
}

Fields Backend::FieldsOf(const Said& said) {
  Fields fields{{"content-type", said.events ? "text/event-stream" : "application/json"}, {"x-answer", said.id}};
  if (outside_.Chance(20)) {
    fields.emplace_back("endpoint-load-metrics",
                        speech == Speech::kLies ? "TEXT named_metrics.running=nan, oh no"
                                                : fmt::format("TEXT named_metrics.running={}", running_));
  }
  return fields;
}

// `bytes` of the body in some pieces; `then` goes with the last one.
void Backend::SayBody(Call& call, Said& said, size_t bytes, MonoTime gap, std::function<void()> then) {
  const uint32_t pieces = outside_.Between(1, said.events ? 12 : 4);
  size_t at = 0;
  for (uint32_t i = 0; i < pieces && at < bytes; ++i) {
    const size_t left = bytes - at;
    const size_t size = i + 1 == pieces ? left : 1 + outside_.random.Below(static_cast<uint32_t>(left));
    call.Then(i == 0 ? 0 : static_cast<MonoTime>(outside_.random.Unit() * static_cast<double>(gap)),
              [&call, &said, at, size, last = at + size == bytes, then] {
                call.Body(std::string_view(said.body).substr(at, size));
                if (last && then) then();
              });
    at += size;
  }
}

void Backend::Finish(Call& call, Said& said) {
  said.whole = true;
  call.End();
  --running_;
}

void Backend::AnswerWell(Call& call, MonoTime before) {
  const bool pages = !call.path.starts_with("/v1/");
  Said& said = Compose(call, pages && outside_.Chance(10) ? 404 : 200);
  const uint32_t how = outside_.random.Below(20);
  using Ends = Call::Ends;
  const Ends ends = how == 0                   ? Ends::kWithConnection
                    : how < 10 && !said.events ? Ends::kLength
                                               : Ends::kChunked;
  const bool over_long = how == 4 && ends == Ends::kLength && !http2_ && call.method != "HEAD";
  const auto finish = [this, &call, &said, ends, over_long] {
    // What would be the answer to whoever comes next. Where it arrives later than the end
    // of the answer, and the next request is on its way, nobody can tell.
    if (over_long) {
      Said& other = outside_.ledger.Say("nobody's", 200, false);
      other.body = fmt::format("{{\"id\":\"{}\"}}", other.id);
      other.whole = true;
      call.Beyond(fmt::format("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", other.body.size(), other.body));
    }
    Finish(call, said);
    if (ends == Ends::kWithConnection) call.Break(true);
  };
  const bool alone = call.method == "HEAD";
  call.Then(before, [this, &call, &said, ends, alone, finish] {
    call.Head(said.status, FieldsOf(said), ends, said.body.size());
    if (alone) finish();
  });
  const MonoTime gap = calm ? kMillisecond : outside_.Chance(20) ? 2 * kSecond : 100 * kMillisecond;
  if (!alone) SayBody(call, said, said.body.size(), gap, finish);
  // A connection that ends after an answer, and was not said to.
  if (outside_.Chance(4)) call.Then(outside_.Millis(0, 30), [&call] { call.Break(true); });
}

void Backend::AnswerBusy(Call& call) {
  if (call.Refuse(static_cast<int>(outside_.random.Below(6)))) return;
  const bool told = outside_.Chance(70);
  Said& said = Compose(call, told && outside_.Chance(50) ? 503 : 429);
  Fields fields = FieldsOf(said);
  static constexpr const char* kWaits[] = {"1", "0.2", "2", "soon", "-1", "100000"};
  if (told) fields.emplace_back("retry-after", kWaits[outside_.random.Below(std::size(kWaits))]);
  call.Then(outside_.Millis(0, 20), [this, &call, &said, fields] {
    call.Head(said.status, fields, Call::Ends::kLength, said.body.size());
    call.Body(said.body);
    Finish(call, said);
  });
}

void Backend::AnswerWrong(Call& call) {
  static constexpr int kCodes[] = {500, 500, 502, 503, 504, 501};
  Said& said = Compose(call, kCodes[outside_.random.Below(std::size(kCodes))]);
  call.Then(outside_.Millis(0, 60), [this, &call, &said] {
    call.Head(said.status, FieldsOf(said), Call::Ends::kLength, said.body.size());
    call.Body(said.body);
    Finish(call, said);
  });
}

// Before a head, after it, inside the body; by a reset, or by an end that comes too early.
void Backend::BreakOff(Call& call) {
  const bool cleanly = outside_.Chance(50);
  const uint32_t where = call.method == "HEAD" ? 0 : outside_.random.Below(4);  // A head is all of that.
  const MonoTime before = outside_.Millis(0, 100);
  if (where == 0) return call.Then(before, [&call, cleanly] { call.Break(cleanly); });
  if (where == 1 && outside_.Chance(30)) {
    return call.Then(before, [&call] { call.Raw("\x01\x02 this is no answer\r\n\r\n"); });
  }
  Said& said = Compose(call, 200);
  const auto ends = outside_.Chance(50) && !said.events ? Call::Ends::kLength : Call::Ends::kChunked;
  call.Then(before, [this, &call, &said, ends] { call.Head(200, FieldsOf(said), ends, said.body.size()); });
  if (where > 1) {
    const auto most = static_cast<uint32_t>(said.body.size() - 1);
    SayBody(call, said, outside_.random.Below(most), 200 * kMillisecond);
  }
  call.Then(outside_.Millis(0, 200), [&call, cleanly] { call.Break(cleanly); });
}

}  // namespace penstock::sim
