// One process after another on the same sockets; the words that they exchange are in
// takeover.h.
#include <signal.h>

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "absl/strings/str_split.h"
#include "proxy/backends/operator_words.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/server.h"
#include "proxy/systemd.h"

namespace penstock {
namespace {

constexpr size_t kWordsMax = 16;

}  // namespace

// What the process before, or systemd, has open already.
absl::Status Server::Inherit() {
  for (ListeningSocket& socket : PassedSockets()) {
    const std::string address = socket.address().text;
    inherited_[address].push_back(std::move(socket));
  }
  predecessor_ = GivenChannel();
  if (!predecessor_.open() && !options_.takeover.empty()) {
    absl::StatusOr<TakeoverChannel> asked = TakeoverChannel::Ask(options_.takeover);
    if (asked.ok()) predecessor_ = *std::move(asked);
    if (!asked.ok() && !absl::IsNotFound(asked.status())) return asked.status();
  }
  if (!predecessor_.open()) return absl::OkStatus();
  absl::StatusOr<Taken> taken = TakeAll(predecessor_);
  if (!taken.ok()) return taken.status();
  LogInfo("takeover: {} listeners of the process before", taken->sockets.size());
  inherited_.merge(taken->sockets);
  inherited_words_ = std::move(taken->words);
  if (!taken->keys.empty() && !ticket_keys_.Import(taken->keys)) {
    LogWarn("takeover: its session tickets are not ours; clients make full handshakes");
  }
  Wipe(taken->keys);
  return absl::OkStatus();
}

void Server::OfferTakeover() {
  if (options_.takeover.empty()) return;
  absl::StatusOr<TakeoverChannel> offer = TakeoverChannel::Offer(options_.takeover);
  if (!offer.ok()) {
    return LogError("{}; no other process can take over there", S(offer.status().message()));
  }
  offer_ = *std::move(offer);
  offer_watch_ = loop_->OnReadable(offer_.descriptor(), [this] { OnTakeoverAsked(); });
}

void Server::OnTakeoverAsked() {
  TakeoverChannel channel = offer_.Accept();
  if (!channel.open() || leaving_) return;
  if (heir_.open()) return LogWarn("takeover: refused, one is under way");
  ServeHeir(std::move(channel));
}

void Server::SpawnHeir() {
  if (options_.command.empty() || !live_ || leaving_) return;
  if (heir_.open()) return LogWarn("takeover: refused, one is under way");
  auto ends = TakeoverChannel::Pair();
  if (!ends.ok()) return LogError("{}", S(ends.status().message()));
  signal(SIGCHLD, SIG_IGN);  // Nobody waits for one that fails.
  const absl::StatusOr<pid_t> started = StartHeir(options_.command, std::move(ends->second));
  if (!started.ok()) return LogError("{}; this process goes on", S(started.status().message()));
  LogInfo("takeover: process {} was started", *started);
  ServeHeir(std::move(ends->first));
}

void Server::ServeHeir(TakeoverChannel channel) {
  heir_ = std::move(channel);
  heir_fed_ = false;
  heir_watch_ = loop_->OnReadable(heir_.descriptor(), [this] { OnHeirSpoke(); });
}

void Server::OnHeirSpoke() {
  const absl::StatusOr<TakeoverChannel::Message> said = heir_.Receive(false);
  if (absl::IsUnavailable(said.status())) return;
  const std::string text = said.ok() ? said->text : "";
  // The watch may not go while it calls, nor its descriptor before it.
  const auto leave = [this] {
    loop_->Post([watch = std::move(heir_watch_), channel = std::move(heir_)]() mutable {
      watch.reset();
      channel.Close();
    });
  };
  const std::set<std::string> asked = absl::StrSplit(text, ' ');
  if (text.starts_with("take 1") && asked.contains("1") && !heir_fed_ && !leaving_) {
    heir_fed_ = true;
    bool sent = true;
    for (const OpenListener& open : listeners_) {
      sent = sent && heir_.Send("listen " + open.settings.address, open.sockets);
    }
    std::vector<ListeningSocket> admin;
    if (auto socket = admin_socket_->Duplicate(); socket.ok()) admin.push_back(*std::move(socket));
    sent = sent && heir_.Send("listen admin " + fleet_->config->server.admin_address, admin);
    if (asked.contains("keys")) sent = sent && SendKeys();
    if (asked.contains("operator")) SendOperatorWords();
    if (sent && heir_.Send("end")) return;
    LogError("takeover: the sockets could not be handed over; this process goes on");
    return leave();
  }
  if (text.starts_with("ready ") && heir_fed_ && !leaving_) {
    LogInfo("takeover: process {} is ready", text.substr(6));
    Notify("MAINPID=" + text.substr(6));
    leave();
    return HandOver();
  }
  if (!leaving_) LogError("takeover: the new process broke off before it was ready; this one goes on");
  leave();
}

void Server::SendOperatorWords() {
  for (const auto& pool : fleet_->pools) {
    for (const auto& backend : pool->backends) {
      for (const std::string_view word : WordsFor(*backend)) {
        if (heir_.Send(ToMessage({std::string(word), backend->pool, backend->name}))) continue;
        LogWarn("takeover: backend {}/{}: {} could not be handed over; say it again", backend->pool,
                backend->name, word);
      }
    }
  }
}

void Server::TakeOperatorWords() {
  for (const OperatorWord& said : inherited_words_) {
    const std::shared_ptr<Backend> backend = FindBackend(*fleet_, said.pool, said.backend);
    if (backend == nullptr) {
      LogInfo("takeover: backend {}/{}, for which an operator said {}, is not in this policy file",
              said.pool, said.backend, said.word);
    } else if (Operate(*backend, said.word, loop_->now())) {
      LogWarn("takeover: backend {}/{}: {}, as an operator told the process before", said.pool,
              said.backend, said.word);
    }
  }
  inherited_words_.clear();
}

bool Server::SendKeys() {
  std::string keys = ticket_keys_.Export();
  std::string message;
  message.reserve(kWordsMax + keys.size());   // It does not move and leave a copy behind.
  message.append("keys ").append(keys);
  const bool sent = heir_.Send(message);
  Wipe(message);
  Wipe(keys);
  return sent;
}

void Server::HandOver() {
  admin_.reset();
  admin_socket_.reset();
  reload_timer_.Cancel();
  file_timer_.Cancel();
  look_timer_.Cancel();
  named_timer_.Cancel();
  StopAccepting(true);
}

}  // namespace penstock
