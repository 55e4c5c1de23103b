#include "proxy/net/tls_acceptor.h"

#include <string>
#include <utility>

namespace penstock {

void TlsAcceptor::Accept(std::shared_ptr<const TlsServerContext> context,
                         std::unique_ptr<Stream> stream, MonoTime timeout, Done done) {
  auto handshake = std::make_unique<Handshake>();
  handshake->owner = this;
  handshake->done = std::move(done);
  handshake->index = open_.size();
  handshake->stream =
      std::make_unique<TlsStream>(std::move(context), std::move(stream), wheel_, *handshake);
  TlsStream& begun = *handshake->stream;
  open_.push_back(std::move(handshake));
  begun.Start(wheel_.now() + timeout);
}

std::unique_ptr<TlsAcceptor::Handshake> TlsAcceptor::Take(size_t index) {
  std::unique_ptr<Handshake> taken = std::move(open_[index]);
  if (index + 1 != open_.size()) {
    open_[index] = std::move(open_.back());
    open_[index]->index = index;
  }
  open_.pop_back();
  return taken;
}

void TlsAcceptor::Handshake::OnTlsReady(TlsStream&) {
  const std::unique_ptr<Handshake> self = owner->Take(index);
  self->done({.stream = std::move(self->stream)});
}

void TlsAcceptor::Handshake::OnTlsFailed(TlsStream& failed, TlsFailure failure, std::string_view why) {
  const std::unique_ptr<Handshake> self = owner->Take(index);
  self->done({.failure = failure, .why = why, .peer = failed.peer()});
}

}  // namespace penstock
