"""More than one try, and how long all of them may take, at a real proxy: hedges,
other backends before the first token, the budget of both, and what clients say of
their own patience."""

import concurrent.futures
import contextlib
import json
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackError, StackTest, main, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 1
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    load_balancing: {algorithm: round_robin}
    circuit_breaker: {enabled: false}
%s"""


class TriesTest(StackTest):
    def start(self, *scripts, more=""):
        self.backends = []
        for script in scripts:
            self.backends.append(FakeBackend(script))
            self.addCleanup(self.backends[-1].close)
        lines = "".join(f"    {line}\n" for line in more.strip().splitlines())
        self.proxy = self.stack(engines=0, policy=POLICY % lines, backends=[b.address for b in self.backends])
        return self.proxy

    def asked(self):
        return sum(len(backend.requests) for backend in self.backends)

    def tokens(self, headers=None):
        with contextlib.closing(self.proxy.stream("hello?", headers=headers)) as stream:
            self.assertEqual(stream.status, 200)
            return "".join(stream.tokens())

    def kinds(self, request_id):
        return [record["kind"] for record in self.proxy.admin(f"/decisions/{request_id}")["decisions"]]

    def left(self):
        """Nothing is in progress any more, and nothing holds a place of the budget."""
        wait_until(lambda: self.proxy.metric("penstock_http_requests_active") == 0
                   and self.proxy.metric("penstock_backend_requests_active") == 0, "nothing is left")


class HedgeTest(TriesTest):
    POLICY = "hedge: {enabled: true, percentile: 90%, min_delay: 300ms}\nretry: {budget: 100%, budget_min: 2}"

    def warm(self):
        """The pool has seen first tokens that came at once."""
        for _ in range(40):
            self.assertEqual(self.tokens(), "well")
        # A busy machine makes hedges of its own.
        self.warmed = {result: self.hedges(result) for result in self.RESULTS}
        for backend in self.backends:
            backend.requests.clear()

    def begin(self):
        self.start(lambda request: request.stream("well"), lambda request: request.stream("well"), more=self.POLICY)
        self.warm()

    RESULTS = ("won", "lost", "failed", "no_budget", "no_backend")

    def hedges(self, result):
        return self.proxy.metric("penstock_hedges_total", result=result)

    def hedged(self, result):
        """Since it was warm."""
        return self.hedges(result) - self.warmed[result]

    def test_a_slow_backend_costs_no_client_its_patience_and_is_told_to_stop(self):
        self.begin()
        self.backends[0].script = lambda request: request.hang()
        for turn in range(4):
            self.assertEqual(self.tokens({"x-request-id": f"hedge-{turn}"}), "well")
        slow = len(self.backends[0].requests)
        self.assertGreaterEqual(slow, 1)             # Round robin.
        self.assertGreaterEqual(self.hedged("won"), 1)
        self.assertEqual(self.asked(), 4 + self.hedged("won") + self.hedged("lost"))
        self.assertTrue(self.backends[0].gone.wait(10), "the slow one is told to stop")
        kinds = [sorted(self.kinds(f"hedge-{turn}")) for turn in range(4)]
        self.assertIn(["first", "hedge"], kinds)
        self.assertEqual(sum(map(len, kinds)), self.asked())
        # It lost, which is no fault and no latency of its own.
        slow = next(b for b in self.proxy.admin("/backends")["pools"][0]["backends"]
                    if b["name"] == self.backends[0].address)
        self.assertLess(slow["ttft_s"] or 0, 4)
        self.left()

    def test_the_first_try_may_still_win(self):
        hedge_is_there = threading.Event()

        def script(request):
            if self.asked() > 1:
                hedge_is_there.set()
                request.hang()
            hedge_is_there.wait(30)
            request.stream("first")
        self.begin()
        for backend in self.backends:
            backend.script = script
        self.assertEqual(self.tokens(), "first")
        self.assertEqual((self.hedged("lost"), self.hedged("won"), self.asked()), (1, 0, 2))
        wait_until(lambda: any(backend.gone.is_set() for backend in self.backends), "the hedge is told to stop")
        self.left()

    def test_an_answer_of_both_at_once_is_one_answer(self):
        barrier = threading.Barrier(2, timeout=30)

        def script(name):
            def answer(request):
                with contextlib.suppress(threading.BrokenBarrierError):
                    barrier.wait()
                request.stream(name, name)
            return answer
        self.begin()
        self.backends[0].script, self.backends[1].script = script("a"), script("b")
        for _ in range(10):
            self.assertIn(self.tokens(), ("aa", "bb"))
        self.assertEqual(self.hedged("won") + self.hedged("lost"), 10)
        self.left()

    def test_hedges_are_paid_from_the_budget_of_retries(self):
        def slow(request):
            time.sleep(1.5)
            request.stream("well")
        self.start(lambda request: request.stream("well"), lambda request: request.stream("well"),
                   more="hedge: {enabled: true, min_delay: 300ms}\nretry: {budget: 0%, budget_min: 1}")
        self.warm()
        for backend in self.backends:
            backend.script = slow
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertEqual([f.result() for f in [pool.submit(self.tokens) for _ in range(8)]], ["well"] * 8)
        hedges = self.hedged("won") + self.hedged("lost") + self.hedged("failed")
        self.assertGreaterEqual(self.hedged("no_budget"), 1)
        self.assertEqual(self.asked(), 8 + hedges)
        self.assertLess(hedges, 8)
        self.assertGreaterEqual(self.proxy.metric("penstock_retry_budget_exhausted_total"), 1)
        self.left()


class ElsewhereTest(TriesTest):
    def test_a_backend_that_accepts_and_hangs_is_left_for_one_that_speaks(self):
        def hangs(request):
            request.begin_events()
            request.chunk(b": accepted\n\n")
            request.hang()
        self.start(hangs, lambda request: request.stream("well"),
                   more="timeouts: {first_token: 600ms}\nretry: {attempts: 1}")
        for _ in range(4):
            self.assertEqual(self.tokens(), "well")
        hung = len(self.backends[0].requests)
        self.assertGreaterEqual(hung, 1)
        self.assertEqual(self.proxy.metric("penstock_retries_total", reason="timeout"), hung)
        self.assertEqual(self.proxy.metric("penstock_timeouts_total", kind="first_token"), hung)
        self.left()

    def test_a_limit_for_each_try_is_no_limit_for_the_last_one(self):
        slow = threading.Event()

        def late(request):
            slow.wait(1)
            request.stream("late")
        self.start(late, late, more="timeouts: {first_token: 20s}\nretry: {attempts: 1, per_try_timeout: 300ms}")
        self.assertEqual(self.tokens(), "late")
        self.assertEqual(self.asked(), 2)
        self.assertEqual(self.proxy.metric("penstock_timeouts_total", kind="try"), 1)
        self.left()

    def test_nothing_is_tried_again_once_a_token_has_left(self):
        def breaks(request):
            request.begin_events()
            request.token("one")
            request.reset()
        self.start(breaks, breaks, more="retry: {attempts: 5, budget: 100%}")
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            with self.assertRaisesRegex(StackError, "cut"):
                list(stream)
        self.assertEqual(self.asked(), 1)
        self.left()

    def test_a_sick_fleet_does_not_get_twice_the_load(self):
        self.start(*[lambda request: request.answer(503)] * 3, more="retry: {attempts: 3, budget: 10%, budget_min: 1}")
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = [f.result() for f in [pool.submit(self.proxy.chat, f"{n}?") for n in range(100)]]
        self.assertLessEqual({answer.status for answer in answers}, {502, 503})
        retries = self.proxy.metric("penstock_retries_total")
        self.assertLessEqual(self.asked(), 100 + retries)   # One that finds nobody left is none.
        refused = self.proxy.metric("penstock_retry_budget_exhausted_total")
        self.assertGreater(refused, 0)
        self.left()
        # The places come back: one request alone has its retries again.
        before = self.asked()
        self.proxy.chat("alone?")
        self.assertGreater(self.asked() - before, 1)

    def test_bodies_of_other_requests_go_again_as_far_as_they_are_kept(self):
        seen = []

        def dies(request):
            seen.append(request.body)
            request.reset()

        def answers(request):
            seen.append(request.body)
            request.answer()
        self.start(dies, answers, more="retry: {body_bytes: 1KiB}")
        for size, statuses in ((1024, {200}), (1025, {200, 502})):
            with self.subTest(size=size):
                found = {self.proxy.request("POST", "/files", b"x" * size).status for _ in range(4)}
                self.assertEqual(found, statuses)
        self.assertTrue(all(set(body) == {ord("x")} and len(body) in (1024, 1025) for body in seen))
        self.left()


class DeadlineTest(TriesTest):
    FIELDS = {"x-request-timeout-ms": "700", "grpc-timeout": "700m", "x-envoy-upstream-rq-timeout-ms": "700",
              "x-stainless-timeout": "0.7", "x-stainless-read-timeout": "0.7"}

    def test_a_client_that_says_how_long_it_waits_is_answered_by_then(self):
        self.start(lambda request: request.hang())
        for field, value in self.FIELDS.items():
            with self.subTest(field):
                answer = self.proxy.chat("hello?", headers={field: value})
                self.assertEqual((answer.status, answer.json()["error"]["code"]), (504, "deadline_exceeded"))
                self.assertEqual(answer.header("x-should-retry"), "false")
                self.assertIn("700ms", answer.error())
        self.assertEqual(self.proxy.metric("penstock_deadline_exceeded_total", stage="answer"), len(self.FIELDS))
        self.assertEqual(self.asked(), len(self.FIELDS))     # Nobody waits for a second try.
        self.assertTrue(self.backends[0].gone.wait(10), "the backend is told to stop")
        self.left()

    def test_the_backend_hears_what_is_left_of_it(self):
        self.start(lambda request: request.answer())
        for field, value in self.FIELDS.items():
            self.proxy.chat("hello?", headers={field: value.replace("7", "70")})
            sent = self.backends[0].requests[-1].headers
            with self.subTest(field):
                left = int(sent["x-request-timeout-ms"])
                self.assertTrue(0 < left <= 70000 - 10, left)
                self.assertNotIn("x-envoy-upstream-rq-timeout-ms", sent)
                if field == "grpc-timeout":
                    self.assertRegex(sent["grpc-timeout"], r"^\d{1,8}m$")
                    self.assertLessEqual(int(sent["grpc-timeout"][:-1]), 70000 - 10)
                else:
                    self.assertNotIn("grpc-timeout", sent)
        # Nonsense is no deadline, and goes on as it came or not at all, but is not obeyed.
        for value in ("0", "-1", "soon", "1e3", "", "9" * 40):
            answer = self.proxy.chat("hello?", headers={"x-request-timeout-ms": value})
            self.assertEqual(answer.status, 200, value)

    def test_an_sdks_limit_is_for_the_first_token_and_not_for_the_stream(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def slow(request):
            request.begin_events()
            request.token("one")
            time.sleep(1.5)
            request.token("two")
            request.end_events()
        self.start(slow)
        self.assertEqual(self.tokens({"x-stainless-read-timeout": "0.7"}), "onetwo")
        with contextlib.closing(self.proxy.stream("hello?", headers={"x-request-timeout-ms": "700"})) as stream:
            events = []
            with self.assertRaisesRegex(StackError, "cut"):
                for event in stream:
                    events.append(event)
        self.assertEqual(json.loads(events[-1])["error"]["code"], "deadline_exceeded")
        self.assertEqual(self.proxy.metric("penstock_deadline_exceeded_total", stage="stream"), 1)
        self.left()

    def test_the_pools_total_ends_what_a_client_would_wait_for(self):
        def trickles(request):
            request.begin_events()
            while True:
                request.token("x")
                time.sleep(0.1)
        self.start(trickles, more="timeouts: {total: 1s}")
        with contextlib.closing(self.proxy.stream("hello?", headers={"x-request-timeout-ms": "60000"})) as stream:
            events = []
            with self.assertRaisesRegex(StackError, "cut"):
                for event in stream:
                    events.append(event)
        self.assertEqual(json.loads(events[-1])["error"]["code"], "total_timeout")
        self.backends[0].script = lambda request: request.hang()
        answer = self.proxy.chat("hello?")
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (504, "total_timeout"))
        self.assertEqual(self.proxy.metric("penstock_timeouts_total", kind="total"), 2)
        self.left()

    def test_it_holds_over_all_tries_together(self):
        self.start(lambda request: request.hang(), lambda request: request.hang(),
                   more="timeouts: {response: 400ms}\nretry: {attempts: 5, budget: 100%}")
        answer = self.proxy.chat("hello?", headers={"x-request-timeout-ms": "600"})
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (504, "deadline_exceeded"))
        self.assertEqual(self.asked(), 2)
        self.left()

    def test_it_ends_the_wait_for_a_backend_with_room(self):
        self.start(lambda request: request.answer(429, headers={"retry-after": "5"}))
        answer = self.proxy.chat("hello?", headers={"x-request-timeout-ms": "500"})
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (504, "deadline_exceeded"))
        self.assertEqual(self.proxy.metric("penstock_deadline_exceeded_total", stage="queue"), 1)
        self.left()


if __name__ == "__main__":
    main()
