"""Fleets with one backend that is slow, that lies about its load or its health, or
that comes and goes: where a real proxy sends requests then."""

import collections
import concurrent.futures
import json
import re
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.load import Load
from tests.support.stack import StackTest, main, request, wait_until

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
%s"""


def well(pause):
    def script(request):
        if b'"stream": true' not in request.body:
            time.sleep(pause)
            return request.answer(200, {"choices": []})
        request.begin_events()
        time.sleep(pause)
        request.token("well")
        request.end_events()
    return script


class FleetTest(StackTest):
    def start(self, count, more="", pause=0.02):
        self.backends = [FakeBackend(well(pause)) for _ in range(count)]
        for backend in self.backends:
            self.addCleanup(backend.close)
        lines = "".join(f"    {line}\n" for line in more.strip().splitlines())
        self.proxy = self.stack(engines=0, policy=POLICY % lines, backends=[b.address for b in self.backends])
        return self.proxy

    def shares(self, seconds, clients=12):
        """Of the requests of so many seconds, which share each backend was sent."""
        before = [len(backend.requests) for backend in self.backends]
        with Load(self.proxy.proxy_address, clients, streamed=True) as load:
            time.sleep(seconds)
        self.assertEqual([o.error for o in load.stop() if o.error], [])
        sent = [len(backend.requests) - old for backend, old in zip(self.backends, before)]
        self.assertGreater(sum(sent), 40)
        return [count / sum(sent) for count in sent]

    def shown(self, index):
        return self.proxy.admin("/backends")["pools"][0]["backends"][index]


class SlowBackendTest(FleetTest):
    def test_one_that_is_ten_times_as_slow_and_has_no_errors_is_left_by_most(self):
        self.start(4, "health_check: {enabled: false}\nload_reports: {push: false}", pause=0.1)
        self.shares(2)
        self.backends[0].script = well(1)
        self.shares(3)                      # By then the others know.
        shares = self.shares(6)
        self.assertLess(shares[0], 0.6 / 4, shares)
        self.assertGreater(min(shares[1:]), 0.6 / 4, shares)
        # And it is tried again, and comes back.
        self.backends[0].script = well(0.1)
        wait_until(lambda: self.shares(3)[0] > 0.6 / 4, "it has its share again", 60)


class HealthAndTrafficTest(FleetTest):
    def test_well_when_asked_and_broken_when_used(self):
        self.start(3, "health_check: {interval: 1s, timeout: 1s}\nload_reports: {push: false}\n"
                      "circuit_breaker: {open_base: 20s}\n"
                      "load_balancing: {algorithm: round_robin}")   # The score would soon ask it no more.
        self.backends[0].script = lambda request: request.reset()
        self.shares(2)
        self.assertEqual(self.shown(0)["breaker"]["state"], "open")
        self.assertEqual(self.shown(0)["health"]["state"], "healthy")
        self.assertEqual(self.shares(2)[0], 0)

    def test_unwell_when_asked_and_fine_when_used(self):
        self.start(3, "health_check: {interval: 1s, timeout: 1s, unhealthy_threshold: 2}\n"
                      "load_reports: {push: false}")
        self.backends[0].healthy = False
        wait_until(lambda: self.shown(0)["health"]["state"] == "unhealthy", "it is taken out")
        self.assertEqual(self.shares(2)[0], 0)   # Its word counts: it drains.
        # When all say so, that is no news of any one of them: all are used.
        for backend in self.backends:
            backend.healthy = False
        wait_until(lambda: all(self.shown(n)["health"]["state"] == "unhealthy" for n in range(3)), "so are all")
        shares = self.shares(2)
        self.assertGreater(min(shares), 0.05, shares)
        self.assertGreater(self.proxy.metric("penstock_lb_decisions_total", outcome="panic"), 0)

    def test_all_gone_and_all_back(self):
        self.start(3, "health_check: {interval: 1s, timeout: 1s}\nload_reports: {push: false}")
        ports = [backend.port for backend in self.backends]
        for backend in self.backends:
            backend.close()
        wait_until(lambda: self.proxy.metric("penstock_backends", state="down") == 3, "all are seen to be down")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [f.result() for f in [pool.submit(self.proxy.chat, "hello?") for _ in range(40)]]
        self.assertEqual({(a.status, a.json()["error"]["code"]) for a in answers}, {(503, "no_healthy_backend")})
        self.backends = [FakeBackend(well(0.02), port=port) for port in ports]
        for backend in self.backends:
            self.addCleanup(backend.close)
        wait_until(lambda: self.proxy.metric("penstock_backends", state="healthy") == 3, "all are back")
        shares = self.shares(2)
        self.assertLess(max(shares), 0.6, shares)     # No herd at the first of them.


class EmulatedNodesTest(StackTest):
    def test_ten_nodes_of_timing_alone_share_the_load_of_two_cores(self):
        node = {"device": "emulated", "ranks": 1, "more": ("--timing", "v100", "--speed", "2")}
        stack = self.stack(engines=[node] * 10, policy=POLICY % "")
        stack.wait_for_reports()
        for address in stack.engine_addresses:
            self.assertIn("emulated", request(address, "GET", "/health").body.decode())
            self.assertIn("emulated", request(address, "GET", "/load").json()["model"])
        with Load(stack.proxy_address, clients=40, tokens=4) as load:
            time.sleep(8)
        outcomes = load.stop()
        self.assertEqual([o.error for o in outcomes if o.error], [])
        counts = collections.Counter(o.backend for o in outcomes)
        fair = len(outcomes) / 10
        self.assertEqual(len(counts), 10, counts)
        # One that a busy machine held up gets less for a while.
        self.assertTrue(all(0.1 * fair < count < 2 * fair for count in counts.values()), counts)


class PiggybackTest(StackTest):
    def test_an_engines_answers_tell_its_load_where_nothing_is_pushed(self):
        self.proxy = self.stack(engines=1, policy=POLICY % "    load_reports: {push: false}\n")

        def shown():
            return self.proxy.admin("/backends")["pools"][0]["backends"][0]

        self.assertEqual(shown()["rung"], "own")     # Nobody has said anything.
        self.assertEqual(self.proxy.chat("hello?", max_tokens=4).status, 200)
        wait_until(lambda: shown()["rung"] == "piggyback", "what came with the answer is used", 10)

        def chosen_by():
            answer = self.proxy.chat("hello?", max_tokens=5, temperature=1)
            decision = self.proxy.admin(f"/decisions/{answer.header('x-request-id')}")["decisions"][0]
            return decision["candidates"][0]
        # What an answer said is good for a moment.
        wait_until(lambda: chosen_by()["signal"]["rung"] == "piggyback", "a choice is made by it", 10)
        self.assertGreater(chosen_by()["max_running"], 0)


class LoadReportTest(FleetTest):
    POLLED = "health_check: {enabled: false}\nload_reports: {poll: 100ms}"

    def report(self, index, **fields):
        """From now on backend `index` says so of its load."""
        lock, state = threading.Lock(), {"seq": 0}

        def load():
            with lock:
                state["seq"] += 1
                line = {"epoch": 1, "seq": state["seq"], "age_us": 0, "state": "ready", "max_running": 8, **fields}
            return json.dumps(line).encode() + b"\n"
        self.backends[index].load = load

    def taken(self, result="poll", index=0):
        return self.proxy.metric("penstock_load_reports_total", result=result, backend=self.backends[index].address)

    def test_one_that_always_says_that_it_is_idle_does_not_get_everything(self):
        self.start(3, self.POLLED, pause=0.1)
        for index in (1, 2):
            self.report(index, running=4, waiting=0)
        self.report(0, running=0, waiting=0)
        wait_until(lambda: all(self.taken(index=n) for n in range(3)), "reports are in")
        self.assertLess(self.shares(4)[0], 0.5 * 1.5)

    def test_one_that_always_says_that_it_is_full_is_left_alone_while_others_are_not(self):
        self.start(3, self.POLLED)
        self.report(0, running=8, waiting=1000)
        for index in (1, 2):
            self.report(index, running=1, waiting=0)
        wait_until(lambda: all(self.taken(index=n) for n in range(3)), "reports are in")
        shares = self.shares(2)
        self.assertLess(shares[0], 1 / 6, shares)
        self.assertGreater(self.proxy.metric("penstock_lb_backend_load", backend=self.backends[0].address), 999)
        # It is no worse than nothing: when it is the only one it gets all.
        for backend in self.backends[1:]:
            self.proxy.admin(f"/backends/lexicon/{backend.address}/drain", "POST")
        self.assertEqual(self.shares(2)[0], 1)

    def test_reports_that_come_no_more_count_for_nothing_soon(self):
        self.start(2, self.POLLED)
        self.report(0, running=0, waiting=0)
        self.report(1, running=0, waiting=0)
        wait_until(lambda: self.taken() and self.taken(index=1), "reports are in")
        self.backends[0].load = None
        wait_until(lambda: self.proxy.metric("penstock_lb_signal_rung", backend=self.backends[0].address) == 4,
                   "it counts for nothing")
        wait_until(lambda: self.proxy.metric("penstock_lb_signal_rung", backend=self.backends[1].address) == 3,
                   "the other one's go on")

    def test_reports_that_cannot_be_are_refused_and_counted_and_requests_go_on(self):
        self.start(2, self.POLLED)
        self.report(1, running=0, waiting=0)
        garbage = [b"", b"{}", b"[]", b"null", b"{", b'{"running":NaN}', b'{"running":-1}', b'{"running":1e308}',
                   b'{"running":"many"}', b'{"running":1,"age_us":-1000000}', b"x" * (1 << 20),
                   b'{"epoch":' + b"9" * 400 + b"}", b"\xff\xfe" * 100]
        for line in garbage:
            with self.subTest(line[:40]):
                asked = threading.Event()

                def load(line=line, asked=asked):
                    asked.set()
                    return line
                self.backends[0].load = load
                self.assertTrue(asked.wait(10))
                self.assertEqual({self.proxy.chat("hello?").status for _ in range(4)}, {200})
        wait_until(lambda: self.taken("invalid") > 0, "they are counted")
        self.assertEqual(self.taken(), 0)
        self.assertEqual(self.proxy.metric("penstock_lb_signal_rung", backend=self.backends[0].address), 4)

    def test_an_engine_with_another_model_is_told(self):
        self.start(2, self.POLLED)
        self.report(0, running=0, waiting=0, model="lexicon-5m")
        self.report(1, running=0, waiting=0, model="another")
        wait_until(lambda: self.proxy.metric("penstock_lb_wrong_model", backend=self.backends[1].address) == 1,
                   "it is told")
        self.assertEqual(self.proxy.metric("penstock_lb_wrong_model", backend=self.backends[0].address), 0)

        def said():
            with open(self.proxy.proxy.log, encoding="utf-8") as log:
                return re.findall(r"backend lexicon/(\S+) at .*serves the model \"(\w+)\", which its pool", log.read())
        wait_until(said, "the log says it")
        self.assertEqual(said(), [(self.backends[1].address, "another")])

    def test_answers_of_one_connection_each_are_worth_as_much(self):
        def closes(request):
            request.answer(200, {"choices": []}, headers={"connection": "close"})
            request.close = True
        self.start(1, "health_check: {enabled: false}\nload_reports: {push: false}")
        self.backends[0].script = closes
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            statuses = {f.result().status for f in [pool.submit(self.proxy.chat, "hello?") for _ in range(60)]}
        self.assertEqual(statuses, {200})
        self.assertEqual(self.backends[0].connections, 60)
        self.assertEqual(self.proxy.metric("penstock_retries_total"), 0)


if __name__ == "__main__":
    main()
