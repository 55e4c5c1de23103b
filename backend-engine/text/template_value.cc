#include "backend-engine/text/template_value.h"

#include <algorithm>

#include <fmt/format.h>

#include "backend-engine/text/template_ast.h"
#include "backend-engine/text/template_interpreter.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {

struct Value::Sequence {
  Values items;
  int depth = 1;

  static std::shared_ptr<const Sequence> Make(Values items) {
    auto data = std::make_shared<Sequence>();
    for (const Value& item : items) data->depth = std::max(data->depth, item.depth() + 1);
    data->items = std::move(items);
    return data;
  }
};

Value Value::Undefined(std::string why) {
  Value out;
  out.data_ = UndefinedData{std::make_shared<const std::string>(std::move(why))};
  return out;
}

Value Value::None() {
  Value out;
  out.data_ = NoneData{};
  return out;
}

Value Value::Bool(bool value) {
  Value out;
  out.data_ = value;
  return out;
}

Value Value::Int(int64_t value) {
  Value out;
  out.data_ = value;
  return out;
}

Value Value::Float(double value) {
  Value out;
  out.data_ = value;
  return out;
}

Value Value::String(std::string value) {
  Value out;
  out.data_ = std::make_shared<const std::string>(std::move(value));
  return out;
}

Value Value::List(Values items) {
  Value out;
  out.data_ = ListRef{Sequence::Make(std::move(items))};
  return out;
}

Value Value::Tuple(Values items) {
  Value out;
  out.data_ = TupleRef{Sequence::Make(std::move(items))};
  return out;
}

Value Value::Of(Dict dict) {
  Value out;
  out.data_ = std::shared_ptr<const Dict>(std::make_shared<Dict>(std::move(dict)));
  return out;
}

Value Value::Of(std::shared_ptr<Dict> name_space) {
  Value out;
  out.data_ = NamespaceRef{std::move(name_space)};
  return out;
}

Value Value::Of(std::shared_ptr<Loop> loop) {
  Value out;
  out.data_ = std::move(loop);
  return out;
}

Value Value::Of(Callable callable) {
  Value out;
  out.data_ = std::shared_ptr<const Callable>(std::make_shared<Callable>(std::move(callable)));
  return out;
}

const std::string& Value::string() const {
  return *std::get<std::shared_ptr<const std::string>>(data_);
}

const Values& Value::items() const {
  return Is(Kind::kList) ? std::get<ListRef>(data_).data->items
                         : std::get<TupleRef>(data_).data->items;
}

const Dict& Value::dict() const {
  return Is(Kind::kDict) ? *std::get<std::shared_ptr<const Dict>>(data_) : name_space();
}

Dict& Value::name_space() const { return *std::get<NamespaceRef>(data_).data; }
const Callable& Value::callable() const {
  return *std::get<std::shared_ptr<const Callable>>(data_);
}
Loop& Value::loop() const { return *std::get<std::shared_ptr<Loop>>(data_); }

int64_t Value::integer() const {
  return Is(Kind::kBool) ? int64_t{std::get<bool>(data_)} : std::get<int64_t>(data_);
}

double Value::number() const {
  return Is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(integer());
}

std::string Value::undefined_why() const {
  const auto& why = std::get<UndefinedData>(data_).why;
  return why == nullptr ? "value is undefined" : *why;
}

bool Value::Truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return number() != 0;
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return size() > 0;
    default:
      return true;
  }
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kList:
      return std::get<ListRef>(data_).data->depth;
    case Kind::kTuple:
      return std::get<TupleRef>(data_).data->depth;
    case Kind::kDict:
      return dict().depth();
    case Kind::kLoop:
      return loop().depth_of_items + 1;
    case Kind::kCallable:
      return callable().self.depth() + 1;
    default:
      return 0;  // A namespace too: it is emptied, not destroyed in depth.
  }
}

