#include "proxy/http/h2_codec.h"

#include <nghttp2/nghttp2.h>

#include <array>
#include <limits>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/http/h2_memory.h"

namespace penstock {
namespace {

constexpr size_t kPreface = NGHTTP2_CLIENT_MAGIC_LEN;
constexpr uint8_t kInterimMax = 8;

std::string_view View(nghttp2_rcbuf* buffer) {
  const nghttp2_vec bytes = nghttp2_rcbuf_get_buf(buffer);
  return {reinterpret_cast<const char*>(bytes.base), bytes.len};
}

}  // namespace

struct H2Callbacks {
  static H2Codec& Of(void* user_data) { return *static_cast<H2Codec*>(user_data); }
  static H2Message* MessageOf(nghttp2_session* session, int32_t stream) {
    return static_cast<H2Message*>(nghttp2_session_get_stream_user_data(session, stream));
  }

  static int BeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    H2Codec& codec = Of(user_data);
    codec.head_.Begin();
    if (codec.server() && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      codec.block_of_ = &codec.Open(static_cast<MessageId>(frame->hd.stream_id));
      nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, codec.block_of_);
    } else {
      codec.block_of_ = MessageOf(session, frame->hd.stream_id);
    }
    return 0;
  }

  static int OnHeader(nghttp2_session*, const nghttp2_frame*, nghttp2_rcbuf* name, nghttp2_rcbuf* value,
                      uint8_t, void* user_data) {
    H2Codec& codec = Of(user_data);
    H2Message* const message = codec.block_of_;
    if (message == nullptr) return 0;
    const bool over = codec.head_.over_limit();
    codec.head_.Add(View(name), View(value), message->arena, message->count);
    return over ? codec.OnGlitch() : 0;   // What goes on past a limit costs us work all the same.
  }

  // A field that nghttp2 would only leave out: the message is malformed.
  static int OnInvalidHeader(nghttp2_session*, const nghttp2_frame*, nghttp2_rcbuf*, nghttp2_rcbuf*,
                             uint8_t, void*) {
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    H2Codec& codec = Of(user_data);
    if (frame->hd.type == NGHTTP2_GOAWAY && !std::exchange(codec.goaway_, true)) {
      codec.Note(H2Codec::Event::Kind::kGoAway, nullptr);
    }
    if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
      codec.settled_ = true;
    }
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    H2Message* const message = MessageOf(session, frame->hd.stream_id);
    if (message == nullptr || message->over) return 0;
    const bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_HEADERS) codec.OnHead(*message, end_stream);
    if (end_stream && !message->over) codec.OnEndStream(*message);
    return 0;
  }

  static int OnInvalidFrame(nghttp2_session*, const nghttp2_frame*, int, void* user_data) {
    return Of(user_data).OnGlitch();
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t stream, const uint8_t* data,
                    size_t size, void* user_data) {
    H2Codec& codec = Of(user_data);
    if (nghttp2_session_consume_connection(session, size) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    H2Message* const message = MessageOf(session, stream);
    // Past a window nghttp2 resets the stream, but tells of the bytes all the same.
    const uint32_t window =
        nghttp2_session_get_local_settings(session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    if (message == nullptr || message->over || message->refused ||
        message->unconsumed + size > window) {
      nghttp2_session_consume_stream(session, stream, size);
      return 0;
    }
    codec.chunk_of_ = message;
    codec.chunk_ = {reinterpret_cast<const char*>(data), size};
    return NGHTTP2_ERR_PAUSE;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t error_code,
                           void* user_data) {
    if (H2Message* const message = MessageOf(session, stream)) {
      Of(user_data).OnStreamClosed(*message, error_code);
    }
    return 0;
  }

  static int OnSent(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    H2Codec& codec = Of(user_data);
    // Of its own accord nghttp2 never says SETTINGS_TIMEOUT.
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR &&
        frame->goaway.error_code != NGHTTP2_SETTINGS_TIMEOUT) {
      codec.FailAsSent(frame->goaway.error_code);
    }
    codec.OnFrameSent(frame->hd.type, static_cast<MessageId>(frame->hd.stream_id),
                      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
    return 0;
  }

  static int OnNotSent(nghttp2_session*, const nghttp2_frame* frame, int, void* user_data) {
    H2Codec& codec = Of(user_data);
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    H2Message* const message = codec.Find(static_cast<MessageId>(frame->hd.stream_id));
    if (message != nullptr) codec.OnStreamClosed(*message, NGHTTP2_REFUSED_STREAM);
    return 0;
  }

  static int SendData(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* head,
                      size_t size, nghttp2_data_source*, void* user_data) {
    H2Message* const message = MessageOf(session, frame->hd.stream_id);
    if (message == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    constexpr size_t kHead = H2FrameHead::kSize;
    Of(user_data).WriteFrame(*message, {reinterpret_cast<const char*>(head), kHead}, size);
    return 0;
  }

  static const nghttp2_session_callbacks* All() {
    static const nghttp2_session_callbacks* const all = [] {
      nghttp2_session_callbacks* made = nullptr;
      CHECK(nghttp2_session_callbacks_new(&made) == 0);
      nghttp2_session_callbacks_set_on_begin_headers_callback(made, BeginHeaders);
      nghttp2_session_callbacks_set_on_header_callback2(made, OnHeader);
      nghttp2_session_callbacks_set_on_invalid_header_callback2(made, OnInvalidHeader);
      nghttp2_session_callbacks_set_on_frame_recv_callback(made, OnFrame);
      nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(made, OnInvalidFrame);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, OnData);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, OnStreamClose);
      nghttp2_session_callbacks_set_on_frame_send_callback(made, OnSent);
      nghttp2_session_callbacks_set_on_frame_not_send_callback(made, OnNotSent);
      nghttp2_session_callbacks_set_send_data_callback(made, SendData);
      return made;
    }();
    return all;
  }
};

