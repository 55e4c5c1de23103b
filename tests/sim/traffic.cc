#include "tests/sim/traffic.h"

#include <iterator>

#include <fmt/format.h>

namespace penstock::sim {
namespace {

constexpr uint32_t kSharedQuestions = 5;

std::string Filled(Outside& outside, uint32_t long_percent) {
  const bool is_long = outside.Chance(long_percent);
  return std::string(is_long ? outside.Between(20'000, 300'000) : outside.Between(0, 300), 'f');
}

Question Inference(Outside& outside) {
  const bool events = outside.Chance(60), shared = outside.Chance(40);
  const std::string tenant = outside.Chance(30) ? "one" : "two";
  const std::string key = fmt::format("K{}{}", outside.random.Below(kSharedQuestions), events ? "e" : "w");
  const char* const model = outside.Chance(2) ? "nightjar" : outside.Chance(70) ? "wren" : "kite";
  Asked& asked = outside.ledger.Ask(shared, fmt::format("{}/{}/{}", model, key, tenant));
  asked.inference = true;
  asked.method = "POST";
  asked.path = "/v1/chat/completions";
  const std::string content = shared ? key : asked.nonce + Filled(outside, 5);
  asked.body = fmt::format(R"({{"model":"{}","stream":{},"temperature":{},)"
                           R"("messages":[{{"role":"user","content":"{}"}}]}})",
                           model, events, shared ? 0 : 1, content);
  if (outside.Chance(1)) asked.body.pop_back();  // No JSON any more.
  Question question{asked, {}};
  if (shared) question.sending.fields.emplace_back("authorization", "Bearer " + tenant);
  return question;
}

Question File(Outside& outside) {
  static constexpr const char* kMethods[] = {"GET", "GET", "HEAD", "PUT", "POST", "DELETE"};
  Asked& asked = outside.ledger.Ask(false, "");
  asked.method = kMethods[outside.random.Below(std::size(kMethods))];
  asked.path = fmt::format("{}/{}", outside.Chance(70) ? "/files" : "/far", asked.nonce);
  if (asked.method == "PUT" || asked.method == "POST") asked.body = asked.nonce + Filled(outside, 40);
  return {asked, {}};
}

Question Oddity(Outside& outside) {
  Asked& asked = outside.ledger.Ask(false, "");
  asked.method = "GET";
  asked.path = outside.Chance(50) ? "/v1/models" : "/v1/models/wren";
  Question question{asked, {}};
  if (outside.Chance(40)) {
    asked.refusable = true;
    question.sending.fields.emplace_back("x-large", std::string(70'000, 'l'));
    question.sending.last = true;
  }
  return question;
}

}  // namespace

Question MakeQuestion(Outside& outside) {
  const uint32_t kind = outside.random.Below(20);
  Question question = kind == 0 ? Oddity(outside) : kind < 5 ? File(outside) : Inference(outside);
  Sending& sending = question.sending;
  Asked& asked = question.asked;
  sending.chunked = !asked.body.empty() && outside.Chance(20);
  sending.last |= outside.Chance(5);
  sending.old = !sending.chunked && !asked.refusable && outside.Chance(3);
  sending.at_once = outside.Chance(85) ? UINT32_MAX : outside.random.Below(400);
  if (outside.Chance(8)) {
    asked.limit = outside.Millis(50, 3000);
    sending.fields.emplace_back("x-request-timeout-ms", std::to_string(asked.limit / kMillisecond));
  }
  return question;
}

}  // namespace penstock::sim
