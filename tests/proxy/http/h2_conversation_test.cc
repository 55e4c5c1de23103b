// Seeded conversations between two HTTP/2 codecs whose owners do whatever an owner
// may, when it may, also from inside what they are told. Bytes arrive in any pieces
// and late. Whatever happens: each message is told in order and ends once on each
// side, no window is overrun, a pause holds, and what arrives is what was sent.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "proxy/base/random.h"
#include "tests/support/h2_peer.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr size_t kWindow = 3000;
constexpr size_t kWindowUntold = 65'535;   // Until the peer knows better.

char ByteAt(MessageId id, size_t offset) { return static_cast<char>(id * 31 + offset * 7); }
std::string Bytes(MessageId id, size_t offset, size_t size) {
  std::string out(size, 0);
  for (size_t i = 0; i < size; ++i) out[i] = ByteAt(id, offset + i);
  return out;
}

CodecLimits Limits() {
  CodecLimits limits;
  limits.h2.concurrent_streams = 12;
  limits.h2.stream_window = kWindow;
  limits.h2.connection_window = 70'000;
  limits.h2.reset_burst = 1'000'000;
  limits.h2.glitch_burst = 1'000'000;
  return limits;
}

// One end and its owner.
class Side {
 public:
  // What the owner knows of one message.
  struct Sending {
    bool begun = false, ended = false, given_up = false, paused = false;
    size_t sent = 0, length = SIZE_MAX;   // SIZE_MAX: chunked.
    size_t told_at_pause = 0;
  };

  Side(CodecRole role, Random& random) : peer(role, Limits()), role_(role), random_(random) {
    peer.on_request = [this](MessageId id) { sending[id]; MaybeAct(id); };
    peer.on_body = [this](MessageId id, std::string_view) {
      const Sending& state = sending[id];
      const H2Peer::Heard& heard = peer.of(id);
      EXPECT_TRUE(!state.paused || heard.body.size() - state.told_at_pause <= window);
      EXPECT_FALSE(state.given_up);
      MaybeAct(id);
    };
    peer.on_end = [this](MessageId id) { MaybeAct(id); };
    peer.on_writable = [this](MessageId id) { Act(id); };
    peer.on_reset = [this](MessageId id, uint32_t) {
      EXPECT_FALSE(sending[id].given_up);
      MaybeAct(id);
    };
  }

  void Ask() {
    if (peer.codec().room() == 0) return;
    static constexpr std::string_view kMethods[] = {"GET", "HEAD", "POST"};
    RequestHead head;
    head.method = kMethods[random_.Below(3)];
    head.target = "/x";
    head.authority = "h";
    Sending state = Begin(head.framing, head.content_length);
    const MessageId id = peer.codec().WriteRequest(peer.out(), head, {});
    EXPECT_EQ(sending.count(id), 0u);
    sending[id] = state;
  }

  // Something that the owner of `id` may do now.
  void Act(MessageId id) {
    Sending& state = sending[id];
    Codec& codec = peer.codec();
    switch (random_.Below(12)) {
      case 0:
        if (random_.Below(6) > 0) return;
        state.given_up = state.ended = true;
        return codec.WriteReset(peer.out(), id, kCancel);
      case 1:
        if (role_ == CodecRole::kServer && !state.begun) codec.WriteContinue(peer.out(), id);
        return;
      case 2:
        if (!state.paused) state.told_at_pause = peer.of(id).body.size();
        state.paused = true;
        return codec.PauseBody(id);
      case 3:
      case 4: return Resume(id);
      case 5: return End(id);
      default: return Write(id, random_.Below(3) == 0 ? 1 : random_.Below(4000));
    }
  }
  void Resume(MessageId id) {
    sending[id].paused = false;
    peer.codec().ResumeBody(peer.out(), id);
  }
  void Write(MessageId id, size_t size) {
    Sending& state = sending[id];
    if (!state.begun) return Answer(id);
    if (state.ended || peer.codec().unsent(id) > Codec::kUnsentMark) return;
    size = std::min(size, state.length - state.sent);
    const std::string data = Bytes(id, state.sent, size);
    peer.codec().WriteBody(peer.out(), id, data);
    turn_bytes_ += peer.Take();   // Its bytes are only referenced.
    state.sent += size;
    if (state.sent == state.length) state.ended = true;
  }
  void End(MessageId id) {
    Sending& state = sending[id];
    if (!state.begun) return Answer(id);
    if (state.length != SIZE_MAX) return Write(id, state.length - state.sent);
    if (state.ended) return;
    state.ended = true;
    const Header trailer[] = {{"x-sum", "1"}};
    peer.codec().WriteEnd(peer.out(), id, random_.Below(2) ? std::span<const Header>(trailer)
                                                           : std::span<const Header>());
  }
  // The end of a turn: what goes to the wire.
  std::string EndTurn() {
    peer.codec().Pump(peer.out());
    turn_bytes_ += peer.Take();
    return std::exchange(turn_bytes_, {});
  }

  H2Peer peer;
  std::map<MessageId, Sending> sending;
  size_t window = kWindowUntold;