std::unique_ptr<Codec> MakeH2Codec(CodecRole role, CodecReceiver& receiver,
                                   const CodecLimits& limits) {
  return std::make_unique<H2Codec>(role, receiver, limits);
}

H2Codec::H2Codec(CodecRole role, CodecReceiver& receiver, const CodecLimits& limits)
    : role_(role),
      receiver_(receiver),
      limits_(limits),
      scan_(role == CodecRole::kServer ? kPreface : 0),
      flood_(limits.h2, role == CodecRole::kServer),
      head_(limits) {
  nghttp2_option* option = nullptr;
  CHECK(nghttp2_option_new(&option) == 0);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_deflate_dynamic_table_size(option, limits_.h2.table_bytes);
  nghttp2_option_set_max_outbound_ack(option, limits_.h2.control_frames + 1);
  // Ours come first (h2_flood.h), and that of resets would go by a clock.
  constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();
  nghttp2_option_set_max_settings(option, kNoLimit);
  nghttp2_option_set_max_continuations(option, kNoLimit);
  nghttp2_option_set_stream_reset_rate_limit(option, kNoLimit, kNoLimit);
  const auto make = server() ? nghttp2_session_server_new3 : nghttp2_session_client_new3;
  CHECK(make(&session_, H2Callbacks::All(), this, option, H2Memory()) == 0);
  nghttp2_option_del(option);
  Announce();
}

H2Codec::~H2Codec() { nghttp2_session_del(session_); }

void H2Codec::Announce() {
  const H2Limits& h2 = limits_.h2;
  std::array<nghttp2_settings_entry, 4> settings;
  size_t count = 0;
  settings[count++] = server() ? nghttp2_settings_entry{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                                        h2.concurrent_streams}
                               : nghttp2_settings_entry{NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  settings[count++] = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, h2.stream_window};
  settings[count++] = {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                       static_cast<uint32_t>(limits_.header_bytes)};
  if (h2.table_bytes != NGHTTP2_DEFAULT_HEADER_TABLE_SIZE) {
    settings[count++] = {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, h2.table_bytes};
  }
  CHECK(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), count) == 0);
  CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                              static_cast<int32_t>(h2.connection_window)) == 0);
}

