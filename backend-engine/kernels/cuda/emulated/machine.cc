// Threads of a kernel as fibers: each has a stack and gives the processor away
// only where it waits. A warp runs until all its lanes wait, then the next one;
// a barrier opens when everybody who is not done stands at it.
#include "backend-engine/kernels/cuda/emulated/machine.h"

#include <sys/mman.h>
#include <ucontext.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace penstock::engine::emulated {

__thread Thread* current = nullptr;

namespace {

constexpr size_t kStackBytes = 256 << 10;
std::atomic<unsigned> thread_order{0};

std::mutex kernels_mutex;
std::set<const void*> loaded;  // Kernels.
int launched_unloaded = 0;

[[noreturn]] void Die(const char* what) {
  const Thread* at = current;
  std::fprintf(stderr, "emulated GPU: %s (block %u %u, thread %u)\n", what,
               at != nullptr ? at->block.x : 0, at != nullptr ? at->block.y : 0,
               at != nullptr ? at->thread.x : 0);
  std::abort();
}

#if defined(__x86_64__)
// Saves what a call must preserve on the stack, leaves its top in *from, and
// goes on where `to` was left.
extern "C" void penstock_emulated_switch(void** from, void* to);
asm(R"(
.pushsection .text
.globl penstock_emulated_switch
.type penstock_emulated_switch, @function
penstock_emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size penstock_emulated_switch, .-penstock_emulated_switch
.popsection
)");

class Context {
 public:
  void Prepare(std::byte* stack, size_t bytes, void (*entry)()) {
    auto* top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // Keeps the stack as a call would leave it.
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    top_ = top;
  }
  static void Switch(Context& from, Context& to) { penstock_emulated_switch(&from.top_, to.top_); }

