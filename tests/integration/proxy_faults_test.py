"""Engines that are killed, stopped, slow, busy or broken behind a real proxy: what
clients see of it, where the next requests go, and what the admin pages say."""

import contextlib
import http.client
import json
import signal
import time
import unittest

from tests.support.fake_backend import FakeBackend
from tests.support.load import Load
from tests.support.stack import EventStream, StackError, StackTest, chat, main, request, wait_until

EMULATED = {"device": "emulated", "ranks": 1, "more": ("--timing", "v100", "--speed", "4")}

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 2
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
%s"""


def policy(more=""):
    return POLICY % "".join(f"    {line}\n" for line in more.strip().splitlines())


# A pool whose only knowledge of its backends comes from requests.
BLIND = policy("""
health_check: {enabled: false}
load_reports: {push: false}
load_balancing: {algorithm: round_robin}
""")


class LostEngineTest(StackTest):
    def sent_to(self, stack, name):
        """Requests that have gone to a backend so far, in progress or answered."""
        return (stack.metric("penstock_backend_requests_total", backend=name)
                + stack.metric("penstock_backend_requests_active", backend=name))

    def failed(self, outcomes):
        return [outcome for outcome in outcomes if outcome.error and not outcome.started]

    def test_a_killed_engine_fails_no_request_that_had_not_started_to_answer(self):
        stack = self.stack(engines=[EMULATED] * 3, policy=policy())
        lost = stack.engine_addresses[0]
        with Load(stack.proxy_address, clients=24) as load:
            wait_until(lambda: len(load.done()) > 60, "load is under way")
            self.assertGreater(stack.metric("penstock_backend_requests_active", backend=lost), 0)
            stack.engines[0].kill()
            killed = time.monotonic()
            time.sleep(1)
            at_one_second = self.sent_to(stack, lost)
            wait_until(lambda: time.monotonic() > killed + 3, "three seconds of load")
            later = self.sent_to(stack, lost)
        outcomes = load.stop()
        self.assertEqual(self.failed(outcomes), [])
        self.assertGreater(len([o for o in outcomes if o.began > killed and not o.error]), 20)
        # Tries that found nobody there count as well as answers do.
        self.assertEqual(later, at_one_second)
        self.assertFalse([o for o in outcomes if o.backend == lost and o.began > killed + 1])
        health = {b["name"]: b["health"]["state"] for b in self.backends(stack)}
        self.assertEqual(health[lost], "down")
        # It comes back by itself.
        stack.start_engine(0)
        with Load(stack.proxy_address, clients=6):
            wait_until(lambda: self.sent_to(stack, lost) > later, "the restarted engine has traffic again")

    def backends(self, stack):
        return stack.admin("/backends")["pools"][0]["backends"]

    def test_a_stream_of_a_killed_engine_ends_with_an_error_event_and_a_cut(self):
        slow = {**EMULATED, "more": ("--timing", "v100", "--speed", "0.2")}
        stack = self.stack(engines=[slow, slow], policy=policy())
        stream = stack.stream("What is a stream?", max_tokens=200, temperature=1)
        self.addCleanup(stream.close)
        events = iter(stream)
        for event in events:
            if json.loads(event)["choices"][0]["delta"].get("content"):
                break
        stack.engines[stack.engine_addresses.index(stream.header("x-penstock-backend"))].kill()
        seen = []
        with self.assertRaisesRegex(StackError, "the stream was cut"):
            for event in events:
                seen.append(event)
        error = json.loads(seen[-1])["error"]
        self.assertEqual((error["code"], error["type"]), ("backend_reset", "server_error"))
        self.assertNotIn("[DONE]", seen)

    def test_a_stopped_engine_is_left_within_its_first_token_timeout_and_used_again(self):
        stack = self.stack(engines=[EMULATED] * 3, policy=policy("timeouts: {first_token: 2s}"))
        lost = stack.engine_addresses[1]
        with Load(stack.proxy_address, clients=18) as load:
            wait_until(lambda: len(load.done()) > 40, "load is under way")
            stack.engines[1].send(signal.SIGSTOP)
            stopped = time.monotonic()
            time.sleep(2.5)
            at_timeout = self.sent_to(stack, lost)
            time.sleep(6)
            # Those that were there are gone from there, and no other was sent.
            later = self.sent_to(stack, lost)
            stack.engines[1].send(signal.SIGCONT)
            wait_until(lambda: self.sent_to(stack, lost) > later + 5, "the engine has traffic again")
        outcomes = load.stop()
        self.assertEqual(self.failed(outcomes), [])
        self.assertLessEqual(later, at_timeout)
        waits = [o.ended - o.began for o in outcomes if o.streamed and stopped - 1 < o.began < stopped + 4]
        self.assertLess(max(waits), 15)


class SlowEngineTest(StackTest):
    def test_an_engine_twice_as_slow_gets_less_and_the_decisions_say_why(self):
        def engine(speed):
            return {"device": "emulated", "ranks": 1, "more": ("--timing", "v100", "--speed", str(speed))}
        stack = self.stack(engines=[engine(1), engine(1), engine(0.5)], policy=policy())
        slow = stack.engine_addresses[2]
        with Load(stack.proxy_address, clients=12, streamed=True, tokens=8) as load:
            wait_until(lambda: len(load.done()) > 40, "the first latencies are known")
            begun = time.monotonic()
            time.sleep(30)
            decisions = stack.admin("/decisions")["decisions"]
        outcomes = [o for o in load.stop() if o.began > begun]
        self.assertEqual([o.error for o in outcomes if o.error], [])
        self.assertGreater(len(outcomes), 100)
        share = len([o for o in outcomes if o.backend == slow]) / len(outcomes)
        self.assertLessEqual(share, 0.7 / 3, f"of {len(outcomes)}")
        self.assertGreater(share, 0.02, "it is still tried")
        self.check_that_scores_say_why(decisions, slow)

    def check_that_scores_say_why(self, decisions, slow):
        lost = 0
        for decision in decisions:
            scores = {}
            for candidate in decision["candidates"]:
                terms, score = candidate["terms"], candidate["score"]
                self.assertAlmostEqual(0.6 * terms["latency"] + 0.4 * terms["queue"], score, delta=0.005)
                scores[candidate["backend"]] = score
            if slow not in scores or decision["chosen"] == slow:
                continue
            lost += 1
            self.assertGreater(scores[slow] + 0.005, scores[decision["chosen"]], decision)
        self.assertGreater(lost, len(decisions) / 2)


class BrokenBackendTest(StackTest):
    """Scripted backends, known only by how they answer."""

    def setUp(self):
        self.answers = {}

    def backend(self, script=None):
        backend = FakeBackend(script)
        self.addCleanup(backend.close)
        return backend

    def proxy(self, *backends, policy=BLIND):
        return self.stack(engines=0, policy=policy, backends=[b.address for b in backends])

    def ask(self, stack, count=1):
        return [stack.chat("hello?").status for _ in range(count)]

    def breaker(self, stack, backend):
        for found in stack.admin("/backends")["pools"][0]["backends"]:
            if found["name"] == backend.address:
                return found["breaker"]
        self.fail("no such backend")

    def test_a_busy_backend_rests_and_its_breaker_does_not_care(self):
        def busy(request):
            request.answer(429, {"error": {"message": "full"}}, {"retry-after": "2"})
        full, free = self.backend(busy), self.backend()
        stack = self.proxy(full, free)
        begun = time.monotonic()
        self.assertEqual(self.ask(stack, 20), [200] * 20)
        if time.monotonic() < begun + 2:  # Each of two workers may have asked it once.
            self.assertIn(len(full.requests), (1, 2))
        self.assertEqual(len(free.requests), 20)
        self.assertEqual(self.breaker(stack, full)["state"], "closed")
        self.assertEqual(stack.metric("penstock_backend_busy_total", backend=full.address), len(full.requests))
        self.assertEqual(stack.metric("penstock_retries_total", reason="busy"), len(full.requests))
        # After its rest it is asked again.
        rested = len(full.requests)
        wait_until(lambda: self.ask(stack) and len(full.requests) > rested, "it is tried again", 10)

    def test_busy_everywhere_is_waited_for_and_then_429(self):
        busy = self.backend(lambda request: request.answer(503, {}, {"retry-after": "1"}))
        stack = self.proxy(busy, policy=BLIND + "    queue: {max: 1, wait: 300ms}\n")
        answer = stack.chat("hello?")
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (429, "queue_full"))
        self.assertGreaterEqual(int(answer.header("retry-after")), 1)
        self.assertEqual(stack.metric("penstock_timeouts_total", kind="queue"), 1)

    def test_who_waits_for_a_busy_backend_is_served_when_it_has_room(self):
        def busy_once(request):
            if len(busy.requests) == 1:
                request.answer(429, {}, {"retry-after": "0.3"})
            else:
                request.answer()
        busy = self.backend(busy_once)
        stack = self.proxy(busy)
        self.assertEqual(stack.chat("hello?").status, 200)
        self.assertEqual(len(busy.requests), 2)

    def test_a_full_queue_is_429_at_once(self):
        slow = self.backend(lambda request: request.hang())
        text = BLIND.replace("workers: 2", "workers: 1").replace("{backends}", "[{address: %s, max_requests: 1}]"
                                                                   % slow.address)
        stack = self.proxy(slow, policy=text + "    queue: {max: 2, wait: 20s}\n")
        with contextlib.ExitStack() as waiting:
            def send():
                connection = waiting.enter_context(stack.raw())
                body = json.dumps(chat("hello?")).encode()
                connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
                                b"content-length: %d\r\n\r\n%s" % (len(body), body))
            send()
            wait_until(lambda: slow.requests, "the first is there")
            send()
            send()
            wait_until(lambda: stack.metric("penstock_queue_depth") == 2, "two wait")
            begun = time.monotonic()
            answer = stack.chat("hello?")
            self.assertLess(time.monotonic() - begun, 5)
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (429, "queue_full"))
            self.assertEqual(answer.json()["error"]["type"], "rate_limit_error")
            self.assertGreaterEqual(int(answer.header("retry-after")), 1)
        # Their clients left: nothing waits, and nothing runs.
        wait_until(lambda: stack.metric("penstock_queue_depth") == 0
                   and stack.metric("penstock_http_requests_active") == 0, "all are gone")
        self.assertEqual(len(slow.requests), 1)

    def test_a_breaker_opens_after_five_faults_and_closes_after_three_good_probes(self):
        def broken(request):
            request.answer(500, {"error": {"message": "oh"}})
        bad, good = self.backend(broken), self.backend()
        stack = self.proxy(bad, good, policy=BLIND + "    circuit_breaker: {open_base: 500ms}\n"
                                                     "    retry: {attempts: 0}\n")
        # Round robin a worker: about every second one goes there.
        wait_until(lambda: self.ask(stack) and self.breaker(stack, bad)["state"] != "closed", "it opens", 10)
        self.assertLessEqual(len(bad.requests), 7)  # Five, and one that each worker had not heard of.
        bad.script = lambda request: request.answer()
        wait_until(lambda: self.ask(stack) and self.breaker(stack, bad)["state"] == "closed", "it closes", 10)
        found = [(t["from"], t["to"]) for t in self.breaker(stack, bad)["transitions"]]
        self.assertEqual(found[:3], [("closed", "open"), ("open", "half_open"), ("half_open", "closed")])
        self.assertEqual(stack.metric("penstock_breaker_transitions_total", backend=bad.address,
                                      **{"from": "closed", "to": "open"}), 1)

    def test_a_failed_probe_opens_the_breaker_again(self):
        bad, good = self.backend(lambda request: request.reset()), self.backend()
        stack = self.proxy(bad, good, policy=BLIND + "    circuit_breaker: {open_base: 200ms}\n")
        wait_until(lambda: self.ask(stack) == [200] and stack.metric(
            "penstock_breaker_transitions_total", backend=bad.address,
            **{"from": "half_open", "to": "open"}) >= 2, "two probes failed", 15)

    def test_a_connection_that_died_idle_costs_nobody_anything(self):
        def once(request):
            request.answer()
            if request.number == 1:
                request.close = False
        backend = self.backend(once)
        stack = self.proxy(backend, policy=BLIND.replace("workers: 2", "workers: 1"))
        self.assertEqual(self.ask(stack, 3), [200] * 3)
        self.assertEqual(backend.connections, 1)

        # The backend takes the next request of a kept connection and breaks it.
        def break_reused(request):
            if request.number > 1:
                request.reset()
            request.answer()
        backend.script = break_reused
        self.assertEqual(self.ask(stack, 6), [200] * 6)
        self.assertEqual(self.breaker(stack, backend)["state"], "closed")
        self.assertGreaterEqual(stack.metric("penstock_retries_total", reason="reset"), 1)

    def test_a_request_goes_elsewhere_when_its_backend_breaks_before_it_answers(self):
        cases = {
            "reset": lambda request: request.reset(),
            "closed": lambda request: setattr(request, "close", True),
            "garbage": lambda request: request.send(b"\x16\x03\x01 hello\r\n\r\n"),
            "bad length": lambda request: request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"
                                                       b"content-length: 2\r\n\r\nabc"),
            "gateway": lambda request: request.answer(503),
            "no event": lambda request: (request.begin_events(), request.reset()),
            "half an event": lambda request: (request.begin_events(), request.chunk(b"data: {\"ch"),
                                              request.reset()),
        }
        bad, good = self.backend(), self.backend(lambda request: request.stream("well"))
        stack = self.proxy(bad, good, policy=BLIND + "    circuit_breaker: {enabled: false}\n")
        for name, script in cases.items():
            with self.subTest(name):
                bad.script = script
                before = len(bad.requests)
                for _ in range(4):
                    with contextlib.closing(stack.stream("hello?")) as stream:
                        self.assertEqual(stream.status, 200, name)
                        self.assertEqual("".join(stream.tokens()), "well")
                self.assertGreater(len(bad.requests), before)

    def test_moving_from_a_lost_backend_needs_no_budget_and_other_retries_do(self):
        bad, good = self.backend(), self.backend(lambda request: request.stream("well"))
        text = BLIND.replace("workers: 2", "workers: 1")
        stack = self.proxy(bad, good, policy=text + "    circuit_breaker: {enabled: false}\n"
                                                    "    retry: {attempts: 1, budget: 0%, budget_min: 0}\n")
        for script in (lambda request: request.reset(), lambda request: (request.begin_events(), request.reset())):
            bad.script = script
            for _ in range(6):
                with contextlib.closing(stack.stream("hello?")) as stream:
                    self.assertEqual("".join(stream.tokens()), "well")
        bad.script = lambda request: request.answer(502)
        self.assertEqual(sorted(self.ask(stack, 4)), [200, 200, 502, 502])
        self.assertGreaterEqual(stack.metric("penstock_retry_budget_exhausted_total"), 2)

    def test_all_down_is_503_with_a_time_to_come_back(self):
        backend = self.backend()
        stack = self.proxy(backend, policy=policy("health_check: {interval: 200ms, timeout: 200ms}"))
        backend.close()
        wait_until(lambda: stack.metric("penstock_backends", state="down") == 1, "it is seen to be down")
        answer = stack.chat("hello?")
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "no_healthy_backend"))
        self.assertGreaterEqual(int(answer.header("retry-after")), 1)
        self.assertIn("destination_unavailable", answer.header("proxy-status"))
        self.assertEqual(stack.metric("penstock_response_flags_total", flag="UH"), 1)

    def test_an_answer_that_breaks_off_is_cut_and_never_looks_whole(self):
        def short(request):
            request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            request.reset()

        def chunked(request):
            request.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            request.close = True
        backend = self.backend()
        stack = self.proxy(backend, policy=BLIND + "    circuit_breaker: {enabled: false}\n")
        for script in (short, chunked):
            backend.script = script
            with self.assertRaises(StackError):
                stack.chat("hello?")

    def test_a_client_that_leaves_takes_its_request_with_it(self):
        backend = self.backend(lambda request: (request.begin_events(), request.token("a"), request.hang()))
        stack = self.proxy(backend)
        stream = stack.stream("hello?")
        self.assertIn("a", next(iter(stream)))
        stream.close()
        self.assertTrue(backend.gone.wait(10), "the backend sees the end")
        wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "nothing is in progress")
        self.assertEqual(self.breaker(stack, backend)["state"], "closed")
        self.assertEqual(stack.metric("penstock_response_flags_total", flag="DC"), 1)


if __name__ == "__main__":
    main()