// Not 0: parsing stops at this byte.
int H2Codec::OnGlitch() {
  const std::string_view word = flood_.OnGlitch();
  if (word.empty()) return 0;
  flood_word_ = word;
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

void H2Codec::OnHead(H2Message& message, bool end_stream) {
  if (message.head_read) return OnTrailers(message);
  if (server()) return OnRequestHead(message, end_stream);
  OnResponseHead(message, end_stream);
}

void H2Codec::OnRequestHead(H2Message& message, bool end_stream) {
  message.head_read = true;
  std::optional<ProtocolError> error = head_.ReadRequest(message.request, end_stream, message.arena);
  message.to_head = head_.method() == "HEAD";
  if (!error) return Note(Event::Kind::kRequest, &message);
  message.refused = true;
  message.refusal = *std::move(error);
  Note(Event::Kind::kRefused, &message);
}

void H2Codec::OnResponseHead(H2Message& message, bool end_stream) {
  const bool interim = head_.status() >= 100 && head_.status() < 200;
  const std::span<ResponseHead> head = message.arena.Array<ResponseHead>(1);
  if (head.empty() || (interim && ++message.interim_count > kInterimMax)) {
    return GiveUpOn(message, NGHTTP2_ENHANCE_YOUR_CALM);
  }
  if (head_.ReadResponse(head[0], end_stream, message.to_head, message.arena)) {
    return GiveUpOn(message, head_.over_limit() ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
  }
  message.head_read = !interim;
  events_.push_back({interim ? Event::Kind::kInterim : Event::Kind::kResponse, &message, &head[0]});
}

void H2Codec::OnTrailers(H2Message& message) {
  if (message.refused) return;
  const std::optional<std::span<Header>> trailers = head_.ReadTrailers(message.arena);
  if (!trailers) return GiveUpOn(message, NGHTTP2_ENHANCE_YOUR_CALM);
  message.trailers = *trailers;
}

void H2Codec::OnEndStream(H2Message& message) {
  message.read_over = true;
  if (!message.refused) Note(Event::Kind::kEnd, &message);
}

// The peer asked for it: counted against it when the reset is sent.
void H2Codec::GiveUpOn(H2Message& message, uint32_t error_code) {
  message.over = true;
  message.error_code = error_code;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(message.id), error_code);
  Note(Event::Kind::kReset, &message);
}

void H2Codec::OnStreamClosed(H2Message& message, uint32_t error_code) {
  if (std::exchange(message.closed, true)) return;
  --open_, ++closed_;
  const size_t lost = message.unsent.size();
  message.unsent.Clear();
  if (std::exchange(message.over, true)) return;
  const bool done = server() ? message.writing == H2Message::Writing::kSent : message.read_over;
  if (done) return;
  message.lost = lost;
  message.error_code = error_code;
  Note(Event::Kind::kReset, &message);
}

void H2Codec::OnFrameSent(uint8_t type, MessageId id, bool end_stream) {
  std::string_view word = flood_.OnFrameWritten(type == NGHTTP2_DATA);
  const bool ends = end_stream && (type == NGHTTP2_DATA || type == NGHTTP2_HEADERS);
  if (ends || type == NGHTTP2_RST_STREAM) {
    H2Message* const message = Find(id);
    if (type == NGHTTP2_RST_STREAM) {
      if ((message == nullptr || !message->reset_ours) && word.empty()) word = flood_.OnResetSent();
    } else if (message != nullptr) {
      message->writing = H2Message::Writing::kSent;
      // Whoever has the whole answer need not send the rest of the request.
      if (server() && !message->read_over) SubmitReset(*message, NGHTTP2_NO_ERROR);
    }
  }
  if (flood_word_.empty()) flood_word_ = word;
}

}  // namespace penstock