 private:
  void* top_ = nullptr;
};
#else
class Context {
 public:
  void Prepare(std::byte* stack, size_t bytes, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  static void Switch(Context& from, Context& to) { swapcontext(&from.context_, &to.context_); }

 private:
  ucontext_t context_;
};
#endif

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Fiber {
  Thread thread;
  Context context;
  State state = State::kDone;
  unsigned exchanges = 0;  // Of this thread so far: which half of its warp's slots is next.
};

struct Warp {
  alignas(16) std::byte slots[2][kWarp * kSlotBytes];
};

// The machine of one host thread.
class Machine {
 public:
  ~Machine() {
    if (stacks_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
    // Fibers end without leaving their frames, whose red zones would lie in whatever the
    // system puts at these addresses next: a thread, say.
    ASAN_UNPOISON_MEMORY_REGION(stacks_, kStackBytes * kThreadsMax);
#endif
    munmap(stacks_, kStackBytes * kThreadsMax);
  }

  void RunGrid(dim3 grid, int threads, size_t shared_bytes, const std::function<void()>& body) {
    if (threads < 1 || threads > kThreadsMax) Die("a block has 1 to 1024 threads");
    if (grid.x < 1 || grid.y < 1 || grid.z < 1) Die("an empty grid");
    if (grid.y > 65535 || grid.z > 65535) Die("a grid has at most 65535 blocks in y and z");
    if (shared_bytes > kSharedBytesMax) Die("more shared memory than a GPU has");
    Reserve(threads);
    body_ = &body;
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          // Of exactly this size, so that AddressSanitizer sees a step beyond it.
          shared_.reset(static_cast<unsigned char*>(
              std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16 + 16)));
          std::memset(shared_.get(), 0xff, shared_bytes);
          RunBlock(dim3(x, y, z), grid, threads);
        }
      }
    }
    body_ = nullptr;
  }

  void Wait(State state) {
    running_->state = state;
    Context::Switch(running_->context, scheduler_);
  }

  const std::byte* ExchangeSlot(const void* mine, size_t bytes) {
    Fiber* self = running_;
    const unsigned lane = self->thread.thread.x % kWarp;
    std::byte* half = warps_[self->thread.thread.x / kWarp].slots[self->exchanges++ % 2];
    std::memcpy(half + lane * kSlotBytes, mine, bytes);
    Wait(State::kAtWarp);
    return half;
  }

  unsigned char* shared() { return shared_.get(); }

 private:
  static constexpr int kThreadsMax = 1024;
  static constexpr size_t kSharedBytesMax = 227 << 10;

  static void Entry();

  void Reserve(int threads) {
    if (stacks_ == nullptr) {
      void* memory = mmap(nullptr, kStackBytes * kThreadsMax, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) Die("no memory for stacks");
      stacks_ = static_cast<std::byte*>(memory);
      fibers_ = std::vector<Fiber>(kThreadsMax);
      warps_ = std::vector<Warp>(kThreadsMax / kWarp);
    }
    threads_ = threads;
    order_.resize(static_cast<size_t>(threads));
  }

  void RunBlock(dim3 block, dim3 grid, int threads) {
    for (int i = 0; i < threads; ++i) {
      Fiber& fiber = fibers_[static_cast<size_t>(i)];
      fiber.thread.thread = dim3(static_cast<unsigned>(i));
      fiber.thread.block = block;
      fiber.thread.block_size = dim3(static_cast<unsigned>(threads));
      fiber.thread.grid_size = grid;
      fiber.thread.copies.clear();
      fiber.thread.groups.clear();
      fiber.state = State::kReady;
      fiber.exchanges = 0;
      fiber.context.Prepare(stacks_ + static_cast<size_t>(i) * kStackBytes, kStackBytes, &Entry);
    }
    Order();
    while (true) {
      bool done = true;
      for (int first = 0; first < threads; first += kWarp) {
        done = RunWarp(first, std::min(threads, first + kWarp)) && done;
      }
      if (done) return;
      OpenBarrier();
    }
  }

  // Runs the warp's lanes until each stands at the block's barrier or is done; true: all are done.
  bool RunWarp(int first, int end) {
    while (true) {
      bool all_at_warp = true, any_at_warp = false, all_done = true, any_ready = false;
      for (int i = first; i < end; ++i) {
        Fiber& fiber = fibers_[order_[static_cast<size_t>(i)]];
        if (fiber.state == State::kReady) {
          running_ = &fiber;
          current = &fiber.thread;
          Context::Switch(scheduler_, fiber.context);
        }
        any_ready |= fiber.state == State::kReady;
        any_at_warp |= fiber.state == State::kAtWarp;
        all_at_warp &= fiber.state == State::kAtWarp;
        all_done &= fiber.state == State::kDone;
      }
      if (any_ready) continue;
      if (!any_at_warp) return all_done;
      if (!all_at_warp) Die("a warp's exchange that some of its lanes do not come to");
      for (int i = first; i < end; ++i) fibers_[static_cast<size_t>(i)].state = State::kReady;
    }
  }

  // CUDA lets threads that have ended be missing; we are stricter: nobody leaves early.
  void OpenBarrier() {
    for (int i = 0; i < threads_; ++i) {
      if (fibers_[static_cast<size_t>(i)].state != State::kAtBlock) {
        Die("a barrier that some threads of the block do not come to");
      }
    }
    for (int i = 0; i < threads_; ++i) fibers_[static_cast<size_t>(i)].state = State::kReady;
    Order();
  }

  // Lanes stay in their warp, whose place in the list is fixed.
  void Order() {
    std::iota(order_.begin(), order_.end(), size_t{0});
    const unsigned seed = thread_order.load();
    if (seed == 0) return;
    for (size_t first = 0; first < order_.size(); first += kWarp) {
      const auto begin = order_.begin() + static_cast<std::ptrdiff_t>(first);
      const auto end = order_.begin() +
                       static_cast<std::ptrdiff_t>(std::min(order_.size(), first + kWarp));
      if (seed == 1) {
        std::reverse(begin, end);
      } else {
        std::shuffle(begin, end, random_);
      }
    }
  }

  struct Release {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };

  std::byte* stacks_ = nullptr;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<size_t> order_;
  std::unique_ptr<unsigned char, Release> shared_;
  const std::function<void()>* body_ = nullptr;
  Context scheduler_;
  Fiber* running_ = nullptr;
  int threads_ = 0;
  std::mt19937 random_{thread_order.load()};
};

