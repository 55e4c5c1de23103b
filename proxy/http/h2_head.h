// From the fields of an HTTP/2 header block to a head as HTTP/1 would have given
// it: Host among the headers, one Cookie field, framing. Counts and bounds what is
// kept. Malformed blocks do not come here: nghttp2 turns them away field by field.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "proxy/base/arena.h"
#include "proxy/http/codec_limits.h"
#include "proxy/http/message.h"

namespace penstock {

// Of one message: all its blocks together.
struct H2FieldCount {
  size_t fields = 0;
  size_t bytes = 0;
};

// Collects one block at a time: blocks of different messages cannot mix on the wire.
class H2Head {
 public:
  explicit H2Head(const CodecLimits& limits) : limits_(limits) {}

  void Begin();
  // Copies into `arena`. Past a limit nothing more of the block is kept.
  void Add(std::string_view name, std::string_view value, Arena& arena, H2FieldCount& count);
  bool over_limit() const { return over_limit_; }
  uint16_t status() const { return status_; }   // 0: none.
  std::string_view method() const { return method_; }

  // The block is whole. Views are into `arena`. An error: what to refuse it with.
  std::optional<ProtocolError> ReadRequest(RequestHead& head, bool end_stream, Arena& arena);
  std::optional<ProtocolError> ReadResponse(ResponseHead& head, bool end_stream, bool to_head,
                                            Arena& arena);
  // nullopt: over a limit.
  std::optional<std::span<Header>> ReadTrailers(Arena& arena);

 private:
  ProtocolError LimitError(uint16_t status) const;
  void AddPseudo(std::string_view name, std::string_view value);
  void PlaceHost();
  bool JoinCookies(Arena& arena);
  bool Keep(std::span<Header>& headers, Arena& arena);

  const CodecLimits limits_;
  std::vector<Header> fields_;
  std::string_view method_, scheme_, authority_, path_;
  uint16_t status_ = 0;
  bool over_limit_ = false;
  bool too_many_ = false;
};

}  // namespace penstock
