// What clients ask: inference whole or in events, alone or as others do; files up and
// down; models; and what is wrong with it.
#pragma once

#include "tests/sim/client.h"

namespace penstock::sim {

struct Question {
  Asked& asked;
  Sending sending;
};

Question MakeQuestion(Outside& outside);

}  // namespace penstock::sim