 private:
  void MaybeAct(MessageId id) {
    if (random_.Below(4) == 0) Act(id);
  }
  Sending Begin(Framing& framing, uint64_t& length) {
    Sending state;
    state.begun = true;
    switch (random_.Below(3)) {
      case 0:
        framing = Framing::kNone;
        state.length = 0;
        break;
      case 1:
        framing = Framing::kLength;
        length = state.length = random_.Below(20'000);
        break;
      default: framing = Framing::kChunked;
    }
    state.ended = state.length == 0;
    return state;
  }
  void Answer(MessageId id) {
    ResponseHead head;
    head.status = random_.Below(8) == 0 ? 204 : 200;
    const Sending& before = sending[id];
    Sending state = Begin(head.framing, head.content_length);
    state.paused = before.paused;
    state.told_at_pause = before.told_at_pause;
    if (head.status == 204 || peer.of(id).request.method == "HEAD") {
      state.ended = true;
      state.length = 0;
    }
    sending[id] = state;
    peer.codec().WriteResponse(peer.out(), id, head, {});
  }

  const CodecRole role_;
  Random& random_;
  std::string turn_bytes_;
};

class Conversation {
 public:
  explicit Conversation(uint64_t seed)
      : random_(seed), client_(CodecRole::kClient, random_), server_(CodecRole::kServer, random_) {}

  void Run(int steps) {
    if (random_.Below(4) > 0) ShakeHands();
    EndTurns();
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) Step();
    Finish();
  }

 private:
  void ShakeHands() {
    Converse(client_.peer, server_.peer);
    client_.window = server_.window = kWindow;
  }
  void Step() {
    switch (random_.Below(8)) {
      case 0: client_.Ask(); break;
      case 1: Anybody(client_); break;
      case 2:
      case 3: Anybody(server_); break;
      case 4:
      case 5: Deliver(to_server_, server_, random_.Below(5000)); break;
      case 6:
        if (random_.Below(400) == 0) server_.peer.codec().StartClosing(server_.peer.out());
        if (random_.Below(2000) == 0) server_.peer.codec().FinishClosing(server_.peer.out(), kNoError);
        if (random_.Below(50) == 0) client_.peer.codec().WritePing(client_.peer.out());
        break;
      default: Deliver(to_client_, client_, random_.Below(5000));
    }
    EndTurns();
  }
  void Anybody(Side& side) {
    if (side.sending.empty()) return;
    // Mostly one of the latest.
    auto at = side.sending.end();
    for (uint32_t back = random_.Below(14); ; --back) {
      --at;
      if (back == 0 || at == side.sending.begin()) break;
    }
    side.Act(at->first);
  }
  void EndTurns() {
    to_server_ += client_.EndTurn();
    to_client_ += server_.EndTurn();
  }
  void Deliver(std::string& wire, Side& to, size_t size) {
    const std::string piece = wire.substr(0, size);
    wire.erase(0, piece.size());
    to.peer.codec().Feed(piece);
  }
  // Everybody ends what is open, and all arrives.
  void Finish() {
    for (int round = 0; round < 2000; ++round) {
      for (Side* const side : {&client_, &server_}) {
        for (const auto& [id, state] : side->sending) {
          side->Resume(id);
          side->End(id);
        }
      }
      EndTurns();
      if (to_server_.empty() && to_client_.empty()) break;
      Deliver(to_server_, server_, SIZE_MAX);
      Deliver(to_client_, client_, SIZE_MAX);
      EndTurns();
    }
    for (Side* const side : {&client_, &server_}) {
      EXPECT_FALSE(side->peer.failed()) << side->peer.error().code << side->peer.error().detail;
      EXPECT_EQ(side->peer.wrong(), 0);
      EXPECT_TRUE(side->peer.codec().idle());
    }
    for (const auto& [id, state] : client_.sending) CheckMessage(id, state);
  }
  void CheckMessage(MessageId id, const Side::Sending& asked) {
    SCOPED_TRACE(id);
    const H2Peer::Heard& answer = client_.peer.of(id);
    const H2Peer::Heard& request = server_.peer.of(id);
    EXPECT_LE(answer.ends + answer.resets, 1);
    EXPECT_TRUE(answer.ends + answer.resets == 1 || asked.given_up);
    EXPECT_LE(request.body.size(), asked.sent);
    EXPECT_EQ(request.body, Bytes(id, 0, request.body.size()));
    EXPECT_EQ(answer.body, Bytes(id, 0, answer.body.size()));
    if (request.heads == 0) return;
    const Side::Sending& answered = server_.sending[id];
    EXPECT_LE(answer.body.size(), answered.sent);
    EXPECT_TRUE(request.ends == 0 || request.body.size() == asked.sent);
    EXPECT_TRUE(answer.ends == 0 || answer.body.size() == answered.sent);
    const bool answered_early = answered.ended && request.ends == 0;
    EXPECT_TRUE(request.ends + request.resets > 0 || answered.given_up || answered_early);
  }

  Random random_;
  Side client_, server_;
  std::string to_server_, to_client_;
};

TEST(H2Conversation, EndsEachMessageOnceWhateverTheOwnersDo) {
  ForEachSeed(60, [](uint64_t seed) { Conversation(seed).Run(1500); });
}

}  // namespace
}  // namespace penstock
