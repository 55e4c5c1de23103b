#include "backend-engine/api/load_watch.h"

#include <algorithm>
#include <string>
#include <utility>

namespace penstock::engine {
namespace {

constexpr size_t kUnreadBytes = 1 << 20;

// Those that left, and those that do not read; the end of their answers cuts these.
void DropTheDeaf(std::vector<std::unique_ptr<HttpAnswer>>& readers) {
  std::erase_if(readers, [](const auto& reader) {
    return reader->client_gone() || reader->buffered() > kUnreadBytes;
  });
}

}  // namespace

LoadWatch::LoadWatch(Loop& loop, std::function<LoadReport()> read)
    : loop_(loop), read_(std::move(read)) {}

bool LoadWatch::Add(std::unique_ptr<HttpAnswer>& answer) {
  DropTheDeaf(readers_);
  if (readers_.size() >= kReadersMax) return false;
  answer->Begin(200, "application/x-ndjson", {{"cache-control", "no-cache"}});
  if (ended_) {  // Its last line is its first.
    answer->Write(LoadLine(read_()));
    answer->End();
    return true;
  }
  if (!readers_.empty()) answer->Write(LoadLine(read_()));
  readers_.push_back(std::move(answer));
  if (readers_.size() == 1) Tell();  // From now on there is a timer.
  return true;
}

void LoadWatch::Changed() {
  if (posted_.exchange(true)) return;
  const bool accepted = loop_.Post([this] {
    posted_ = false;
    TellSoon();
  });
  if (!accepted) posted_ = false;
}

void LoadWatch::TellSoon() {
  if (readers_.empty() || soon_ || !WorthTelling(told_, read_().figures)) return;
  const MonoTime since = loop_.now() - told_at_;
  if (since >= kLeast) return Tell();
  soon_ = true;
  timer_ = loop_.timers().After(kLeast - since, [this] { Tell(); });
}

void LoadWatch::Tell() {
  DropTheDeaf(readers_);
  soon_ = false;
  timer_.Cancel();
  if (readers_.empty()) return;
  const LoadReport report = read_();
  const std::string line = LoadLine(report);
  for (const auto& reader : readers_) reader->Write(line);
  told_ = report.figures;
  told_at_ = loop_.now();
  timer_ = loop_.timers().After(kMost, [this] { Tell(); });
}

void LoadWatch::End() {
  Tell();
  timer_.Cancel();
  ended_ = true;
  // The end of one answer lets the next request of its connection in, which may want to watch.
  const auto readers = std::exchange(readers_, {});
  for (const auto& reader : readers) reader->End();
}

}  // namespace penstock::engine
