"""HTTP/2 as an attacker speaks it, against a whole proxy: each case names what ends
it, no case costs the backend more than a few requests, and others are served on."""

import struct

from tests.support import h2_raw
from tests.support.fake_backend import FakeBackend
from tests.support.h2_raw import (ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM,
                                  ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GET, GOAWAY, HEADERS,
                                  PADDED, PING, POST, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
                                  REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, H2Raw, at,
                                  block, frame, number)
from tests.support.stack import StackTest, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 1
  timeouts: {request_headers: 4s}   # Also the time that a client has to acknowledge our settings.
pools:
  - name: main
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
"""

FIELDS = block(GET)


def floods():
    """(case, what opens it, what is said again and again, the limit that it passes; None:
    more than one may end it, by how its bytes arrive)."""
    def opened(stream):
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, FIELDS)

    def reset_later(stream):
        return opened(stream), frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))

    def made(rest):
        """A request, and a frame that makes the server reset it."""
        return lambda stream: (frame(HEADERS, END_HEADERS, stream, block(POST)), rest(stream))

    zero = struct.pack(">I", 0)
    yield "rapid reset", b"", reset_later, "resets"
    yield ("made reset: window update of 0", b"", made(lambda s: frame(WINDOW_UPDATE, 0, s, zero)), None)
    yield ("made reset: window overflow", b"",
           made(lambda s: frame(WINDOW_UPDATE, 0, s, struct.pack(">I", 2**31 - 1))), None)
    yield ("made reset: priority of 4 bytes", b"", made(lambda s: frame(PRIORITY, 0, s, zero)), None)
    yield ("made reset: data beyond the length", b"",
           lambda s: (frame(HEADERS, END_HEADERS, s, block([*POST, ("content-length", "1")])),
                      frame(DATA, END_STREAM, s, b"abc")), None)
    yield "settings", b"", lambda _: (frame(SETTINGS, 0, 0),), None
    yield "pings", b"", lambda _: (frame(PING, 0, 0, b"12345678"),), None
    yield "ping answers", b"", lambda _: (frame(PING, ACK, 0, b"12345678"),), "glitches"
    yield "priorities", b"", lambda _: (frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),), "priorities"
    yield "unknown frames", b"", lambda _: (frame(0xbe, 0, 0, b"x"),), "glitches"
    yield ("window updates", b"", lambda _: (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),), "window_updates")
    yield ("empty data", frame(HEADERS, END_HEADERS, 1, block(POST)), lambda _: (frame(DATA, 0, 1),), "empty_frames")
    yield ("endless continuation", frame(HEADERS, 0, 1, FIELDS),
           lambda _: (frame(CONTINUATION, 0, 1, block([("a", "b")])),), "continuations")
    yield ("empty continuation", frame(HEADERS, 0, 1, FIELDS), lambda _: (frame(CONTINUATION, 0, 1),), None)


def verdicts():
    """(case, bytes after the greeting, code of the GOAWAY)."""
    request = frame(HEADERS, END_HEADERS | END_STREAM, 1, FIELDS)
    yield "an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, FIELDS), {PROTOCOL_ERROR}
    yield ("a stream below the last one", frame(HEADERS, END_HEADERS | END_STREAM, 5, FIELDS) +
           frame(HEADERS, END_HEADERS | END_STREAM, 3, FIELDS), {PROTOCOL_ERROR, STREAM_CLOSED})
    yield "data on a stream that is idle", frame(DATA, 0, 7, b"x"), {PROTOCOL_ERROR}
    yield "a frame of 16385 bytes", request + frame(DATA, 0, 1, b"x" * 16385), {FRAME_SIZE_ERROR}
    yield "settings of 5 bytes", frame(SETTINGS, 0, 0, b"12345"), {FRAME_SIZE_ERROR}
    yield "a ping of 7 bytes", frame(PING, 0, 0, b"1234567"), {FRAME_SIZE_ERROR}
    yield "a reset of 3 bytes", request + frame(RST_STREAM, 0, 1, b"123"), {FRAME_SIZE_ERROR}
    yield ("padding beyond the payload", frame(HEADERS, END_HEADERS, 1, block(POST)) +
           frame(DATA, PADDED, 1, b"\xffabc"), {PROTOCOL_ERROR})
    yield "a promise of a client", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + FIELDS), {PROTOCOL_ERROR}
    yield ("a connection window that overflows", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
           {FLOW_CONTROL_ERROR})
    yield "a connection window opened by 0", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)), {PROTOCOL_ERROR}
    yield ("a table of 64 KiB", frame(HEADERS, END_HEADERS | END_STREAM, 1, number(0x20, 5, 65536) + FIELDS),
           {COMPRESSION_ERROR})
    yield "index 0", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"), {COMPRESSION_ERROR}
    yield ("an index beyond the table", frame(HEADERS, END_HEADERS | END_STREAM, 1, number(0x80, 7, 200)),
           {COMPRESSION_ERROR})
    yield ("a number without end", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" + b"\xff" * 10),
           {COMPRESSION_ERROR})
    yield "settings of 33 entries", frame(SETTINGS, 0, 0, struct.pack(">HI", 9, 1) * 33), {ENHANCE_YOUR_CALM}
    yield ("another frame inside a head", frame(HEADERS, 0, 1, FIELDS) + frame(PING, 0, 0, b"12345678"),
           {PROTOCOL_ERROR})


def refusals():
    """(case, fields, body): the stream is reset or answered with 4xx, the connection goes on."""
    def without(name):
        return [field for field in GET if field[0] != name]
    yield "no method", without(":method"), None
    yield "no path", without(":path"), None
    yield "two paths", [*GET, (":path", "/y")], None
    yield "an unknown pseudo-field", [(":what", "x"), *GET], None
    yield "a pseudo-field after a field", [*without(":path"), ("a", "b"), (":path", "/x")], None
    yield "an empty path", at(""), None
    yield "a path without a slash", at("x"), None
    yield "a scheme with a path", [(n, "http://x/?" if n == ":scheme" else v) for n, v in GET], None
    yield "a method that is no token", [(n, "GET?/ x" if n == ":method" else v) for n, v in GET], None
    yield "a name in upper case", [*GET, ("X-A", "b")], None
    yield "an empty name", [*GET, ("", "b")], None
    for name, value in (("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "1"),
                        ("upgrade", "h2c"), ("proxy-connection", "x"), ("te", "gzip")):
        yield f"{name}: {value}", [*GET, (name, value)], None
    for value in ("a\r\nx-smuggled: 1", "a\nb", "a\0b", "\ra"):
        yield f"a value of {value!r}", [*GET, ("a", value)], None
    yield "a body shorter than its length", [*POST, ("content-length", "10")], b"abc"
    yield "a body longer than its length", [*POST, ("content-length", "1")], b"abc"
    yield "two lengths", [*POST, ("content-length", "3"), ("content-length", "4")], b"abc"
    yield "connect", [(":method", "CONNECT"), (":authority", "a:1")], None
    yield "101 fields", [*GET, *[("a", "b")] * 101], None
    yield "crumbs of cookies", [*GET, *[("cookie", "a")] * 120], None
    yield "64 KiB of fields", [*GET, *[("a", "b" * 6000)] * 11], None


class AbuseTest(StackTest):
    """One proxy for a whole table; after each case an ordinary client is served."""

    def proxied(self, script=None):
        backend = FakeBackend(script)
        self.addCleanup(backend.close)
        return self.stack(engines=0, backends=[backend.address], policy=POLICY), backend

    def counted(self, stack, limit):
        """Floods by that limit, and clients that were asked to leave before it."""
        return (stack.metric("penstock_client_h2_floods_total", limit=limit) if limit else 0,
                stack.metric("penstock_client_h2_goaways_total", reason="near_flood"))

    def assert_served(self, stack):
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, GET)
            self.assertEqual(client.answer(1).status, 200)

    def test_floods_end_with_goaway_and_cost_the_backend_little(self):
        stack, backend = self.proxied()
        for case, opening, again, limit in floods():
            with self.subTest(case), H2Raw(stack.proxy_address) as client:
                before = len(backend.requests)
                counted, asked = self.counted(stack, limit)
                alive = client.send(opening)
                for stream in range(3, 40_003, 2):
                    # One write a frame, so that requests do reach the backend.
                    if not alive:
                        break
                    for one in again(stream):
                        alive = client.send(one) and alive
                    if stream % 50 == 1:
                        while client.read(wait=0):
                            pass
                        alive = alive and not client.closed
                code = client.until_closed()
                self.assertLess(len(backend.requests) - before, 500)
                if code == h2_raw.NO_ERROR:   # Near the limit it was asked to leave, and was too slow to pass it.
                    self.assertIn(limit, ("resets", "glitches", None))
                    self.assertEqual(self.counted(stack, limit), (counted, asked + 1))
                else:
                    self.assertIn(code, (ENHANCE_YOUR_CALM, PROTOCOL_ERROR, FRAME_SIZE_ERROR))
                    self.assertEqual(self.counted(stack, limit)[0], counted + 1 if limit else counted)
                self.assert_served(stack)
        wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "nothing is left behind")

    def test_a_hundred_thousand_resets_reach_the_backend_less_than_500_times(self):
        stack, backend = self.proxied(lambda request: request.hang())
        sent = 0
        while sent < 100_000:
            with H2Raw(stack.proxy_address) as client:
                alive, stream, batch = True, 1, b""
                while alive and sent < 100_000 and stream < 20_000:
                    batch = b"".join(frame(HEADERS, END_HEADERS | END_STREAM, s, FIELDS) +
                                     frame(RST_STREAM, 0, s, struct.pack(">I", CANCEL))
                                     for s in range(stream, stream + 200, 2))
                    alive, stream, sent = client.send(batch), stream + 200, sent + 100
                client.until_closed() if not alive else None
        self.assertLess(len(backend.requests), 500)
        wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "all are cancelled")

    def test_what_breaks_the_protocol_ends_with_its_code(self):
        stack, backend = self.proxied(lambda request: request.answer(body=b"x" * 10))
        for case, said, codes in verdicts():
            with self.subTest(case), H2Raw(stack.proxy_address) as client:
                client.send(said)
                self.assertIn(client.until_closed(), codes)
        self.assert_served(stack)
        self.assertLess(len(backend.requests), 10)

    def test_a_bad_request_is_refused_on_its_stream_alone(self):
        stack, backend = self.proxied()
        for case, fields, body in refusals():
            with self.subTest(case), H2Raw(stack.proxy_address) as client:
                client.headers(1, fields, end=body is None)
                if body is not None:
                    client.data(1, body, end=True)
                heard = client.answer(1)
                self.assertTrue(heard.reset in (PROTOCOL_ERROR, CANCEL, REFUSED_STREAM) or
                                400 <= heard.status < 500 or heard.status == 501,
                                f"{heard.headers} {heard.reset}")
                client.headers(3, GET)
                self.assertEqual(client.answer(3).status, 200, client.goaway)
        # None of it was written to a backend as a request of its own.
        for request in backend.requests:
            self.assertNotIn("x-smuggled", request.headers)
            self.assertIn(request.method, ("GET", "POST"))

    def test_the_authority_is_what_backends_see(self):
        stack, backend = self.proxied()
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, [*GET, ("host", "other")])
            heard = client.answer(1)
        if heard.status == 200:
            self.assertEqual(backend.requests[-1].headers["host"], "api")
        else:
            self.assertTrue(heard.reset is not None or heard.status == 400)

    def test_a_hundred_streams_without_a_window_cost_a_bounded_buffer(self):
        def script(request):
            request.begin_events()
            while True:
                request.token("x" * 1000)
        stack, backend = self.proxied(script)
        before = stack.metric("process_resident_memory_bytes")
        with H2Raw(stack.proxy_address, settings={4: 0}) as client:
            client.ping()
            for stream in range(1, 201, 2):
                client.headers(stream, GET)
            wait_until(lambda: len(backend.requests) == 100, "a hundred are there")
            client.ping()
            grown = stack.metric("process_resident_memory_bytes") - before
            self.assertLess(grown, patient(64 << 20))
        wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "all are cancelled")

    def test_a_greeting_that_does_not_end_is_not_waited_for(self):
        stack, _ = self.proxied()
        for said in (PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:5]):
            with self.subTest(said), H2Raw(stack.proxy_address, greet=False) as client:
                client.send(said)
                client.until_closed()
        with H2Raw(stack.proxy_address, greet=False) as client:
            client.send(PREFACE + frame(PING, 0, 0, b"12345678"))
            self.assertEqual(client.until_closed(), PROTOCOL_ERROR)

    def test_trailers_with_pseudo_fields_reset_the_stream(self):
        stack, _ = self.proxied()
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, POST, end=False)
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block([(":path", "/y")])))
            self.assertEqual(client.answer(1).reset, PROTOCOL_ERROR)
            client.headers(3, GET)
            self.assertEqual(client.answer(3).status, 200)

    def test_goaway_of_a_client_lets_what_it_has_finish(self):
        stack, _ = self.proxied()
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, POST, end=False)
            client.send(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
            client.ping()
            client.data(1, b"abc", end=True)
            self.assertEqual(client.answer(1).status, 200)
            self.assertEqual(client.until_closed(), h2_raw.NO_ERROR)


if __name__ == "__main__":
    main()
