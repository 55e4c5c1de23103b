// OpenSSL reads from and writes to a BIO of ours, which knows no socket: it reads the
// bytes that the stream below has just brought, where they lie, and its writes are
// gathered and given to the stream below in one piece after each call.
#include "proxy/net/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/net/tls_openssl.h"

namespace penstock {
namespace {

constexpr size_t kRecord = 16 * 1024;
constexpr size_t kFlushAbove = 256 * 1024;
constexpr size_t kScratchKept = 512 * 1024;

// Used within one call and shared by all connections of a thread, as the loop's read
// buffer is.
struct Scratch {
  std::string sealed;            // Written by OpenSSL, not yet given to the stream below.
  std::vector<char> plain;       // Read, and handed to the receiver.
  std::array<char, kRecord> record;
  bool plain_in_use = false;
};

Scratch& ThreadScratch() {
  thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  return *scratch;
}

TlsFailure FailureOf(unsigned long code, TlsPeerState::Refused refused) {
  if (refused == TlsPeerState::Refused::kName) return TlsFailure::kName;
  if (refused == TlsPeerState::Refused::kAlpn) return TlsFailure::kAlpn;
  if (ERR_GET_LIB(code) != ERR_LIB_SSL) return TlsFailure::kProtocol;
  switch (ERR_GET_REASON(code)) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
      return TlsFailure::kNotTls;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
      return TlsFailure::kVersion;
    case SSL_R_NO_SHARED_CIPHER:
      return TlsFailure::kCipher;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return TlsFailure::kCertificate;
    default:
      return ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET ? TlsFailure::kAlert : TlsFailure::kProtocol;
  }
}

}  // namespace

struct TlsBio {
  static int Read(BIO* bio, char* data, size_t size, size_t* got) {
    BIO_clear_retry_flags(bio);
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    if (stream.TooManyKeyUpdates()) return 0;   // Here, since one call may read many of them.
    std::string_view& incoming = stream.incoming_;
    *got = std::min(size, incoming.size());
    if (*got == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(data, incoming.data(), *got);
    incoming.remove_prefix(*got);
    return 1;
  }
  static int Write(BIO*, const char* data, size_t size, size_t* taken) {
    ThreadScratch().sealed.append(data, size);
    *taken = size;
    return 1;
  }
  static long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static const BIO_METHOD* Method() {
    static const BIO_METHOD* const method = [] {
      BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "penstock");
      CHECK(made != nullptr && BIO_meth_set_read_ex(made, Read) == 1 &&
            BIO_meth_set_write_ex(made, Write) == 1 && BIO_meth_set_ctrl(made, Control) == 1);
      return made;
    }();
    return method;
  }
};

TlsStream::TlsStream(std::shared_ptr<const TlsServerContext> context, std::unique_ptr<Stream> inner,
                     DeadlineWheel& wheel, Waiter& waiter)
    : TlsStream(context, nullptr, context->NewSsl(), std::move(inner), wheel, waiter) {}

TlsStream::TlsStream(std::shared_ptr<const TlsTarget> target, std::string_view alpn_wire,
                     std::unique_ptr<Stream> inner, DeadlineWheel& wheel, Waiter& waiter)
    : TlsStream(nullptr, target, target->NewSsl(alpn_wire), std::move(inner), wheel, waiter) {}

TlsStream::TlsStream(std::shared_ptr<const TlsServerContext> context,
                     std::shared_ptr<const TlsTarget> target, ssl_st* ssl,
                     std::unique_ptr<Stream> inner, DeadlineWheel& wheel, Waiter& waiter)
    : server_(std::move(context)),
      target_(std::move(target)),
      ssl_(ssl),
      peer_state_(std::make_unique<TlsPeerState>()),
      inner_(std::move(inner)),
      waiter_(&waiter),
      deadline_(wheel, &TlsStream::OnDeadline, this) {
  peer_state_->target = target_.get();
  SSL_set_app_data(ssl_, peer_state_.get());
  BIO* const bio = BIO_new(TlsBio::Method());
  CHECK(bio != nullptr);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  inner_->SetReceiver(this);
}

TlsStream::~TlsStream() {
  if (gone_ != nullptr) *gone_ = true;
  Shutdown();
  // A connection that was cut is no reason to distrust its session. (After a fatal
  // alert OpenSSL has thrown it away already.)
  if (info_.version.data() != nullptr) SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(ssl_);
}

void TlsStream::Start(MonoTime until) {
  deadline_.Set(until);
  inner_->Resume();
  if (target_ != nullptr) {
    ERR_clear_error();
    SSL_do_handshake(ssl_);   // The client speaks first; there is nothing to read yet.
    Flush();
  }
}

