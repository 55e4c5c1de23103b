#include "tests/sim/proxy_sim.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/sim/traffic.h"

namespace penstock::sim {
namespace {

constexpr const char* kPolicyFile = "policy.yaml";
constexpr int kSteps = 250;
constexpr size_t kClientsMax = 40;

}  // namespace

ProxySim::ProxySim(uint64_t seed) : random_(seed), policy_(random_), text_(policy_.Text()) {
  network_.link_options.seed = random_.Next() | 1;
  network_.link_options.deliver_bytes = outside_.Chance(70) ? 64 * 1024 : 1 + random_.Below(300);
  network_.link_options.window_bytes = 16 * 1024;
  network_.link_options.high_mark = 64 * 1024;
  for (size_t i = 0; i < Policy::kChat; ++i) {
    backends_.push_back(std::make_unique<Backend>(outside_, Policy::ChatAddress(i), false));
  }
  for (size_t i = 0; i < Policy::kFar; ++i) {
    backends_.push_back(std::make_unique<Backend>(outside_, Policy::FarAddress(i), true));
  }
  for (size_t i = 0; i < Policy::kFiles; ++i) {
    backends_.push_back(std::make_unique<Backend>(outside_, Policy::FilesAddress(i), false));
  }
  server_ = std::make_unique<Server>(ServeOptions{.policy_file = kPolicyFile}, random_.Next(), Seams());
  const absl::Status begun = server_->Begin();
  EXPECT_TRUE(begun.ok()) << begun << "\n" << text_;
}

ProxySim::~ProxySim() {
  fetches_.clear();
  dials_.clear();
  clients_.clear();
}

ServerSeams ProxySim::Seams() {
  return {.make_loop =
              [this] {
                auto loop = std::make_unique<ManualLoop>(network_);
                loops_.push_back(loop.get());
                return loop;
              },
          .threads = false,
          .open_socket = [](const Address& address, bool) -> absl::StatusOr<ListeningSocket> {
            return ListeningSocket::InMemory(address);
          },
          .read_file = [this](const std::string&) -> absl::StatusOr<std::string> { return text_; },
          .open_log = [this](const std::string&) -> absl::StatusOr<std::shared_ptr<AccessLog>> {
            return AccessLog::Into([this](std::string_view line) { ledger_.OnLog(line); });
          },
          .memory_used = [this] { return memory_used_; },
          .memory_limit = [] { return uint64_t{0}; }};
}

void ProxySim::Run() {
  Advance(random_.Below(1500) * kMillisecond);
  for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
    Step();
    CheckStep();
  }
  if (!::testing::Test::HasFailure()) outside_.Chance(25) ? Terminate() : Finish();
}

void ProxySim::Step() {
  const uint32_t what = random_.Below(1000);
  if (what < 400) {
    AskOne();
  } else if (what < 620) {
    if (!clients_.empty()) Any(clients_)->Act();
  } else if (what < 650) {
    if (!clients_.empty()) Any(clients_)->Leave(outside_.Chance(50));
  } else if (what < 870) {
    Advance(outside_.Chance(80) ? random_.Below(60) * kMillisecond : random_.Below(1500) * kMillisecond);
  } else if (what < 930) {
    Any(backends_)->mood = static_cast<Mood>(random_.Below(7));
  } else if (what < 950) {
    Backend& backend = *Any(backends_);
    backend.speech = static_cast<Speech>(random_.Below(4));
    backend.healthy = outside_.Chance(80);
  } else if (what < 975) {
    BreakSomething();
  } else if (what < 992) {
    Interfere();
  } else {
    Reload();
  }
  if (random_.Below(10) < 7) {
    network_.RunUntilIdle();
    for (const auto& backend : backends_) backend->CheckRest();
  }
  std::erase_if(clients_, [](const auto& client) { return client->closed(); });
  for (const auto& backend : backends_) backend->Reap();
}

void ProxySim::AskOne() {
  const Question question = MakeQuestion(outside_);
  if (!clients_.empty() && (clients_.size() >= kClientsMax || outside_.Chance(60))) {
    Client& client = *Any(clients_);
    if (client.ready()) return client.Ask(question.asked, question.sending);
  }
  const bool side = policy_.second_listener && outside_.Chance(30);
  Connect(question.asked, question.sending, side ? kSide : kPublic);
}

