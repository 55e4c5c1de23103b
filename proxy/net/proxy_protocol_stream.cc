#include "proxy/net/proxy_protocol_stream.h"

#include <utility>

#include <fmt/format.h>

#include "proxy/base/status.h"
#include "proxy/net/proxy_protocol.h"

namespace penstock {

ProxyProtocolStream::ProxyProtocolStream(std::unique_ptr<Stream> inner, DeadlineWheel& wheel,
                                         absl::AnyInvocable<void(Fault)> on_fault)
    : inner_(std::move(inner)),
      deadline_(wheel, &ProxyProtocolStream::OnLate, this),
      on_fault_(std::move(on_fault)) {
  inner_->SetReceiver(this);
  deadline_.Set(wheel.now() + kHeaderTime);
}

void ProxyProtocolStream::Resume() {
  if (!failed_) inner_->Resume();
}

void ProxyProtocolStream::Reset() {
  deadline_.Clear();
  failed_ = true;
  inner_->Reset();
}

void ProxyProtocolStream::OnData(std::string_view data) {
  if (failed_) return;
  if (!open_) {
    if (receiver_ != nullptr) receiver_->OnData(data);
    return;
  }
  // No header is longer than the limit, so no more than that is ever kept.
  const size_t before = begun_.size();
  begun_.append(data.substr(0, kProxyHeaderMax - before));
  ProxyHeader header;
  const ProxyVerdict verdict = ReadProxyHeader(begun_, header);
  if (verdict.kind == ProxyVerdict::Kind::kBad) return Fail(Fault::kInvalid, verdict.why);
  if (verdict.kind == ProxyVerdict::Kind::kMore) return;
  open_ = false;
  deadline_.Clear();
  announced_ = std::move(header.client);
  secure_ = header.tls;
  data.remove_prefix(verdict.length - before);
  begun_ = std::string();
  if (!data.empty() && receiver_ != nullptr) receiver_->OnData(data);  // May destroy this.
}

void ProxyProtocolStream::OnStreamEnd(const absl::Status& status) {
  if (failed_) return;
  failed_ = true;
  deadline_.Clear();
  if (receiver_ != nullptr) receiver_->OnStreamEnd(status);
}

void ProxyProtocolStream::OnWritable() {
  if (!failed_ && receiver_ != nullptr) receiver_->OnWritable();
}

void ProxyProtocolStream::Fail(Fault fault, std::string_view why) {
  failed_ = true;
  deadline_.Clear();
  inner_->Pause();
  if (on_fault_) on_fault_(fault);
  if (receiver_ == nullptr) return;
  receiver_->OnStreamEnd(
      absl::InvalidArgumentError(A(fmt::format("{}: PROXY header: {}", inner_->peer(), why))));
}

void ProxyProtocolStream::OnLate(void* self) {
  static_cast<ProxyProtocolStream*>(self)->Fail(Fault::kTimeout, "not whole within 10s");
}

}  // namespace penstock
