// The other side of a TLS connection, by OpenSSL's own means and with none of our
// code: what a test holds a TlsStream against. It sits on a stream of a test, reads
// all that comes, and says and does what it is told to.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "proxy/net/stream.h"
#include "proxy/net/tls_server_context.h"

namespace penstock {

struct TlsPeerWish {
  bool server = false;
  TlsKeyPair pair = {};              // Shown to the other side.
  std::string authorities = {};      // PEM that the other side is checked by; empty: not at all.
  std::string server_name = {};      // Clients: SNI.
  std::string alpn = {};             // As the wire has it; servers choose what the first one is.
  int lowest = 0, highest = 0;       // TLS1_2_VERSION ...; 0: as OpenSSL has it.
  std::string session = {};          // Clients: one that an earlier peer has kept.
};

class TlsPeer final : public StreamReceiver {
 public:
  TlsPeer(std::unique_ptr<Stream> stream, const TlsPeerWish& wish);
  ~TlsPeer();

  void Start();                      // Clients speak first.
  void Write(std::string_view text);
  void Close();                      // close_notify, and our direction ends.
  void Cut();                        // Ends the connection without a word.
  void UpdateKeys(bool both);        // TLS 1.3.
  bool Renegotiate();                // TLS 1.2. False: not even asked for.
  void Pause() { stream_->Pause(); }
  void Resume() { stream_->Resume(); }

  bool open() const;                 // The handshake is done.
  bool resumed() const;
  std::string alpn() const;
  std::string version() const;
  std::string subject() const;       // Of the other side's certificate.
  std::string session() const;       // The newest one, for TlsPeerWish::session.

  std::string received;
  size_t data_records = 0;           // Of application data, TLS 1.2 or 1.3.
  size_t largest_record = 0;
  std::string error;                 // What went wrong, in OpenSSL's words.
  std::string alert;                 // The last one that came: "close notify" ...
  bool closed = false;               // close_notify came.
  bool ended = false;                // The stream below ended.
  bool reset = false;                // ... with an error.

 private:
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override {}
  void MakeContext();
  void AskFor();
  void Turn();
  void Flush();

  struct Parts;
  const std::unique_ptr<Parts> parts_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace penstock