// --- reading ---

void TlsStream::OnData(std::string_view data) {
  if (state_ == State::kEnded) return;
  incoming_ = data;
  if (state_ == State::kHandshake && !Shake()) return;
  if (state_ == State::kOpen) Deliver();
}

// Hands over what incoming_ holds. False: this is gone.
bool TlsStream::Deliver() {
  if (paused_) {
    // Only right after the handshake, whose last bytes came together with others.
    held_.assign(incoming_);
    incoming_ = {};
    return true;
  }
  Scratch& scratch = ThreadScratch();
  CHECK(!scratch.plain_in_use, "TLS over TLS");
  scratch.plain_in_use = true;
  size_t size = 0;
  std::optional<absl::Status> end = Decrypt(scratch.plain, size);
  if (!end_.has_value()) end_ = std::move(end);
  incoming_ = {};
  Flush();
  bool gone = false;
  if (size > 0 && receiver_ != nullptr) {
    gone_ = &gone;
    receiver_->OnData({scratch.plain.data(), size});
    if (!gone) gone_ = nullptr;
  }
  scratch.plain_in_use = false;
  return !gone && DeliverEnd();
}

bool TlsStream::TooManyKeyUpdates() const {
  return peer_state_->key_updates > kKeyUpdatesMax + (received_ >> 20);
}

// Fills `plain` from its front with what has come. A value: the end of the peer's bytes.
std::optional<absl::Status> TlsStream::Decrypt(std::vector<char>& plain, size_t& size) {
  while (true) {
    // It grows to what one read of the stream below may bring, and stays so.
    if (plain.size() - size < kRecord) plain.resize(size + 2 * kRecord);
    ERR_clear_error();
    size_t got = 0;
    const int result = SSL_read_ex(ssl_, plain.data() + size, kRecord, &got);
    size += got;
    received_ += got;
    if (TooManyKeyUpdates()) {
      broken_ = true;
      return absl::UnavailableError(
          A(fmt::format("{}: TLS: more key updates than its data calls for", peer())));
    }
    if (result == 1) {
      // OpenSSL tells that there is no more by its way of errors, which is its slowest.
      if (incoming_.empty() && SSL_has_pending(ssl_) == 0) return std::nullopt;
      continue;
    }
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_WANT_READ) return std::nullopt;
    if (error == SSL_ERROR_ZERO_RETURN) return absl::OkStatus();
    broken_ = true;
    return absl::UnavailableError(A(fmt::format("{}: TLS: {}", peer(), TakeOpenSslError())));
  }
}

// Tells the end, if it is known and wanted. False: this is gone.
bool TlsStream::DeliverEnd() {
  if (!end_.has_value() || paused_ || state_ != State::kOpen) return true;
  const absl::Status status = *std::exchange(end_, std::nullopt);
  state_ = State::kEnded;
  if (receiver_ == nullptr) return true;
  bool gone = false;
  gone_ = &gone;
  receiver_->OnStreamEnd(status);
  if (!gone) gone_ = nullptr;
  return !gone;
}

void TlsStream::OnStreamEnd(const absl::Status& status) {
  if (state_ == State::kHandshake) {
    return FailHandshake(TlsFailure::kClosed, status.ok() ? "it closed the connection"
                                                          : std::string(S(status.message())));
  }
  if (state_ == State::kEnded || end_.has_value()) return;
  if (!status.ok()) broken_ = true;
  end_ = status.ok() ? absl::UnavailableError(A(fmt::format(
                           "{}: TLS: cut off: the connection ended without close_notify", peer())))
                     : status;
  if (held_.empty()) DeliverEnd();
}

void TlsStream::OnWritable() {
  if (state_ == State::kOpen && receiver_ != nullptr) receiver_->OnWritable();
}

void TlsStream::Resume() {
  paused_ = false;
  if (state_ != State::kOpen) return;
  // What is held is not delivered from inside this call.
  if (!held_.empty() || end_.has_value()) {
    deadline_.Set(0);
  } else {
    inner_->Resume();
  }
}

void TlsStream::Pause() {
  paused_ = true;
  if (state_ == State::kOpen) inner_->Pause();
}

void TlsStream::OnDeadline(void* self) {
  auto& stream = *static_cast<TlsStream*>(self);
  if (stream.state_ == State::kHandshake) {
    return stream.FailHandshake(TlsFailure::kTimeout, "no handshake in time");
  }
  if (stream.paused_ || stream.state_ != State::kOpen) return;
  const std::string held = std::exchange(stream.held_, {});
  stream.incoming_ = held;
  if (!stream.Deliver()) return;
  if (!stream.paused_ && stream.state_ == State::kOpen) stream.inner_->Resume();
}

