"""HTTP/1 as a real proxy speaks it, byte by byte: connections, bodies of any size
under back pressure, framing that is refused, event streams."""

import contextlib
import hashlib
import http.client
import json
import os
import socket
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, chat, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 2
%spools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    circuit_breaker: {enabled: false}
"""

CHAT = json.dumps(chat("hello?")).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(CHAT) + CHAT


class HttpTest(StackTest):
    def start(self, script=None, server="", policy=POLICY, **more):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=policy % server if "%s" in policy else policy,
                                backends=[self.backend.address], **more)
        return self.proxy

    def memory(self):
        with open(f"/proc/{self.proxy.proxy.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


class ConnectionTest(HttpTest):
    def test_requests_share_a_connection_and_answers_keep_their_order(self):
        def answer(request):
            time.sleep(0.05 if "slow" in request.path else 0)
            request.answer(200, request.path.encode())
        self.start(answer)
        with self.proxy.raw() as connection:
            paths = [b"/slow/0", b"/1", b"/slow/2", b"/v1/models", b"/4"]
            connection.send(b"".join(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in paths))
            for path in paths:
                answer = connection.read_answer()
                self.assertEqual(answer.status, 200)
                self.assertIn(answer.body if path != b"/v1/models" else path, path)
            # And posts, one of them wrong in a way that leaves the framing alone.
            wrong = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
            connection.send(POST + wrong + POST)
            self.assertEqual([connection.read_answer().status for _ in range(3)], [200, 400, 200])
        self.assertLessEqual(self.backend.connections, 2)

    def test_a_hundred_pipelined_requests(self):
        self.start()
        with self.proxy.raw() as connection:
            connection.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\nx-request-id: n%d\r\n\r\n" % (n, n)
                                     for n in range(100)))
            for number in range(100):
                self.assertEqual(connection.read_answer().header("x-request-id"), f"n{number}")
        self.assertEqual([request.path for request in self.backend.requests], [f"/{n}" for n in range(100)])

    def test_a_byte_at_a_time_is_the_same(self):
        self.start()
        with self.proxy.raw() as connection:
            for byte in POST:
                connection.send(bytes([byte]))
            self.assertEqual(connection.read_answer().status, 200)
        self.assertEqual(self.backend.requests[0].body, CHAT)

    def test_connection_close_and_old_clients(self):
        self.start(lambda request: request.answer(200, b"ok"))
        for head, kept in [(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", False),
                           (b"GET /a HTTP/1.0\r\n\r\n", False),
                           (b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", True)]:
            with self.proxy.raw() as connection:
                connection.send(head)
                answer = connection.read_answer()
                self.assertEqual((answer.status, answer.body), (200, b"ok"))
                if kept:
                    connection.send(head)
                    self.assertEqual(connection.read_answer().status, 200)
                else:
                    self.assertEqual(connection.read_to_end(), b"")

    def test_an_old_client_gets_a_chunked_answer_by_its_end(self):
        self.start(lambda request: request.stream("one"))
        with self.proxy.raw() as connection:
            connection.send(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (len(CHAT), CHAT))
            head = connection.read_until(b"\r\n\r\n")
            self.assertNotIn(b"transfer-encoding", head.lower())
            self.assertTrue(connection.read_to_end().endswith(b"data: [DONE]\n\n"))

    def test_continue_comes_before_the_body(self):
        self.start()
        for path in (b"/v1/chat/completions", b"/other"):
            with self.proxy.raw() as connection:
                connection.send(b"POST %s HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
                                % (path, len(CHAT)))
                self.assertTrue(connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 "))
                connection.send(CHAT)
                self.assertEqual(connection.read_answer().status, 200)
            self.assertNotIn("expect", self.backend.requests[-1].headers)
        with self.proxy.raw() as connection:
            connection.send(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 200-maybe\r\ncontent-length: 5\r\n\r\n")
            self.assertEqual(connection.read_answer().status, 417)

    def test_answers_without_a_body(self):
        def answer(request):
            status = {"/204": 204, "/304": 304}.get(request.path, 200)
            request.send(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, b"content-length: 1000\r\n" if status != 204 else b""))
        self.start(answer)
        with self.proxy.raw() as connection:
            for method, path, status in [(b"HEAD", b"/", 200), (b"GET", b"/204", 204), (b"GET", b"/304", 304),
                                         (b"HEAD", b"/", 200)]:
                connection.send(b"%s %s HTTP/1.1\r\nhost: a\r\n\r\n" % (method, path))
                head = connection.read_until(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), head)
                if method == b"HEAD":
                    self.assertIn(b"content-length: 1000", head.lower())
        self.assertEqual(self.backend.connections, 1)

    def test_a_client_that_closes_its_side_has_left(self):
        self.start(lambda request: request.hang() if request.path == "/a" else request.answer(200, b"ok"))
        with self.proxy.raw() as connection:
            connection.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: self.backend.requests, "it is under way")
            connection.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(connection.read_to_end(), b"")
        self.assertTrue(self.backend.gone.wait(patient(20)), "the backend's request is cancelled")
        wait_until(lambda: self.proxy.metric("penstock_response_flags_total", flag="DC") == 1, "it is counted")
        self.assertEqual(self.proxy.request("GET", "/b").status, 200)

    def test_what_can_be_answered_at_once_is_answered_to_whoever_closes_its_side(self):
        self.start()
        for path, status in (("/v1/models", b"200"), ("/..", b"400")):
            with self.proxy.raw() as connection:
                connection.send(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path.encode())
                connection.socket.shutdown(socket.SHUT_WR)
                self.assertTrue(connection.read_to_end().startswith(b"HTTP/1.1 " + status), path)

    def test_ipv6_and_names(self):
        probe = socket.socket(socket.AF_INET6)
        try:
            probe.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 on this machine")
        finally:
            probe.close()
        six = FakeBackend(host="::1")
        self.addCleanup(six.close)
        stack = self.stack(engines=0, policy=POLICY % "", backends=[six.address], start=False)
        port = stack.proxy_address.rsplit(":", 1)[1]
        with open(stack.policy_file, encoding="utf-8") as file:
            text = file.read()
        stack.proxy_address = f"[::1]:{port}"
        stack.write_policy(text.replace(f"127.0.0.1:{port}", f"'[::1]:{port}'"))
        stack.start_proxy()
        self.assertEqual(stack.request("GET", "/a").status, 200)
        self.assertEqual(len(six.requests), 1)

    def test_a_backend_by_name(self):
        backend = FakeBackend()
        self.addCleanup(backend.close)
        stack = self.stack(engines=0, policy=POLICY % "", backends=[f"localhost:{backend.port}"])
        wait_until(lambda: stack.request("GET", "/a").status == 200, "the name is resolved", 10)


class BodyTest(HttpTest):
    SIZES = [0, 1, 4095, 65536, 65537, 1_000_003, 10_000_000]

    def test_request_bodies_of_every_size_and_framing(self):
        digests = []

        def digest(request):
            request.answer(200, hashlib.sha256(request.read_body()).hexdigest().encode())
        self.start(digest)
        self.backend.read_bodies = False
        with contextlib.closing(http.client.HTTPConnection(*self.proxy.proxy_address.split(":"), timeout=60)) as client:
            for size in self.SIZES:
                body = os.urandom(min(size, 65521)) * (size // 65521 + 1)
                body = body[:size]
                for pieces in (None, [body[i:i + 50_000] for i in range(0, size, 50_000)]):
                    if pieces is None:
                        client.request("POST", "/upload", body)
                    else:
                        client.request("POST", "/upload", iter(pieces), encode_chunked=True,
                                       headers={"transfer-encoding": "chunked"})
                    answer = client.getresponse()
                    self.assertEqual(answer.read().decode(), hashlib.sha256(body).hexdigest(), size)
        self.assertLess(self.memory(), 200 << 20)

    def test_answers_of_every_size_and_framing(self):
        piece = os.urandom(65521)

        def answer(request):
            size, framing = int(request.path.split("/")[1]), request.path.split("/")[2]
            body = (piece * (size // len(piece) + 1))[:size]
            if framing == "length":
                request.answer(200, body)
            elif framing == "chunked":
                request.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for at in range(0, size, 70_000):
                    request.chunk(body[at:at + 70_000])
                request.send(b"0\r\n\r\n")
            else:
                request.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
                request.close = True
        self.start(answer)
        with contextlib.closing(http.client.HTTPConnection(*self.proxy.proxy_address.split(":"), timeout=60)) as client:
            for size in self.SIZES:
                expected = (piece * (size // len(piece) + 1))[:size]
                for framing in ("length", "chunked", "close"):
                    client.request("GET", f"/{size}/{framing}")
                    self.assertEqual(hashlib.sha256(client.getresponse().read()).digest(),
                                     hashlib.sha256(expected).digest(), (size, framing))

    def test_a_slow_reader_holds_the_backend_not_our_memory(self):
        total = 30_000_000
        sent = []

        def answer(request):
            request.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
            piece = b"x" * 50_000
            for _ in range(total // len(piece)):
                request.send(piece)
                sent.append(len(piece))
        self.start(answer)
        before = self.memory()
        readers = []
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                reader = stack.enter_context(self.proxy.raw(30))
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                reader.send(b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                readers.append(reader)
            wait_until(lambda: len(self.backend.requests) == 4, "all are answered")
            time.sleep(2.5)
            self.assertLess(sum(sent), 4 * total)
            self.assertLess(self.memory() - before, 16 << 20)
            # Whoever reads on gets it all, whatever the pause, close or not.
            reader = readers[0]
            reader.read_until(b"\r\n\r\n")
            self.assertEqual(len(reader.read_to_end()), total)

    def test_the_end_of_an_answer_waits_for_a_slow_reader(self):
        # Small enough for the buffers on the way, so that the backend is long done.
        total = 3_000_000
        self.start(lambda request: request.answer(200, b"x" * total))
        with self.proxy.raw(30) as reader:
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            reader.send(b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            time.sleep(4)
            reader.read_until(b"\r\n\r\n")
            self.assertEqual(len(reader.read_to_end()), total)

    def test_a_slow_backend_holds_the_client(self):
        total, go_on = 20_000_000, threading.Event()

        def slow(request):
            go_on.wait(20)
            request.answer(200, str(len(request.read_body())).encode())
        self.start(slow)
        self.backend.read_bodies = False
        before = self.memory()
        with self.proxy.raw(30) as connection:
            connection.socket.setblocking(False)
            connection.socket.send(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % total)
            sent, piece, end = 0, b"x" * 100_000, time.monotonic() + 1.5
            while sent < total and time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    sent += connection.socket.send(piece[:total - sent])
            self.assertLess(sent, total)
            self.assertLess(self.memory() - before, 16 << 20)
            go_on.set()
            connection.socket.settimeout(30)
            while sent < total:
                sent += connection.socket.send(piece[:total - sent])
            self.assertEqual(connection.read_answer().body, str(total).encode())

    def test_an_early_answer_ends_the_upload(self):
        self.start(lambda request: request.answer(413, {}))
        self.backend.read_bodies = False
        with self.proxy.raw() as connection:
            connection.send(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome")
            self.assertEqual(connection.read_answer().status, 413)
            self.assertEqual(connection.read_to_end(), b"")


class FramingTest(HttpTest):
    REFUSED = {
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n": 400,
        b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello": 400,
        b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello": 400,
        b"content-length: 5,5\r\n\r\nhello": 400,
        b"content-length: +5\r\n\r\nhello": 400,
        b"content-length: -5\r\n\r\nhello": 400,
        b"content-length: 0x5\r\n\r\nhello": 400,
        b"content-length: 5 5\r\n\r\nhello": 400,
        b"content-length:\r\n\r\nhello": 400,
        b"content-length: 18446744073709551621\r\n\r\nhello": 400,
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n": 400,
        b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n": 501,
        b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n": 501,
        b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n": 400,
        b"transfer-encoding: chunked\r\n\r\n12345678123456781\r\nhello": 400,
        b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n": 400,
        b"x: a\r\n  folded\r\n\r\n": 400,
        b" x: a\r\n\r\n": 400,
        b"x: a\ny: b\r\n\r\n": 400,
        b"x: a\rb\r\n\r\n": 400,
        b"x: a\0b\r\n\r\n": 400,
        b"no colon\r\n\r\n": 400,
        b": empty\r\n\r\n": 400,
        b"na me: a\r\n\r\n": 400,
        b"host: b\r\n\r\n": 400,
        b"x: " + b"y" * 70_000 + b"\r\n\r\n": 431,
        b"x: y\r\n" * 101 + b"\r\n": 431,
    }
    LINES = {
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n": 414,
        b"GET / HTTP/1.2\r\nhost: a\r\n\r\n": 505,
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n": 505,
        b"GET /\r\nhost: a\r\n\r\n": 505,
        b"G\x01T / HTTP/1.1\r\nhost: a\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\n\r\n": 400,
        b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n": 400,
        b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n": 400,
    }

    def refused(self, name, data, status):
        with self.subTest(name), self.proxy.raw() as connection:
            with contextlib.suppress(ConnectionError):
                connection.send(data + b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
            answer = connection.read_answer()
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.header("connection").lower(), "close")
            self.assertIn("message", answer.json()["error"])
            self.assertEqual(connection.read_to_end(), b"")

    def test_hostile_framing_is_refused_closed_and_never_forwarded(self):
        self.start()
        for data, status in self.REFUSED.items():
            self.refused(data[:60], b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n" + data, status)
        for data, status in self.LINES.items():
            self.refused(data[:60], data, status)
        self.assertEqual([request.head[:80] for request in self.backend.requests], [])
        self.assertGreater(self.proxy.metric("penstock_client_protocol_errors_total"), 30)
        self.assertEqual(self.proxy.request("GET", "/still-here").status, 200)

    def test_a_bad_body_is_refused_while_it_streams_through(self):
        self.start()
        self.backend.read_bodies = False
        self.backend.script = lambda request: request.hang()
        with self.proxy.raw() as connection:
            connection.send(b"POST /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            wait_until(lambda: self.backend.requests, "it is on its way")
            connection.send(b"XX\r\n")
            answer = connection.read_answer()
            self.assertEqual(answer.status, 400)
            self.assertEqual(connection.read_to_end(), b"")
        self.assertTrue(self.backend.gone.wait(10), "the backend's connection is not used again")

    def test_bytes_of_the_backend_that_nobody_asked_for_reach_nobody(self):
        def two(request):
            request.answer(200, b"mine")
            request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nothers")
            request.hang()
        self.start(two)
        for _ in range(6):
            answer = self.proxy.request("GET", "/a")
            self.assertEqual((answer.status, answer.body), (200, b"mine"))
            # Bytes that cross a request on the wire are its answer to any HTTP/1 client.
            self.assertTrue(self.backend.gone.wait(10), "the connection is closed")
            self.backend.gone.clear()

    def test_hop_by_hop_fields_stay_on_their_hop(self):
        self.start(lambda request: request.answer(200, b"", {"keep-alive": "timeout=5", "x-kept": "yes",
                                                             "proxy-authenticate": "no"}))
        with self.proxy.raw() as connection:
            connection.send(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-mine\r\nx-mine: 1\r\n"
                            b"keep-alive: 5\r\nte: trailers\r\nupgrade: websocket\r\nx-end-to-end: 1\r\n\r\n")
            answer = connection.read_answer()
        self.assertEqual(answer.header("x-kept"), "yes")
        self.assertEqual(answer.header("keep-alive"), "")
        got = self.backend.requests[0].headers
        self.assertEqual(got.get("x-end-to-end"), "1")
        for name in ("keep-alive", "te", "upgrade", "x-mine"):
            self.assertNotIn(name, got)


class EventTest(HttpTest):
    PLACE = b"id: 9\nretry: 10\n"

    def test_events_pass_byte_for_byte(self):
        stream = (b": ping\n\n"
                  b"event: delta\n" + self.PLACE + b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
                  b"data:no space\ndata: two lines\n\n" b"data: crlf\r\n\r\n" b"data: \xc3\xa9\n\n"
                  b":\n\n" b"data: [DONE]\n\n" b": after the end\n\n")
        for cut in (1, 2, 3, 7, 50, len(stream)):
            def answer(request, cut=cut):
                request.begin_events({"x-of": "the backend"})
                for at in range(0, len(stream), cut):
                    request.chunk(stream[at:at + cut])
                request.send(b"0\r\n\r\n")
            if cut == 1:
                self.start(answer)
            self.backend.script = answer
            got = self.proxy.request("GET", "/feed")
            self.assertEqual(got.body, stream, cut)
            self.assertEqual(got.header("x-of"), "the backend")
            # Where SDKs would take a place in the stream for data, that alone is left out.
            got = self.proxy.request("POST", "/v1/chat/completions", chat("hello?", stream=True))
            self.assertEqual(got.body, stream.replace(self.PLACE, b""), cut)

    def test_an_event_is_there_before_the_next_one_is_made(self):
        turn = threading.Semaphore(0)

        def answer(request):
            request.begin_events()
            for number in range(20):
                request.token(str(number))
                if not turn.acquire(timeout=10):
                    return
            request.end_events()
        self.start(answer)
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            for number, token in enumerate(stream.tokens()):
                self.assertEqual(token, str(number))
                turn.release()
            self.assertEqual(number, 19)

    def test_an_event_beyond_the_limit_breaks_the_stream(self):
        def answer(request):
            request.begin_events()
            request.token("a")
            with contextlib.suppress(OSError):
                for _ in range(40):
                    request.chunk(b"x" * 4096)
            request.hang()
        self.start(answer, server="  limits: {event_bytes: 64KiB}\n")
        body = b""
        with self.proxy.raw() as connection:
            data = json.dumps(chat("hello?", stream=True)).encode()
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s"
                            % (len(data), data))
            body = connection.read_to_end()
        self.assertIn(b"backend_bad_answer", body)
        self.assertNotIn(b"xxxx", body)
        self.assertFalse(body.endswith(b"0\r\n\r\n"))

    def test_backends_are_asked_for_plain_events(self):
        self.start()
        self.proxy.chat("hello?", headers={"accept-encoding": "br, gzip"})
        self.proxy.request("GET", "/a", headers={"accept-encoding": "br"})
        self.assertEqual(self.backend.requests[0].headers["accept-encoding"], "identity")
        self.assertEqual(self.backend.requests[1].headers["accept-encoding"], "br")


if __name__ == "__main__":
    main()
