// An idle connection keeps reading, so that the backend's close is seen at once
// and a dead connection is not handed out. What cannot be seen in time (the close
// crosses our request on the wire) is told apart by `reused`: such a request is
// retried for free.
#include "proxy/backends/h1_conn.h"

#include <utility>

#include <fmt/format.h>

#include "proxy/backends/conn_pool.h"
#include "proxy/base/status.h"

namespace penstock {

H1Conn::H1Conn(ConnPool& pool, std::unique_ptr<Stream> stream, uint32_t place)
    : pool_(pool),
      place_(place),
      stream_(std::move(stream)),
      codec_(MakeH1Codec(CodecRole::kClient, *this, pool.limits_.codec)),
      writer_(pool.turn_) {
  writer_.Attach(*stream_);
  stream_->SetReceiver(this);
  stream_->Resume();
}

void H1Conn::WriteRequest(const RequestHead& head, std::span<const Header> extra) {
  answer_begun_ = false;
  request_ended_ = false;
  message_ = codec_->WriteRequest(writer_.out(), head, extra);
}

void H1Conn::WriteBody(std::string_view data) {
  codec_->WriteBody(writer_.out(), message_, data);
}

void H1Conn::WriteEnd(std::span<const Header> trailers) {
  request_ended_ = true;
  codec_->WriteEnd(writer_.out(), message_, trailers);
  if (!tunnel_) return;
  writer_.Flush();
  stream_->Shutdown();
}

bool H1Conn::above_mark() {
  if (writer_.pending() <= stream_->high_mark()) return false;
  writer_.Flush();  // What the kernel takes at once is no reason to wait.
  return stream_->above_mark();
}

void H1Conn::PauseAnswer() { stream_->Pause(); }
void H1Conn::ResumeAnswer() { stream_->Resume(); }

void H1Conn::Leave() {
  user_ = nullptr;
  // While bytes are being read the rest of a short answer (429, say) may be among
  // them; OnData looks again.
  if (!closed_ && !feeding_) Close();
}

void H1Conn::OnData(std::string_view data) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  if (codec_->idle()) return Close();  // Bytes that nobody asked for.
  answer_begun_ = true;
  feeding_ = true;
  codec_->Feed(data);
  feeding_ = false;
  if (user_ == nullptr && !closed_ && !codec_->idle()) Close();
}

void H1Conn::OnStreamEnd(const absl::Status& status) {
  Turn::Scope scope(pool_.turn_);
  if (closed_) return;
  ended_ = true;
  if (status.ok() && !codec_->idle()) codec_->FeedEnd();  // May end an until-close answer.
  if (closed_) return;
  Fail(ConnFailure::Kind::kReset,
       fmt::format("backend {}: {}", pool_.backend_->name,
                   status.ok() ? "closed the connection" : S(status.message())));
}

void H1Conn::OnWritable() {
  Turn::Scope scope(pool_.turn_);
  if (user_ != nullptr) user_->OnConnWritable();
}

void H1Conn::OnResponse(MessageId, ResponseHead& head) {
  tunnel_ = head.status == 101;
  if (user_ != nullptr) user_->OnAnswerHead(head);
}

void H1Conn::OnInterim(MessageId, ResponseHead& head) {
  if (user_ != nullptr) user_->OnAnswerInterim(head);
}

void H1Conn::OnBody(MessageId, std::string_view data) {
  if (user_ != nullptr) user_->OnAnswerBody(data);
}

void H1Conn::OnMessageEnd(MessageId, std::span<Header> trailers) {
  if (closed_) return;
  User* const user = std::exchange(user_, nullptr);
  // An answer that came before the request was sent whole leaves the connection dirty.
  if (request_ended_ && codec_->reusable()) {
    pool_.PutBack(*this);
  } else {
    Close();
  }
  if (user != nullptr) user->OnAnswerEnd(trailers);
}

void H1Conn::OnProtocolError(const ProtocolError& error) {
  // An answer that ends too early is a backend that is gone, not one that talks nonsense.
  if (closed_ || ended_) return;
  Fail(ConnFailure::Kind::kBadAnswer,
       fmt::format("backend {}: {}", pool_.backend_->name, error.message));
}

void H1Conn::Fail(ConnFailure::Kind kind, std::string message) {
  User* const user = std::exchange(user_, nullptr);
  const ConnFailure failure{.kind = kind,
                            .reused = reused_,
                            .answer_begun = answer_begun_,
                            .message = std::move(message)};
  Close();
  if (user != nullptr) user->OnConnFailed(failure);
}

void H1Conn::Close() {
  if (closed_) return;
  closed_ = true;
  user_ = nullptr;
  writer_.Drop();
  pool_.Remove(*this);
}

}  // namespace penstock
