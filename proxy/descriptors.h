// The limit of open files, which every connection counts towards.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

// Raises the soft limit of this process to its hard one; returns what holds then.
uint64_t RaiseDescriptorLimit();

// How many client connections `descriptors` are enough for, with a connection to a
// backend for each and some for everything else; at least one.
uint32_t ConnectionsFor(uint64_t descriptors, size_t workers);

}  // namespace penstock
