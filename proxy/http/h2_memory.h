// The small blocks that nghttp2 asks for and gives back with every message: from free
// lists of the thread, since the allocator's own are short.
//
// Threads: any; a block may be given back on another thread than it came from.
#pragma once

#include <nghttp2/nghttp2.h>

namespace penstock {

// For nghttp2's sessions; null, which means malloc, where a sanitizer shall see each block.
nghttp2_mem* H2Memory();

}  // namespace penstock