// --- writing ---

void TlsStream::Write(std::span<const std::string_view> pieces) {
  if (state_ == State::kHandshake || shut_ || broken_) return;
  std::array<char, kRecord>& record = ThreadScratch().record;
  size_t filled = 0;
  for (std::string_view piece : pieces) {
    while (!piece.empty()) {
      if (filled == 0 && piece.size() >= kRecord) {
        Encrypt(piece.data(), kRecord);   // From where it lies.
        piece.remove_prefix(kRecord);
        continue;
      }
      const size_t part = std::min(piece.size(), kRecord - filled);
      std::memcpy(record.data() + filled, piece.data(), part);
      filled += part;
      piece.remove_prefix(part);
      if (filled == kRecord) {
        Encrypt(record.data(), filled);
        filled = 0;
      }
    }
  }
  if (filled > 0) Encrypt(record.data(), filled);
  Flush();
}

void TlsStream::Encrypt(const char* data, size_t size) {
  if (broken_) return;
  ERR_clear_error();
  size_t written = 0;
  // Our BIO takes everything, so this fails for want of memory only.
  if (SSL_write_ex(ssl_, data, size, &written) != 1) broken_ = true;
  if (ThreadScratch().sealed.size() > kFlushAbove) Flush();
}

void TlsStream::Flush() {
  std::string& sealed = ThreadScratch().sealed;
  if (sealed.empty()) return;
  inner_->Write(sealed);
  sealed.clear();
  if (sealed.capacity() > kScratchKept) sealed = {};
}

void TlsStream::Shutdown() {
  if (shut_ || broken_ || state_ == State::kHandshake) return;
  shut_ = true;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  Flush();
  inner_->Shutdown();
}

void TlsStream::Reset() {
  state_ = State::kEnded;
  broken_ = true;
  held_.clear();
  deadline_.Clear();
  inner_->Reset();
}

// --- the handshake ---

bool TlsStream::Shake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  const int error = SSL_get_error(ssl_, result);
  Flush();   // An alert too, if it has failed.
  if (result == 1) {
    bool gone = false;
    gone_ = &gone;
    Established();
    if (gone) return false;
    gone_ = nullptr;
    return true;
  }
  if (error == SSL_ERROR_WANT_READ) return true;
  HandshakeFailed();
  return false;
}

void TlsStream::HandshakeFailed() {
  const TlsFailure failure = FailureOf(ERR_peek_error(), peer_state_->refused);
  const long verified = SSL_get_verify_result(ssl_);
  std::string why = TakeOpenSslError();
  if (failure == TlsFailure::kCertificate && verified != X509_V_OK) {
    why = X509_verify_cert_error_string(verified);
  }
  if (failure == TlsFailure::kName) why = "no certificate for the name that it asked for";
  if (failure == TlsFailure::kAlpn) why = "none of the protocols that it offered is spoken here";
  FailHandshake(failure, std::move(why));
}

void TlsStream::FailHandshake(TlsFailure failure, std::string why) {
  state_ = State::kEnded;
  broken_ = true;
  deadline_.Clear();
  std::exchange(waiter_, nullptr)->OnTlsFailed(*this, failure, why);
}

void TlsStream::Established() {
  const unsigned char* alpn = nullptr;
  unsigned alpn_size = 0;
  SSL_get0_alpn_selected(ssl_, &alpn, &alpn_size);
  info_.alpn.assign(reinterpret_cast<const char*>(alpn), alpn_size);
  info_.server_name = server_ != nullptr ? std::move(peer_state_->server_name) : target_->name();
  info_.version = SSL_get_version(ssl_);
  info_.cipher = SSL_CIPHER_get_name(SSL_get_current_cipher(ssl_));
  info_.resumed = SSL_session_reused(ssl_) == 1;
  X509* const certificate = SSL_get0_peer_certificate(ssl_);
  if (certificate != nullptr && SSL_get_verify_mode(ssl_) != SSL_VERIFY_NONE &&
      SSL_get_verify_result(ssl_) == X509_V_OK) {
    info_.peer_verified = true;
    info_.peer = Describe(certificate);
  }
  state_ = State::kOpen;
  deadline_.Clear();
  inner_->Pause();
  std::exchange(waiter_, nullptr)->OnTlsReady(*this);
}

}  // namespace penstock
