// What a variable of a chat template holds. Values are shared and never
// change, so that copying one is cheap and a cycle cannot be built; the one
// exception, a namespace, is emptied by the interpreter that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace penstock::engine::jinja {

class Value;
class Dict;
struct Callable;
struct Loop;
using Values = std::vector<Value>;

class Value {
 public:
  enum class Kind {
    kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kTuple, kDict, kNamespace, kLoop,
    kCallable
  };

  Value() = default;  // Undefined.
  // `why` is what a use of it says: "'x' is undefined".
  static Value Undefined(std::string why);
  static Value None();
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Float(double value);
  static Value String(std::string value);
  static Value List(Values items);
  static Value Tuple(Values items);
  static Value Of(Dict dict);
  static Value Of(std::shared_ptr<Dict> name_space);  // A namespace.
  static Value Of(std::shared_ptr<Loop> loop);
  static Value Of(Callable callable);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool Is(Kind kind) const { return this->kind() == kind; }
  bool is_string() const { return Is(Kind::kString); }
  bool is_list() const { return Is(Kind::kList) || Is(Kind::kTuple); }
  bool is_dict() const { return Is(Kind::kDict); }
  bool is_undefined() const { return Is(Kind::kUndefined); }
  bool is_none() const { return Is(Kind::kNone); }
  bool is_integer() const { return Is(Kind::kInt) || Is(Kind::kBool); }  // As in Python.
  bool is_number() const { return is_integer() || Is(Kind::kFloat); }

  // REQUIRES of each: the kind it names.
  const std::string& string() const;
  const Values& items() const;      // List or tuple.
  const Dict& dict() const;         // Dict or namespace.
  Dict& name_space() const;
  const Callable& callable() const;
  Loop& loop() const;
  int64_t integer() const;          // Int or bool.
  double number() const;            // Any number.
  std::string undefined_why() const;

  bool Truthy() const;

  // How deeply it is nested: 0 for a scalar.
  int depth() const;
  // Of elements or bytes; 0 for scalars.
  size_t size() const;

  // "str", "int", "dict" ..., for messages.
  std::string_view type_name() const;

  // Whether both are the same object or the same scalar.
  bool Same(const Value& other) const;

 private:
  struct Sequence;
  struct UndefinedData { std::shared_ptr<const std::string> why; };
  struct NoneData {};
  struct ListRef { std::shared_ptr<const Sequence> data; };
  struct TupleRef { std::shared_ptr<const Sequence> data; };
  struct NamespaceRef { std::shared_ptr<Dict> data; };

  // In the order of Kind.
  std::variant<UndefinedData, NoneData, bool, int64_t, double, std::shared_ptr<const std::string>,
               ListRef, TupleRef, std::shared_ptr<const Dict>, NamespaceRef,
               std::shared_ptr<Loop>, std::shared_ptr<const Callable>>
      data_;
};

// A dictionary in the order of insertion. Keys are strings, numbers, booleans
// and None.
class Dict {
 public:
  static bool CanBeKey(const Value& key);

  // REQUIRES: CanBeKey(key).
  void Set(const Value& key, Value value);
  void Set(std::string_view key, Value value);
  const Value* Find(const Value& key) const;  // Null too where it cannot be a key.
  const Value* Find(std::string_view key) const;
  const std::vector<std::pair<Value, Value>>& items() const { return items_; }
  int depth() const { return depth_; }
  void Clear();

 private:
  std::vector<std::pair<Value, Value>> items_;
  absl::flat_hash_map<std::string, size_t> index_;
  int depth_ = 1;
};

// str() and repr(). Stop adding once `out` has more than `bytes_max`, so that
// a small value that prints as a huge text costs only that much.
void AppendStr(const Value& value, std::string& out, size_t bytes_max);
void AppendRepr(const Value& value, std::string& out, size_t bytes_max);

}  // namespace penstock::engine::jinja
