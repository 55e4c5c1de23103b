// What one callback of a loop leaves for its end: bytes to write and objects to
// delete. Whoever is called by the loop (a read, a timer, a posted task) opens a
// Turn::Scope; when the outermost one closes, every writer that gathered bytes
// writes them with one system call and buried objects are destroyed. So nobody
// deletes what is still on the stack, and an event that fans out to several
// connections costs each of them one write.
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
  void Drop();

 private:
  friend class Turn;
  void Finish();

  Turn& turn_;
  Stream* stream_ = nullptr;
  void* owner_ = nullptr;
  void (*last_)(void* owner, Gather& out) = nullptr;
  Gather* gather_ = nullptr;  // Borrowed from the turn while it holds bytes.
};

class Turn {
 public:
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
  std::vector<Writer*> dirty_;
  std::vector<std::unique_ptr<Gather>> gathers_;  // All there are.
  std::vector<Gather*> spare_;
  std::vector<Grave> graves_;
};

}  // namespace penstock