Machine& ThisMachine() {
  thread_local Machine machine;
  return machine;
}

void Machine::Entry() {
  Machine& machine = ThisMachine();
  (*machine.body_)();
  if (!current->copies.empty()) Die("a thread ends before its copies have come");
  machine.Wait(State::kDone);
  Die("a thread that was done ran on");
}

}  // namespace

void NoteLoaded(const void* kernel) {
  const std::lock_guard lock(kernels_mutex);
  loaded.insert(kernel);
}

void NoteLaunched(const void* kernel) {
  const std::lock_guard lock(kernels_mutex);
  launched_unloaded += loaded.count(kernel) == 0 ? 1 : 0;
}

int LaunchedUnloaded() {
  const std::lock_guard lock(kernels_mutex);
  return launched_unloaded;
}

void SetThreadOrder(unsigned seed) { thread_order.store(seed); }

void Run(dim3 grid, int threads, size_t shared_bytes, cuda::Stream stream,
         std::function<void()> body) {
  Perform(stream, [=, body = std::move(body)] {
    ThisMachine().RunGrid(grid, threads, shared_bytes, body);
  });
}

unsigned char* SharedBytes() { return ThisMachine().shared(); }
void BlockBarrier() { ThisMachine().Wait(State::kAtBlock); }
void Yield() { ThisMachine().Wait(State::kReady); }
const std::byte* Exchange(const void* mine, size_t bytes) {
  return ThisMachine().ExchangeSlot(mine, bytes);
}

}  // namespace penstock::engine::emulated

namespace penstock::engine::cuda {
namespace {

// Row r of matrix i, as lane 8i + r gave its address.
const uint16_t* RowOf(const std::byte* addresses, int matrix, int row) {
  const void* at;
  std::memcpy(&at, addresses + static_cast<size_t>(8 * matrix + row) * emulated::kSlotBytes,
              sizeof at);
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) std::abort();
  return static_cast<const uint16_t*>(at);
}

}  // namespace

void LoadMatrices(uint32_t (&to)[4], const void* row) {
  const std::byte* addresses = emulated::Exchange(&row, sizeof row);
  const int lane = emulated::Lane();
  for (int matrix = 0; matrix < 4; ++matrix) {
    const uint16_t* pair = RowOf(addresses, matrix, lane / 4) + lane % 4 * 2;
    to[matrix] = pair[0] | (uint32_t{pair[1]} << 16);
  }
}

void LoadTransposed(uint32_t (&to)[4], const void* row) {
  const std::byte* addresses = emulated::Exchange(&row, sizeof row);
  const int lane = emulated::Lane();
  for (int matrix = 0; matrix < 4; ++matrix) {
    const uint16_t low = RowOf(addresses, matrix, lane % 4 * 2)[lane / 4];
    const uint16_t high = RowOf(addresses, matrix, lane % 4 * 2 + 1)[lane / 4];
    to[matrix] = low | (uint32_t{high} << 16);
  }
}

void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const std::byte* all = emulated::Exchange(mine, sizeof mine);
  const int g = emulated::Lane() / 4, t = emulated::Lane() % 4;
  const auto half = [&](int lane, int word, int which) {
    uint32_t pair;
    std::memcpy(&pair, all + static_cast<size_t>(lane) * emulated::kSlotBytes +
                           static_cast<size_t>(word) * 4, 4);
    return FloatFromBf16(static_cast<uint16_t>(pair >> (16 * which)));
  };
  for (int row = 0; row < 2; ++row) {
    for (int col = 0; col < 2; ++col) {
      float total = 0;
      for (int k = 0; k < 16; ++k) {
        const int owner = k % 8 / 2;
        total += half(g * 4 + owner, row + k / 8 * 2, k % 2) *
                 half((2 * t + col) * 4 + owner, 4 + k / 8, k % 2);
      }
      sum[row * 2 + col] += total;
    }
  }
}

}  // namespace penstock::engine::cuda
