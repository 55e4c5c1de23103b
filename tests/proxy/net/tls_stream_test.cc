#include "proxy/net/tls_stream.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "proxy/base/random.h"
#include "tests/support/seeds.h"
#include "tests/support/tls_world.h"

namespace penstock {
namespace {

const std::string kH2Http1 = std::string("\x02h2\x08http/1.1");

std::string Letters(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 % 26);
  return text;
}

TEST(TlsStream, ShakesHandsInPiecesOfEverySize) {
  const auto context = ServerContext();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (size_t size = 1; size < 3000; size += size < 40 ? 1 : 97) {
      TlsWorld w(context, {.server_name = "chat.example", .highest = version}, {.deliver_bytes = size});
      w.Run();
      ASSERT_TRUE(w.open()) << size << ": " << w.end.why << w.peer->error;
      w.peer->Write("ping");
      w.end.stream->Write("pong");
      w.Run();
      EXPECT_EQ(w.end.data, "ping");
      EXPECT_EQ(w.peer->received, "pong");
    }
  }
}

TEST(TlsStream, ConnectsInPiecesOfEverySize) {
  const auto target = Target();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (size_t size = 1; size < 3000; size += size < 40 ? 1 : 97) {
      TlsWorld w(target, {.pair = ChatPair(), .highest = version}, {}, {.deliver_bytes = size});
      w.Run();
      ASSERT_TRUE(w.open()) << size << ": " << w.end.why << w.peer->error;
      w.end.stream->Write("ping");
      w.peer->Write("pong");
      w.Run();
      EXPECT_EQ(w.peer->received, "ping");
      EXPECT_EQ(w.end.data, "pong");
    }
  }
}

TEST(TlsStream, SaysWhatWasSettled) {
  TlsWorld w(ServerContext(), {.server_name = "Chat.Example", .alpn = kH2Http1});
  w.Run();
  ASSERT_TRUE(w.open());
  const TlsInfo& info = *w.end.stream->tls();
  EXPECT_EQ(w.end.stream->alpn(), "h2");
  EXPECT_EQ(info.server_name, "chat.example");
  EXPECT_EQ(info.version, "TLSv1.3");
  EXPECT_EQ(info.cipher, "TLS_AES_128_GCM_SHA256");
  EXPECT_FALSE(info.resumed);
  EXPECT_FALSE(info.peer_verified);
  EXPECT_EQ(w.peer->alpn(), "h2");
  EXPECT_EQ(w.peer->subject(), "/CN=chat.example");
}

TEST(TlsStream, AWriteOfManyPiecesIsOneRecord) {
  TlsWorld w(ServerContext());
  w.Run();
  const std::string_view pieces[] = {"data: ", "{}", "\n", "\n"};
  w.end.stream->Write(pieces);
  w.Run();
  EXPECT_EQ(w.peer->received, "data: {}\n\n");
  EXPECT_EQ(w.peer->data_records, 1u);
}

