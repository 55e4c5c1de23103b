// Fields of requests that other engines take and that would change the answer, which
// this one cannot do: refused by name, since an answer that pays no heed to them would
// be taken for one that does. Where such a field asks for nothing it is let through.
#pragma once

#include "backend-engine/api/json_fields.h"

namespace penstock::engine {

void RefuseUnsupported(JsonFields& fields);

// Tools are refused unless the request itself says that none may be called.
void RefuseTools(JsonFields& fields);

}  // namespace penstock::engine
