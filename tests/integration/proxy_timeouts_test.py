"""Every limit of time of a real proxy: what the client gets, which counter moves,
and who is held to be at fault. Limits are short here; nothing is timed from above."""

import contextlib
import json
import socket
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackError, StackTest, chat, main, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
  timeouts: {request_headers: 400ms, request_body_idle: 400ms, keep_alive: 600ms}
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    retry: {attempts: 0}
    timeouts: {connect: 300ms, first_token: 400ms, response: 500ms, idle: 400ms}
"""


class TimeoutTest(StackTest):
    def setUp(self):
        self.backend = FakeBackend()
        self.addCleanup(self.backend.close)

    def start(self, policy=POLICY, backends=None):
        self.proxy = self.stack(engines=0, policy=policy, backends=backends or [self.backend.address])
        return self.proxy

    def count(self, kind, pool="lexicon"):
        return self.proxy.metric("penstock_timeouts_total", kind=kind, pool=pool)

    def fails(self, answer, status, code):
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (status, code))

    def blamed(self):
        """A fault counts as five seconds of latency."""
        return (self.proxy.admin("/backends")["pools"][0]["backends"][0]["ttft_s"] or 0) > 2

    def test_connecting(self):
        with contextlib.ExitStack() as sockets:
            # A listener whose queue is full answers no further SYN.
            full = sockets.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(full.getsockname())
            self.start(backends=[f"127.0.0.1:{full.getsockname()[1]}"])
            self.fails(self.proxy.chat("hello?"), 504, "backend_connect_timeout")
            self.assertEqual(self.count("connect"), 1)
            self.assertEqual(self.proxy.metric("penstock_backend_connect_failures_total", reason="timeout"), 1)

    def test_the_headers_of_a_request(self):
        self.start()
        with self.proxy.raw() as connection:
            connection.send(b"POST /v1/chat/completions HT")
            answer = connection.read_answer()
            self.fails(answer, 408, "request_timeout")
            self.assertEqual(connection.read_to_end(), b"")
        # Byte by byte does not help: the limit is for all of them.
        with self.proxy.raw() as connection, contextlib.suppress(OSError):
            end = time.monotonic() + 10
            for byte in b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 1000:
                connection.send(bytes([byte]))
                connection.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if connection.socket.recv(4096):
                        break
                self.assertLess(time.monotonic(), end, "it was let go on")
        wait_until(lambda: self.count("request_headers", "none") == 2, "both are counted")

    def test_the_body_of_a_request(self):
        self.start()
        for path in (b"/v1/chat/completions", b"/elsewhere"):
            for framing in (b"content-length: 100", b"transfer-encoding: chunked"):
                for part in (b"", b"5\r\n{\"mod"):
                    with self.subTest(path=path, framing=framing, part=part), self.proxy.raw() as connection:
                        connection.send(b"POST %s HTTP/1.1\r\nhost: a\r\n%s\r\n\r\n%s" % (path, framing, part))
                        answer = connection.read_answer()
                        self.fails(answer, 408, "request_timeout")
                        self.assertEqual(connection.read_to_end(), b"")
        self.assertEqual(self.count("request_body") + self.count("request_body", "none"), 8)
        self.assertEqual(self.count("first_token"), 0)
        self.assertFalse(self.blamed())
        wait_until(lambda: self.proxy.metric("penstock_backend_requests_active") == 0, "nothing is left there")

    def test_the_first_token(self):
        def silent(request):
            request.hang()

        def head_only(request):
            request.begin_events()
            request.chunk(b": ping\n\n")
            request.hang()
        self.start()
        self.backend.script = silent
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            self.assertEqual(stream.status, 504)
            self.assertIn("sent no answer within 400ms", stream.error())
        self.assertEqual(self.count("first_token"), 1)
        # A comment is no token: nothing of that answer has left for the client.
        self.backend.script = head_only
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            self.assertEqual(stream.status, 504)
            self.assertIn("no token", stream.error())
        self.assertEqual(self.count("first_token"), 2)
        self.assertEqual(self.count("idle"), 0)
        self.assertTrue(self.blamed())

    def test_the_time_between_tokens(self):
        def stalls(request):
            request.begin_events()
            request.token("one")
            request.hang()
        self.start()
        self.backend.script = stalls
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            events = []
            with self.assertRaisesRegex(StackError, "the stream was cut"):
                for event in stream:
                    events.append(event)
        self.assertEqual(len(events), 2)
        error = json.loads(events[1])["error"]
        self.assertEqual((error["type"], error["code"]), ("server_error", "backend_idle_timeout"))
        self.assertEqual(self.count("idle"), 1)
        self.assertEqual(self.count("first_token"), 0)
        self.assertTrue(self.backend.gone.wait(10), "the backend is told")

    def test_a_slow_stream_that_goes_on_is_no_stall(self):
        def slow(request):
            request.begin_events()
            for number in range(5):
                request.token(str(number))
                time.sleep(0.2)
            request.end_events()
        self.start()
        self.backend.script = slow
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            self.assertEqual("".join(stream.tokens()), "01234")

    def test_a_whole_answer(self):
        self.start()
        self.backend.script = lambda request: request.hang()
        self.fails(self.proxy.chat("hello?"), 504, "backend_timeout")
        self.fails(self.proxy.request("GET", "/elsewhere"), 504, "backend_timeout")

        def stalls(request):
            request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            request.hang()
        self.backend.script = stalls
        with self.assertRaises(StackError):
            self.proxy.chat("hello?")
        self.assertEqual(self.count("idle"), 1)

    def test_a_connection_without_a_request(self):
        self.start()
        with self.proxy.raw() as fresh, self.proxy.raw() as used:
            used.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            self.assertEqual(used.read_answer().status, 200)
            self.assertEqual(fresh.read_to_end(), b"")
            self.assertEqual(used.read_to_end(), b"")
        self.assertEqual(self.count("keep_alive", "none"), 2)

    def test_a_client_that_does_not_read_is_cut_and_its_backend_not_blamed(self):
        def pours(request):
            request.begin_events()
            request.token("a")
            piece = b"data: " + b"x" * 16384 + b"\n\n"
            while True:
                request.chunk(piece)
        self.start()
        self.backend.script = pours
        with self.proxy.raw() as connection:
            body = json.dumps(chat("hello?", stream=True)).encode()
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
                            b"content-length: %d\r\n\r\n%s" % (len(body), body))
            connection.read_until(b"\r\n\r\n")
            wait_until(lambda: self.proxy.metric("penstock_http_requests_active") == 0, "it is given up")
        self.assertEqual(self.count("idle"), 0)
        self.assertFalse(self.blamed())
        self.assertEqual(self.proxy.metric("penstock_response_flags_total", flag="DC"), 1)

    def test_retried_elsewhere_before_the_first_event(self):
        def hangs(request):
            request.hang()
        good = FakeBackend(lambda request: request.stream("well"))
        self.addCleanup(good.close)
        self.backend.script = hangs
        policy = POLICY.replace("retry: {attempts: 0}",
                                "retry: {attempts: 1}\n    load_balancing: {algorithm: round_robin}")
        self.start(policy, [self.backend.address, good.address])
        for _ in range(6):
            with contextlib.closing(self.proxy.stream("hello?")) as stream:
                self.assertEqual("".join(stream.tokens()), "well")
        self.assertGreater(len(self.backend.requests), 0)
        self.assertEqual(self.proxy.metric("penstock_retries_total", reason="timeout"),
                         len(self.backend.requests))


if __name__ == "__main__":
    main()