TEST(TlsStream, ALargeBodyFillsItsRecords) {
  TlsWorld w(ServerContext());
  w.Run();
  const std::string body = Letters(100'000);
  const std::string_view pieces[] = {"HTTP/1.1 200 OK\r\n\r\n", body};
  w.end.stream->Write(pieces);
  w.Run();
  EXPECT_EQ(w.peer->received, "HTTP/1.1 200 OK\r\n\r\n" + body);
  EXPECT_EQ(w.peer->data_records, 7u);
  EXPECT_EQ(w.peer->largest_record, 16384u);
}

TEST(TlsStream, ManyRecordsOfOneReadAreOneOnData) {
  TlsWorld w(ServerContext());
  w.Run();
  for (int i = 0; i < 50; ++i) w.peer->Write("token ");
  w.Run();
  EXPECT_EQ(w.end.data.size(), 300u);
  EXPECT_EQ(w.end.reads, 1);
}

TEST(TlsStream, CloseNotifyIsAnOrderlyEndAndWritingGoesOn) {
  TlsWorld w(ServerContext());
  w.Run();
  w.peer->Write("last words");
  w.peer->Close();
  w.Run();
  EXPECT_EQ(w.end.data, "last words");
  ASSERT_TRUE(w.end.end.has_value());
  EXPECT_TRUE(w.end.end->ok());
  w.end.stream->Write("answer");
  w.Run();
  EXPECT_EQ(w.end.ends, 1);
}

TEST(TlsStream, AnEndWithoutCloseNotifyIsATruncation) {
  TlsWorld w(ServerContext());
  w.Run();
  w.peer->Write("half of");
  w.peer->Cut();
  w.Run();
  EXPECT_EQ(w.end.data, "half of");
  ASSERT_TRUE(w.end.cut());
  EXPECT_NE(w.end.end->message().find("close_notify"), absl::string_view::npos);
  EXPECT_EQ(w.end.ends, 1);
}

TEST(TlsStream, ShutdownAndDestructionSayCloseNotify) {
  TlsWorld shut(ServerContext());
  shut.Run();
  shut.end.stream->Write("bye");
  shut.end.stream->Shutdown();
  shut.end.stream->Write("too late");
  shut.Run();
  EXPECT_EQ(shut.peer->received, "bye");
  EXPECT_TRUE(shut.peer->closed);
  TlsWorld gone(ServerContext());
  gone.Run();
  gone.end.stream.reset();
  gone.Run();
  EXPECT_TRUE(gone.peer->closed);
}

TEST(TlsStream, AResetSaysNothingOfTheKind) {
  TlsWorld w(ServerContext());
  w.Run();
  w.end.stream->Write("half an answer");
  w.end.stream->Reset();
  w.end.stream.reset();
  w.Run();
  EXPECT_FALSE(w.peer->closed);
  EXPECT_TRUE(w.peer->reset);
  EXPECT_EQ(w.end.ends, 0);
}

TEST(TlsStream, WhatDoesNotSpeakTlsIsToldApart) {
  struct Case {
    std::string bytes;
    TlsFailure failure;
  };
  const Case cases[] = {
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", TlsFailure::kNotTls},
      {"SSH-2.0-OpenSSH_9.2\r\n", TlsFailure::kNotTls},
      {"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", TlsFailure::kNotTls},
      {std::string("\x16\x03\x01\xff\xff") + Letters(70'000), TlsFailure::kProtocol},
      {std::string("\x16\x03\x01\x00\x04\x01\xff\xff\xff", 9), TlsFailure::kProtocol},
  };
  for (const Case& one : cases) {
    DeadlineWheel wheel(kSecond);
    MemoryPair pair;
    TlsEnd end;
    end.stream = std::make_unique<TlsStream>(ServerContext(), std::move(pair.a), wheel, end);
    end.stream->Start(wheel.now() + kSecond);
    pair.b->Write(one.bytes);
    while (pair.link->Step()) {
    }
    ASSERT_TRUE(end.failure.has_value()) << one.bytes.substr(0, 20);
    EXPECT_EQ(*end.failure, one.failure) << end.why;
  }
}

TEST(TlsStream, AHandshakeHasItsTime) {
  TlsWorld silent(ServerContext(), {}, {.window_bytes = 0});
  silent.peer->Pause();              // It says hello and does not read the answer.
  silent.Run();
  silent.Advance(TlsWorld::kHandshakeTime - kSecond);
  EXPECT_FALSE(silent.end.failure.has_value());
  silent.Advance(2 * kSecond);
  ASSERT_TRUE(silent.end.failure.has_value());
  EXPECT_EQ(*silent.end.failure, TlsFailure::kTimeout);
}

TEST(TlsStream, AHelloThatEndsHalfWayIsAClosedConnection) {
  for (const bool at_once : {false, true}) {
    TlsWorld w(ServerContext(), {}, {.deliver_bytes = 20});
    if (!at_once) w.pair.link->Step();
    w.peer.reset();
    w.Run();
    ASSERT_TRUE(w.end.failure.has_value());
    EXPECT_EQ(*w.end.failure, TlsFailure::kClosed);
  }
}

TEST(TlsStream, OldVersionsAreRefusedWithAnAlert) {
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    TlsWorld w(ServerContext(), {.lowest = version, .highest = version});
    w.Run();
    ASSERT_TRUE(w.end.failure.has_value());
    EXPECT_EQ(*w.end.failure, TlsFailure::kVersion) << w.end.why;
    EXPECT_EQ(w.peer->alert, "protocol version");
  }
  TlsServerSettings settings = ServerSettings();
  settings.only_13 = true;
  TlsWorld w(ServerContext(settings), {.highest = TLS1_2_VERSION});
  w.Run();
  EXPECT_EQ(w.end.failure, TlsFailure::kVersion);
}

TEST(TlsStream, AlpnPicksOursFirstAndRefusesStrangers) {
  struct Case {
    std::string offered, chosen;
  };
  const Case cases[] = {
      {kH2Http1, "h2"}, {"\x08http/1.1", "http/1.1"}, {"\x08http/1.1\x02h2", "h2"}, {"", ""}};
  for (const Case& one : cases) {
    TlsWorld w(ServerContext(), {.alpn = one.offered});
    w.Run();
    ASSERT_TRUE(w.open());
    EXPECT_EQ(w.end.stream->alpn(), one.chosen);
  }
  TlsWorld w(ServerContext(), {.alpn = "\x06spdy/3"});
  w.Run();
  EXPECT_EQ(w.end.failure, TlsFailure::kAlpn);
  EXPECT_EQ(w.peer->alert, "no application protocol");
}

TEST(TlsStream, AFullStreamBelowIsAFullStream) {
  TlsWorld w(ServerContext(), {}, {.deliver_bytes = 4096, .window_bytes = 8192, .high_mark = 64 * 1024});
  w.Run();
  w.peer->Pause();
  const std::string body = Letters(30'000);
  size_t written = 0;
  while (!w.end.stream->above_mark()) {
    w.end.stream->Write(body);
    written += body.size();
    ASSERT_LT(written, 1'000'000u);
  }
  EXPECT_GT(w.end.stream->buffered(), 64u * 1024);
  w.Run();
  EXPECT_EQ(w.end.writables, 0);
  w.peer->Resume();
  w.Run();
  EXPECT_EQ(w.end.writables, 1);
  EXPECT_EQ(w.end.stream->buffered(), 0u);
  EXPECT_EQ(w.peer->received.size(), written);
}

TEST(TlsStream, APausedStreamReadsNothing) {
  TlsWorld w(ServerContext());
  w.Run();
  w.end.stream->Pause();
  w.peer->Write("wait");
  w.peer->Close();
  w.Run();
  EXPECT_EQ(w.end.data, "");
  w.end.stream->Resume();
  w.Run();
  EXPECT_EQ(w.end.data, "wait");
  EXPECT_EQ(w.end.ends, 1);
}

TEST(TlsStream, PausedInsideOnDataItTellsTheEndLater) {
  TlsWorld w(ServerContext());
  w.Run();
  w.end.on_data = [&] { w.end.stream->Pause(); };
  w.peer->Write("body");
  w.peer->Close();
  w.Run();
  EXPECT_EQ(w.end.data, "body");
  EXPECT_EQ(w.end.ends, 0);
  w.end.stream->Resume();
  EXPECT_EQ(w.end.ends, 0);   // Not from inside Resume().
  w.Advance(kSecond);
  EXPECT_EQ(w.end.ends, 1);
  EXPECT_TRUE(w.end.end->ok());
}

// The client's last handshake message and its request come in one read.
TEST(TlsStream, BytesBehindTheHandshakeWaitForTheOwner) {
  for (const bool resume : {true, false}) {
    TlsWorld w(ServerContext());
    w.end.resume = resume;
    while (!w.peer->open()) ASSERT_TRUE(w.pair.link->Step());
    ASSERT_FALSE(w.end.ready);
    w.peer->Write("GET /");
    w.peer->Close();
    w.Run();
    ASSERT_TRUE(w.end.ready);
    EXPECT_EQ(w.end.data, resume ? "GET /" : "");
    w.end.stream->Resume();
    w.Run();
    w.Advance(kSecond);
    EXPECT_EQ(w.end.data, "GET /");
    EXPECT_EQ(w.end.ends, 1);
    EXPECT_TRUE(w.end.end->ok());
  }
}

TEST(TlsStream, MayBeDestroyedInsideAnyCallback) {
  for (const auto callback : {&TlsEnd::on_ready, &TlsEnd::on_data, &TlsEnd::on_end, &TlsEnd::on_writable}) {
    TlsWorld w(ServerContext(), {}, {.deliver_bytes = 4096, .window_bytes = 0, .high_mark = 4096});
    bool called = false;
    w.end.*callback = [&] {
      called = true;
      w.end.stream.reset();
    };
    w.Run();
    if (w.end.stream != nullptr) {
      w.end.stream->Write(Letters(50'000));
      w.peer->Write("a");
      if (callback != &TlsEnd::on_writable) w.peer->Close();
      w.Run();
    }
    EXPECT_TRUE(called);
    EXPECT_EQ(w.end.stream, nullptr);
  }
}

TEST(TlsStream, KeyUpdatesAreAllowedAndAFloodOfThemIsNot) {
  TlsWorld w(ServerContext());
  w.Run();
  for (uint32_t i = 0; i < TlsStream::kKeyUpdatesMax; ++i) w.peer->UpdateKeys(i % 2 == 0);
  w.peer->Write("still here");
  w.Run();
  w.end.stream->Write("yes");
  w.Run();
  EXPECT_EQ(w.end.data, "still here");
  EXPECT_EQ(w.peer->received, "yes");
  w.peer->UpdateKeys(false);
  w.Run();
  ASSERT_TRUE(w.end.cut());
  EXPECT_NE(w.end.end->message().find("key updates"), absl::string_view::npos);
}

TEST(TlsStream, DataBuysFurtherKeyUpdates) {
  TlsWorld w(ServerContext());
  w.Run();
  for (uint32_t i = 0; i < 3 * TlsStream::kKeyUpdatesMax; ++i) {
    w.peer->UpdateKeys(false);
    w.peer->Write(Letters(1 << 20));
    w.Run();
  }
  EXPECT_FALSE(w.end.end.has_value());
}

TEST(TlsStream, RenegotiationIsRefused) {
  TlsWorld w(ServerContext(), {.highest = TLS1_2_VERSION});
  w.Run();
  ASSERT_TRUE(w.open());
  ASSERT_TRUE(w.peer->Renegotiate());
  w.Run();
  EXPECT_EQ(w.peer->alert, "no renegotiation");
}

TEST(TlsStream, CarriesRandomWritesThroughRandomCutsUnchanged) {
  const auto context = ServerContext();
  ForEachSeed(25, [&](uint64_t seed) {
    Random random(seed);
    const int version = random.Below(2) == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    TlsWorld w(context, {.highest = version},
               {.deliver_bytes = 1 + random.Below(5000),
                .window_bytes = random.Below(20'000),
                .high_mark = 8192,
                .seed = seed});
    w.Run();
    ASSERT_TRUE(w.open());
    std::string to_peer, to_us;
    for (int turn = 0; turn < 60; ++turn) {
      std::vector<std::string> pieces(random.Below(5));
      std::vector<std::string_view> views;
      for (std::string& piece : pieces) {
        piece = Letters(random.Below(4) == 0 ? random.Below(60'000) : random.Below(200));
        to_peer += piece;
        views.push_back(piece);
      }
      w.end.stream->Write(views);
      const std::string back = Letters(random.Below(4) == 0 ? random.Below(40'000) : random.Below(100));
      to_us += back;
      w.peer->Write(back);
      if (random.Below(3) == 0) w.end.stream->Pause();
      for (uint32_t steps = random.Below(20); steps > 0; --steps) w.pair.link->Step();
      if (random.Below(2) == 0) w.end.stream->Resume();
    }
    w.end.stream->Shutdown();
    w.peer->Close();
    w.end.stream->Resume();
    w.Run();
    w.Advance(kSecond);
    EXPECT_EQ(w.peer->received, to_peer);
    EXPECT_EQ(w.end.data, to_us);
    EXPECT_TRUE(w.peer->closed);
    ASSERT_TRUE(w.end.end.has_value());
    EXPECT_TRUE(w.end.end->ok()) << w.end.end->ToString();
  });
}

// Whatever is flipped on its way, nothing wrong is read and nothing crashes.
TEST(TlsStream, AFlippedBitIsNeverData) {
  const auto context = ServerContext();
  ForEachSeed(200, [&](uint64_t seed) {
    Random random(seed);
    DeadlineWheel wheel(kSecond);
    MemoryPair ours, theirs;
    TlsEnd end;
    end.stream = std::make_unique<TlsStream>(context, std::move(ours.a), wheel, end);
    end.stream->Start(wheel.now() + 10 * kSecond);
    TlsPeer peer(std::move(theirs.b), {.server_name = "chat.example"});
    peer.Start();
    // The test carries the bytes between the two, and damages one.
    struct Carrier final : StreamReceiver {
      void OnData(std::string_view bytes) override {
        std::string copy(bytes);
        for (char& c : copy) {
          if (count++ == at) c = static_cast<char>(c ^ (1 << bit));
        }
        to->Write(copy);
      }
      void OnStreamEnd(const absl::Status&) override { to->Shutdown(); }
      void OnWritable() override {}
      Stream* to = nullptr;
      size_t count = 0, at = 0;
      int bit = 0;
    } up, down;
    up.to = ours.b.get();
    down.to = theirs.a.get();
    up.at = random.Below(900);
    up.bit = static_cast<int>(random.Below(8));
    down.at = ~size_t{0};
    theirs.a->SetReceiver(&up);
    ours.b->SetReceiver(&down);
    theirs.a->Resume();
    ours.b->Resume();
    const auto run = [&] {
      bool moved = true;
      while (moved) {
        moved = ours.link->Step();
        moved |= theirs.link->Step();
      }
    };
    run();
    if (peer.open()) {
      for (int i = 0; i < 20; ++i) peer.Write("twenty bytes of text");
      run();
    }
    for (size_t i = 0; i < end.data.size(); ++i) ASSERT_EQ(end.data[i], "twenty bytes of text"[i % 20]);
    EXPECT_LE(end.ends, 1);
  });
}

}  // namespace
}  // namespace penstock