void ProxySim::Connect(Asked& asked, const Sending& sending, const std::string& door) {
  auto& place = dials_.emplace_back();
  const bool http2 = outside_.Chance(40);
  place = loop_.dialer().Dial(
      *Address::Parse(door), kSecond,
      [this, &asked, sending, http2](absl::StatusOr<std::unique_ptr<Stream>> stream) {
        if (!stream.ok()) return ledger_.OnEnd(asked, Asked::End::kUnanswered);
        clients_.push_back(http2 ? MakeHttp2Client(outside_, *std::move(stream))
                                 : MakeHttp1Client(outside_, *std::move(stream)));
        clients_.back()->Ask(asked, sending);
      });
}

// An operator looks, or does something.
void ProxySim::Interfere() {
  static constexpr const char* kLooks[] = {"/backends", "/decisions", "/cache", "/config", "/readyz", "/livez"};
  static constexpr const char* kDeeds[] = {"drain", "undrain", "undrain", "breaker/open", "breaker/close",
                                           "breaker/auto", "breaker/auto"};
  if (outside_.Chance(40)) return Fetch("GET", kLooks[random_.Below(std::size(kLooks))], nullptr);
  if (outside_.Chance(20)) return Fetch("POST", "/cache/flush", nullptr);
  const bool far = outside_.Chance(30);
  const size_t index = random_.Below(static_cast<uint32_t>(far ? Policy::kFar : Policy::kChat));
  const std::string deed = kDeeds[random_.Below(std::size(kDeeds))];
  forced_ |= deed.starts_with("breaker");
  Fetch("POST", fmt::format("/backends/{}{}/{}", far ? "far/f" : "chat/c", index, deed), nullptr);
}

void ProxySim::BreakSomething() {
  Backend& backend = *Any(backends_);
  switch (random_.Below(8)) {
    case 0: return backend.Kill();
    case 1: return backend.Refuse();
    case 2:
    case 3: return backend.Open();
    case 4: return network_.ResetAllTo(backend.address());
    case 5:
      if (outside_.Chance(50)) network_.black_holes.clear();
      network_.black_holes.insert(backend.address());
      return;
    case 6:
      network_.black_holes.clear();
      memory_used_ = outside_.Chance(60) ? 0 : outside_.Between(800, 1030) * uint64_t{1 << 20};
      return;
    default:
      OverEvery([](Client& client) { client.Excuse(); });
      network_.ResetAllTo(outside_.Chance(50) ? kPublic : kSide);
  }
}

void ProxySim::Reload() {
  if (outside_.Chance(20)) {
    text_ = policy_.Text() + "surprise: 1\n";  // Refused; the next edit mends it.
  } else {
    policy_.Change(random_);
    text_ = policy_.Text();
  }
  if (outside_.Chance(70)) loops_[0]->Signal(SIGHUP);
}

void ProxySim::Advance(MonoTime time) { network_.Advance(time); }

void ProxySim::OverEvery(const std::function<void(Client&)>& what) {
  for (size_t i = 0; i < clients_.size(); ++i) what(*clients_[i]);
}

void ProxySim::Fetch(std::string method, std::string target, std::function<void(std::string)> done) {
  FetchOptions options;
  options.method = std::move(method);
  options.target = std::move(target);
  options.authority = "localhost";
  options.timeout = 30 * kSecond;
  fetches_.push_back(penstock::Fetch::Start(
      loop_.dialer(), loop_.deadlines(), *Address::Parse(kAdmin), std::move(options),
      [done = std::move(done)](absl::StatusOr<FetchResult> result) {
        EXPECT_TRUE(result.ok()) << "an admin page: " << result.status();
        if (result.ok() && done) done(result->body);
      }));
}

std::string ProxySim::Metrics() {
  std::string text;
  Fetch("GET", "/metrics", [&text](std::string body) { text = std::move(body); });
  network_.RunUntilIdle();
  EXPECT_NE(text, "");
  return text;
}

}  // namespace penstock::sim