size_t Value::size() const {
  switch (kind()) {
    case Kind::kString:
      return string().size();
    case Kind::kList:
    case Kind::kTuple:
      return items().size();
    case Kind::kDict:
      return dict().items().size();
    default:
      return 0;
  }
}

std::string_view Value::type_name() const {
  static constexpr std::string_view kNames[] = {
      "Undefined", "NoneType", "bool", "int", "float", "str", "list", "tuple", "dict",
      "Namespace", "LoopContext", "function"};
  return kNames[data_.index()];
}

bool Value::Same(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return integer() == other.integer();
    case Kind::kFloat:
      return number() == other.number();
    case Kind::kString:
      return &string() == &other.string();
    case Kind::kList:
    case Kind::kTuple:
      return &items() == &other.items();
    case Kind::kDict:
    case Kind::kNamespace:
      return &dict() == &other.dict();
    case Kind::kLoop:
      return &loop() == &other.loop();
    case Kind::kCallable:
      return &callable() == &other.callable();
  }
  return false;
}

namespace {

// Python's hash makes 1, 1.0 and True one key.
std::string IndexKey(const Value& key) {
  if (key.is_string()) return "s" + key.string();
  if (key.is_none()) return "none";
  return "n" + FloatRepr(key.number());
}

}  // namespace

bool Dict::CanBeKey(const Value& key) {
  return key.is_string() || key.is_none() || key.is_number();
}

void Dict::Set(const Value& key, Value value) {
  depth_ = std::max(depth_, value.depth() + 1);
  const auto [entry, fresh] = index_.try_emplace(IndexKey(key), items_.size());
  if (fresh) {
    items_.emplace_back(key, std::move(value));
  } else {
    items_[entry->second].second = std::move(value);
  }
}

void Dict::Set(std::string_view key, Value value) {
  Set(Value::String(std::string(key)), std::move(value));
}

const Value* Dict::Find(const Value& key) const {
  if (!CanBeKey(key)) return nullptr;
  const auto found = index_.find(IndexKey(key));
  return found == index_.end() ? nullptr : &items_[found->second].second;
}

const Value* Dict::Find(std::string_view key) const {
  const auto found = index_.find("s" + std::string(key));
  return found == index_.end() ? nullptr : &items_[found->second].second;
}

void Dict::Clear() {
  items_.clear();
  index_.clear();
}

void AppendStr(const Value& value, std::string& out, size_t bytes_max) {
  if (value.is_string()) {
    out += value.string();
  } else if (!value.is_undefined()) {
    AppendRepr(value, out, bytes_max);
  }
}

void AppendRepr(const Value& value, std::string& out, size_t bytes_max) {
  if (out.size() > bytes_max) return;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out += "Undefined";
      return;
    case Value::Kind::kNone:
      out += "None";
      return;
    case Value::Kind::kBool:
      out += value.Truthy() ? "True" : "False";
      return;
    case Value::Kind::kInt:
      out += std::to_string(value.integer());
      return;
    case Value::Kind::kFloat:
      out += FloatRepr(value.number());
      return;
    case Value::Kind::kString:
      AppendStringRepr(value.string(), out);
      return;
    case Value::Kind::kList:
    case Value::Kind::kTuple: {
      const bool tuple = value.Is(Value::Kind::kTuple);
      out += tuple ? '(' : '[';
      for (size_t i = 0; i < value.items().size() && out.size() <= bytes_max; ++i) {
        if (i > 0) out += ", ";
        AppendRepr(value.items()[i], out, bytes_max);
      }
      if (tuple && value.items().size() == 1) out += ',';
      out += tuple ? ')' : ']';
      return;
    }
    case Value::Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.dict().items()) {
        if (out.size() > bytes_max) break;
        if (!std::exchange(first, false)) out += ", ";
        AppendRepr(key, out, bytes_max);
        out += ": ";
        AppendRepr(item, out, bytes_max);
      }
      out += '}';
      return;
    }
    default:
      out += fmt::format("<{}>", value.type_name());
  }
}

}  // namespace penstock::engine::jinja
