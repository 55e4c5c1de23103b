"""A real proxy that has too much to do itself: what it gives up, what goes on
meanwhile, and that it is as before when it is over."""

import contextlib
import json
import os
import signal
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.load import Load
from tests.support.stack import StackTest, chat, main, patient, request, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 1
%spools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
"""
ASK = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"
MIB = 1 << 20


class OverloadTest(StackTest):
    def start(self, server="", script=None):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=POLICY % server, backends=[self.backend.address])
        return self.proxy

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            return log.read()


class AcceptRateTest(OverloadTest):
    def test_a_herd_that_comes_back_at_once_waits_in_the_kernel_and_is_served(self):
        self.start("  limits: {accepts_per_second: 400}\n")
        begun = time.monotonic()
        with contextlib.ExitStack() as herd:
            clients = [herd.enter_context(self.proxy.raw(30)) for _ in range(300)]
            for client in clients:
                client.send(ASK)
            self.assertEqual({client.read_answer().status for client in clients}, {200})
        # Of 300, a burst of 40 comes at once and the others at 400 a second.
        self.assertGreater(time.monotonic() - begun, 0.5)
        self.assertGreater(self.proxy.metric("penstock_accept_pauses_total", reason="rate"), 10)
        self.assertEqual(self.proxy.metric("penstock_client_connections_refused_total"), 0)
        self.assertEqual(self.proxy.metric("penstock_client_connections_total"), 300)


class MemoryTest(OverloadTest):
    def hold(self, count):
        """Bodies of 8 MiB that never end: memory that the proxy cannot give back."""
        body = json.dumps(chat("x" * (8 * MIB))).encode()
        for _ in range(count):
            client = self.held.enter_context(self.proxy.raw(30))
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
                        % (len(body) + 1) + body)

    def level(self):
        return self.proxy.metric("penstock_overload_level")

    def hold_and_let_it_look(self):
        # The guard looks every 250 ms: what comes faster than that skips a level.
        self.hold(1)
        time.sleep(0.3)

    def test_new_requests_are_refused_in_time_streams_go_on_and_it_recovers(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def script(request):
            if b'"stream": true' not in request.body:
                return request.answer(200, {"choices": []})
            request.begin_events()
            request.token("one")
            go_on.wait(60)
            request.token("two")
            request.end_events()
        self.start(script=script)
        self.held = self.enterContext(contextlib.ExitStack())
        with contextlib.closing(self.proxy.stream("hello?", timeout=90)) as stream:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            base = self.proxy.metric("penstock_memory_used_bytes")
            limit = int(base + 80 * MIB) // MIB
            self.proxy.write_policy(POLICY % f"  overload: {{memory_limit: {limit}MiB, shorten_idle: 50%, "
                                    "close_after_answer: 60%, reject_requests: 70%, stop_accepting: 100%}\n")
            self.proxy.proxy.send(signal.SIGHUP)
            wait_until(lambda: self.proxy.metric("penstock_memory_limit_bytes") == limit * MIB, "it is in force")
            wait_until(lambda: self.level() >= 3 or self.hold_and_let_it_look(), "memory is short", 60)
            answer = self.proxy.chat("hello?")
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "overloaded"))
            self.assertEqual(answer.header("x-should-retry"), "false")
            self.assertIn(int(answer.header("retry-after")), range(1, 9))
            self.assertEqual(answer.header("connection"), "close")
            self.assertEqual(request(self.proxy.admin_address, "GET", "/readyz").status, 200)
            self.assertGreaterEqual(self.proxy.metric("penstock_shed_requests_total", reason="memory"), 1)
            self.held.close()
            if patient(1) > 1:
                return   # A sanitizer keeps what is freed.
            wait_until(lambda: self.level() < 3, "it recovers", 60)
            self.assertEqual(self.proxy.chat("hello?").status, 200)
            go_on.set()
            self.assertEqual(list(tokens), ["two"])
        self.assertRegex(self.log(), r"memory: \d+ % of \d+ MiB in use: reject_requests \(was ")

    def test_at_the_last_level_connections_wait_and_are_served_when_it_is_over(self):
        self.start("  overload: {memory_limit: 16MiB, shorten_idle: 1%, close_after_answer: 1%, "
                   "reject_requests: 1%, stop_accepting: 1%}\n")
        wait_until(lambda: self.level() == 4, "nothing is accepted")
        wait_until(lambda: self.proxy.metric("penstock_accept_pauses_total", reason="memory") == 1, "it waits")
        accepted = self.proxy.metric("penstock_client_connections_total")
        with self.proxy.raw(30) as waiting:
            waiting.send(ASK)
            time.sleep(0.5)
            self.assertEqual(self.proxy.metric("penstock_client_connections_total"), accepted)
            self.proxy.write_policy(POLICY % "")
            self.assertEqual(waiting.read_answer().status, 200)
        self.assertEqual(self.level(), 0)


class LateTurnsTest(OverloadTest):
    def test_a_loop_that_cannot_keep_up_sheds_new_requests_and_no_stream(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def script(request):
            if b'"stream": true' not in request.body:
                return request.answer(200, {"choices": []})
            request.begin_events()
            while not go_on.wait(0.1):
                request.token("x")
            request.end_events()
        self.start("  overload: {loop_delay_from: 5ms, loop_delay_full: 400ms}\n", script)
        with contextlib.closing(self.proxy.stream("hello?", timeout=90)) as stream:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "x")
            with Load(self.proxy.proxy_address, clients=2, streamed=False) as load, self.starved():
                wait_until(lambda: any(outcome.status == 503 for outcome in load.done()), "it sheds", 60)
            outcomes = [(outcome.status, outcome.error) for outcome in load.stop()]
            self.assertEqual({status for status, _ in outcomes}, {200, 503})
            for status, error in outcomes:
                self.assertTrue(status == 200 or "too busy" in error, error)
            self.assertGreater(self.proxy.metric("penstock_shed_requests_total", reason="loop_delay"), 0)
            # Nobody has to do anything for it to end.
            wait_until(lambda: {self.proxy.chat("hello?").status for _ in range(20)} == {200}, "it recovers")
            go_on.set()
            self.assertEqual(set(tokens), {"x"})

    @contextlib.contextmanager
    def starved(self):
        """The proxy runs for a moment now and then, as on a machine with far too much to do."""
        over = threading.Event()

        def starve():
            while not over.is_set():
                self.proxy.proxy.send(signal.SIGSTOP)
                over.wait(0.15)
                self.proxy.proxy.send(signal.SIGCONT)
                over.wait(0.03)
        thread = threading.Thread(target=starve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.proxy.proxy.send(signal.SIGCONT)


class DescriptorTest(OverloadTest):
    def test_a_limit_of_connections_that_cannot_be_met_is_told_and_does_not_run_out(self):
        self.start_with_descriptors(200)
        self.assertRegex(self.log(), r"limits.connections is 10000, but 200 open files allow \d+ client connections")
        with contextlib.ExitStack() as herd:
            statuses = []
            for _ in range(150):
                client = herd.enter_context(self.proxy.raw(30))
                try:
                    client.send(ASK)
                    statuses.append(client.socket.recv(1) == b"H")
                except ConnectionError:  # Closed before it was asked.
                    statuses.append(False)
        self.assertIn(False, statuses)  # Closed, rather than left to wait.
        self.assertGreaterEqual(sum(statuses), 40)
        self.assertNotIn("Too many open files", self.log())
        wait_until(lambda: self.proxy.metric("penstock_client_connections") == 0, "they are gone")
        self.assertEqual(self.proxy.chat("hello?").status, 200)

    def start_with_descriptors(self, count):
        if patient(1) > 1:
            self.skipTest("a sanitizer needs descriptors for its own checks")
        self.backend = FakeBackend()
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=POLICY % "", backends=[self.backend.address], start=False)
        process = self.proxy.start_proxy(wait=False, before=("prlimit", f"--nofile={count}:{count}"))
        wait_until(lambda: process.require_alive() or " ready: " in self.log(), "it serves")


if __name__ == "__main__":
    main()
