// What one callback of a loop leaves for its end: bytes to write and objects to
// delete. Whoever is called by the loop (a read, a timer, a posted task) opens a
// Turn::Scope; when the outermost one closes, every writer that gathered bytes
// writes them with one system call and buried objects are destroyed. So nobody
// deletes what is still on the stack, and an event that fans out to several
// connections costs each of them one write.
//
// Where somebody writes what is held before the loop waits (Turn::Hold), bytes that are the
// gather's own, as small ones are, wait until then; what points at bytes of others goes out
// when the turn ends. All callbacks of one poll then cost a connection one write; and who
// waits for these bytes on this machine is woken when the loop has read what there is, not
// in between: each wake-up may take the processor from it.
//
// Threads: one Turn a loop, on that loop's thread only.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "proxy/base/gather.h"
#include "proxy/net/stream.h"

namespace penstock {

class Turn;

// The writing side of one connection. Destroying it drops what is gathered.
class Writer {
 public:
  explicit Writer(Turn& turn) : turn_(turn) {}
  ~Writer() { Drop(); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void Attach(Stream& stream) { stream_ = &stream; }
  // Called once more at the end of each turn in which out() was, before the bytes are
  // written: the moment to add what is due without anybody's asking.
  void AtEnd(void* owner, void (*last)(void* owner, Gather& out)) {
    owner_ = owner;
    last_ = last;
  }
  // Bytes put here are written when the turn ends. REQUIRES: inside a Scope.
  Gather& out();
  // Gathered and buffered: what back pressure is decided on.
  size_t pending() const { return (gather_ ? gather_->size() : 0) + stream_->buffered(); }
  void Flush();
  // What this turn has gathered is not written; what earlier ones left is.
  void Drop();

 private:
  friend class Turn;
  void Finish();
  bool Hold();
  void Release();
  void Unmark();

  Turn& turn_;
  Stream* stream_ = nullptr;
  void* owner_ = nullptr;
  void (*last_)(void* owner, Gather& out) = nullptr;
  Gather* gather_ = nullptr;  // Borrowed from the turn while it holds bytes.
  size_t held_ = 0;           // At its front: left by earlier turns; then this is in Turn::held_.
  bool marked_ = false;       // In Turn::dirty_.
};

class Turn {
 public:
  // Connections that hold bytes at once: when one more comes, these write.
  static constexpr size_t kHeldMax = 32;

  Turn() = default;
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  class Scope {
   public:
    explicit Scope(Turn& turn) : turn_(turn) { ++turn_.depth_; }
    ~Scope() {
      if (turn_.depth_ == 1) turn_.Finish();
      --turn_.depth_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Turn& turn_;
  };

  // Whoever calls this sees to WriteHeld() before the loop waits (Loop::BeforeWait).
  void Hold() { may_hold_ = true; }
  void WriteHeld();

  // Destroys `object` when the turn ends. REQUIRES: inside a Scope.
  template <typename T>
  void Bury(std::unique_ptr<T> object) {
    if (object) Defer(object.release(), [](void* buried) { delete static_cast<T*>(buried); });
  }
  // Calls `last(object)` when the turn ends. REQUIRES: inside a Scope.
  void Defer(void* object, void (*last)(void*)) { graves_.push_back({object, last}); }

 private:
  friend class Writer;
  struct Grave {
    void* object;
    void (*destroy)(void*);
  };
  void Finish();

  int depth_ = 0;
  bool may_hold_ = false;
  std::vector<Writer*> dirty_;
  std::vector<Writer*> held_;
  std::vector<std::unique_ptr<Gather>> gathers_;  // All there are.
  std::vector<Gather*> spare_;
  std::vector<Grave> graves_;
};

}  // namespace penstock
