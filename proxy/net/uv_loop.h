// The one Loop: libuv turned into our contracts. Private to proxy/net, as is
// every header here that includes uv.h.
//
// A turn is one poll and its callbacks. The clock is read once a turn, when the
// first callback asks (Enter()). Deadlines and timers fire in the check phase,
// after the I/O of the turn; one uv timer only bounds the poll. Work that must
// not run inside a call of its caller (a failed write, a refused dial) is
// deferred to the end of the same turn.
#pragma once

#include <uv.h>

#include <array>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/net/loop.h"

namespace penstock {

class UvLoop final : public Loop {
 public:
  static constexpr size_t kReadBuffer = 64 * 1024;

  UvLoop();
  ~UvLoop() override;

  void Run() override;
  void Stop() override;
  bool Post(Task task) override;

  MonoTime now() const override { return Refresh(); }
  absl::Time wall_now() const override;
  MonoTime ReadClock() const override;
  void BeforeWait(Task task) override { before_wait_ = std::move(task); }
  TimerQueue& timers() override { return Refresh(), timers_; }
  DeadlineWheel& deadlines() override { return Refresh(), deadlines_; }
  Dialer& dialer() override { return *dialer_; }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Address& address,
                                                   AcceptCallback on_accept) override;
  std::unique_ptr<Listener> Listen(ListeningSocket socket, AcceptCallback on_accept) override;
  std::unique_ptr<ReadableWatch> OnReadable(int descriptor, Task task) override;
  std::unique_ptr<SignalWatch> OnSignal(int signal, Task task) override;
  void Offload(Task work, Task done) override;
  void Resolve(std::string_view host, uint16_t port,
               absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)> done) override;

  // --- for the rest of proxy/net ---
  uv_loop_t* uv() { return &uv_; }
  // The first thing in every libuv callback: makes now() that of this turn.
  void Enter() { Refresh(); }
  // Runs at the end of this turn, never inside this call.
  void Defer(Task task) { deferred_.push_back(std::move(task)); }
  // Shared by all streams: a read is parsed or copied before the next one.
  uv_buf_t read_buffer() { return uv_buf_init(read_buffer_.data(), kReadBuffer); }
  bool ending() const { return ending_; }

 private:
  MonoTime Refresh() const;
  void BeforePoll();
  void AfterPoll();
  void RunPosted();

  uv_loop_t uv_;
  uv_async_t wake_;
  uv_prepare_t prepare_;
  uv_check_t check_;
  uv_idle_t idle_;        // Runs only while deferred work waits, so that the poll does not block.
  uv_timer_t timer_;
  MonoTime armed_for_ = kNever;
  MonoTime held_until_ = 0;  // Deadlines wait until then; 0: for nothing.

  mutable bool stale_ = true;
  mutable MonoTime now_ = 0;
  mutable TimerQueue timers_;
  mutable DeadlineWheel deadlines_;
  std::unique_ptr<Dialer> dialer_;
  Task before_wait_;
  std::vector<Task> deferred_;
  std::vector<Task> deferred_running_;
  bool ending_ = false;

  std::mutex mutex_;                // Guards the four below.
  std::vector<Task> posted_;
  bool wake_sent_ = false;
  bool stop_ = false;
  bool ended_ = false;
  std::vector<Task> posted_running_;

  std::array<char, kReadBuffer> read_buffer_;
};

std::unique_ptr<Dialer> MakeUvDialer(UvLoop& loop);
std::unique_ptr<Listener> MakeUvListener(UvLoop& loop, ListeningSocket socket,
                                         Loop::AcceptCallback on_accept);

}  // namespace penstock
