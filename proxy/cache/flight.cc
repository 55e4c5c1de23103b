#include "proxy/cache/flight.h"

#include <algorithm>
#include <utility>

namespace penstock {

void Flight::WakeAll(Wakes& wakes) {
  for (Reader& reader : readers_) {
    if (!std::exchange(reader.woken, true)) wakes.push_back(reader.wake);
  }
}

void Flight::PromoteOrFail(Wakes& wakes) {
  if (state_ == State::kComplete || state_ == State::kFailed) return;
  if (state_ == State::kWaiting && !readers_.empty()) {
    Reader& first = readers_.front();
    first.promoted = true;
    if (!std::exchange(first.woken, true)) wakes.push_back(first.wake);
    return;
  }
  state_ = State::kFailed;
  WakeAll(wakes);
}

Flight::Reader* Flight::Find(uint64_t id) {
  const auto found = std::find_if(readers_.begin(), readers_.end(),
                                  [id](const Reader& reader) { return reader.id == id; });
  return found == readers_.end() ? nullptr : &*found;
}

// Past the limit nobody will start from the beginning any more.
void Flight::DropRead() {
  size_t wanted = first_chunk_ + chunks_.size();
  for (const Reader& reader : readers_) {
    if (!reader.lost) wanted = std::min(wanted, reader.next);
  }
  while (first_chunk_ < wanted || kept_bytes_ > kLagMax * bytes_max_) {
    kept_bytes_ -= chunks_.front()->size();
    chunks_.pop_front();
    ++first_chunk_;
  }
  for (Reader& reader : readers_) reader.lost |= reader.next < first_chunk_;
}

void Flight::Begin(uint16_t status, std::string_view content_type) {
  Wakes wakes;
  {
    std::lock_guard lock(mutex_);
    state_ = State::kStreaming;
    status_ = status;
    content_type_ = content_type;
    WakeAll(wakes);
  }
  for (const auto& wake : wakes) wake();
}

void Flight::Append(std::string_view bytes) {
  if (bytes.empty()) return;
  Wakes wakes;
  {
    std::lock_guard lock(mutex_);
    bytes_ += bytes.size();
    over_limit_ |= bytes_ > bytes_max_;
    if (!over_limit_ || !readers_.empty()) {
      chunks_.push_back(std::make_shared<const std::string>(bytes));
      kept_bytes_ += bytes.size();
    } else {
      first_chunk_ += chunks_.size() + 1;
      chunks_.clear();
      kept_bytes_ = 0;
    }
    if (over_limit_) DropRead();
    WakeAll(wakes);
  }
  for (const auto& wake : wakes) wake();
}

void Flight::Complete() {
  Wakes wakes;
  {
    std::lock_guard lock(mutex_);
    if (state_ == State::kFailed) return;
    state_ = State::kComplete;
    WakeAll(wakes);
  }
  for (const auto& wake : wakes) wake();
}

void Flight::Abandon() {
  Wakes wakes;
  {
    std::lock_guard lock(mutex_);
    PromoteOrFail(wakes);
  }
  for (const auto& wake : wakes) wake();
}

void Flight::OnDeserted(std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  deserted_ = std::move(wake);
}

bool Flight::has_readers() const {
  std::lock_guard lock(mutex_);
  return !readers_.empty();
}

bool Flight::over_limit() const {
  std::lock_guard lock(mutex_);
  return over_limit_;
}

Flight::State Flight::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

uint16_t Flight::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

std::string Flight::content_type() const {
  std::lock_guard lock(mutex_);
  return content_type_;
}

size_t Flight::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

std::shared_ptr<Flight> Flight::Compact() const {
  auto out = std::make_shared<Flight>(bytes_max_, readers_max_);
  std::lock_guard lock(mutex_);
  out->state_ = State::kComplete;
  out->status_ = status_;
  out->content_type_ = content_type_;
  out->bytes_ = out->kept_bytes_ = bytes_;
  std::string next;
  size_t left = bytes_;
  const auto push = [&] {
    left -= next.size();
    out->chunks_.push_back(std::make_shared<const std::string>(std::exchange(next, {})));
    next.reserve(std::min(left, kChunkBytes));
  };
  next.reserve(std::min(left, kChunkBytes));
  for (const Chunk& chunk : chunks_) {
    for (std::string_view rest = *chunk; !rest.empty();) {
      const std::string_view piece = rest.substr(0, kChunkBytes - next.size());
      next += piece;
      rest.remove_prefix(piece.size());
      if (next.size() == kChunkBytes) push();
    }
  }
  if (!next.empty()) push();
  return out;
}

std::unique_ptr<FlightReader> FlightReader::Join(std::shared_ptr<Flight> flight,
                                                 std::function<void()> wake) {
  uint64_t id = 0;
  {
    std::lock_guard lock(flight->mutex_);
    if (flight->over_limit_ || flight->readers_.size() >= flight->readers_max_) return nullptr;
    id = flight->next_id_++;
    flight->readers_.push_back({id, 0, std::move(wake)});
  }
  return std::unique_ptr<FlightReader>(new FlightReader(std::move(flight), id));
}

FlightReader::~FlightReader() {
  Flight::Wakes wakes;
  {
    std::lock_guard lock(flight_->mutex_);
    Flight::Reader* const reader = flight_->Find(id_);
    if (reader == nullptr) return;
    const bool was_to_lead = reader->promoted;
    flight_->readers_.erase(flight_->readers_.begin() + (reader - flight_->readers_.data()));
    if (was_to_lead) flight_->PromoteOrFail(wakes);
    if (flight_->readers_.empty() && flight_->deserted_) wakes.push_back(flight_->deserted_);
  }
  for (const auto& wake : wakes) wake();
}

FlightReader::Step FlightReader::Read(size_t bytes_wanted) {
  Step step;
  std::lock_guard lock(flight_->mutex_);
  Flight::Reader* const reader = flight_->Find(id_);
  if (reader == nullptr) {
    step.state = Flight::State::kFailed;
    return step;
  }
  reader->woken = false;
  step.state = reader->lost ? Flight::State::kFailed : flight_->state_;
  if (reader->promoted) {
    step.promoted = true;
    flight_->readers_.erase(flight_->readers_.begin() + (reader - flight_->readers_.data()));
    return step;
  }
  size_t bytes = 0;
  const size_t end = flight_->first_chunk_ + flight_->chunks_.size();
  while (!reader->lost && reader->next < end && bytes < bytes_wanted) {
    step.chunks.push_back(flight_->chunks_[reader->next - flight_->first_chunk_]);
    bytes += step.chunks.back()->size();
    ++reader->next;
  }
  step.more = !reader->lost && reader->next < end;
  return step;
}

}  // namespace penstock
