"""What a new user sees in the first minute: the right answer as it streams, the
choice with its terms, the cache, and engines that are killed without a trace."""

import json
import os

from tests.support.stack import MODEL, EventStream, StackTest, chat, main, wait_until

QUESTION = "What is a turbine?"


def golden():
    with open(os.path.join(MODEL, "golden.json"), encoding="utf-8") as file:
        return {case["question"]: case["answer"] for case in json.load(file)["answers"]}


class FirstMinuteTest(StackTest):
    def test_streams_the_right_answer_and_says_who_gave_it_and_why(self):
        stack = self.stack(engines=[{"ranks": ranks} for ranks in (1, 2, 4)])
        for question, answer in list(golden().items())[:12]:
            with stack.stream(question) as stream:
                self.assertEqual(stream.status, 200)
                self.assertEqual("".join(stream.tokens()), answer)
            decision = stack.admin(f"/decisions/{stream.header('x-request-id')}")["decisions"][-1]
            self.assertEqual(decision["chosen"], stream.header("x-penstock-backend"))
            self.assertEqual(decision["candidate_count"], 3)
            best = min(decision["candidates"], key=lambda candidate: candidate["score"])
            chosen = next(candidate for candidate in decision["candidates"] if candidate["chosen"])
            self.assertEqual(chosen["score"], best["score"])

    def test_the_same_question_again_comes_from_the_cache_byte_for_byte(self):
        stack = self.stack(engines=1)
        stack.wait_for_reports()
        first, again = (stack.chat(QUESTION, stream=True) for _ in range(2))
        self.assertNotIn("hit", first.header("cache-status"))
        self.assertIn("hit", again.header("cache-status"))
        self.assertEqual(again.body, first.body)
        self.assertEqual(stack.metric("penstock_cache_lookups_total", result="hit"), 1)

    def test_a_killed_engine_costs_no_request_and_comes_back(self):
        stack = self.stack(engines=2)
        stack.engines[0].kill()
        for turn in range(20):
            answer = stack.chat(f"What is a river {turn}?", max_tokens=4)
            self.assertEqual(answer.status, 200, answer.error())
            self.assertIn(stack.engine_addresses[1], answer.header("x-penstock-backend"))
        stack.start_engine(0)

        def served_again():
            answer = stack.chat("What is a lake?", temperature=1, max_tokens=1)
            return stack.engine_addresses[0] in answer.header("x-penstock-backend")
        wait_until(served_again, "the engine that came back takes requests")

    def test_with_every_engine_dead_an_answer_is_an_error_in_openai_shape(self):
        stack = self.stack(engines=1)
        stack.engines[0].kill()
        answer = stack.chat(QUESTION)
        self.assertIn(answer.status, (502, 503))
        self.assertTrue(answer.json()["error"]["message"])

    def test_stops_at_once_when_asked(self):
        stack = self.stack(engines=1)
        self.assertEqual(stack.chat(QUESTION).status, 200)
        self.assertEqual(stack.proxy.stop(), 0)
        self.assertEqual(stack.engines[0].stop(), 0)

    def test_an_engine_can_be_asked_without_the_proxy(self):
        stack = self.stack(engines=1)
        with EventStream(stack.engine_addresses[0], "/v1/chat/completions", chat(QUESTION, stream=True)) as stream:
            self.assertEqual("".join(stream.tokens()), golden()[QUESTION])


if __name__ == "__main__":
    main()
