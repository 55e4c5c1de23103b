"""What a real proxy takes from the network and what it passes on, byte by byte: PROXY
headers, who the client is, oddly spelt requests, and answers of backends that are no
HTTP or end too early. See docs/hardening.md for the list that this is a part of."""

import contextlib
import json
import os
import socket
import struct
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, chat, main, wait_until

POLICY = """\
version: v1
server:
  listeners:
    - {address: {listen}, debug_headers: true%(listener)s}
  admin: {address: {admin}}
  workers: 2
%(server)spools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    circuit_breaker: {enabled: false}
    retry: {attempts: 0}
observability: {access_log: "%(log)s"}
"""
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
CHAT = json.dumps(chat("hello?")).encode()


class EdgeTest(StackTest):
    def start(self, script=None, listener="", server=""):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy="version: v1\n", backends=[self.backend.address], start=False)
        self.access_log = os.path.join(self.proxy.folder, "access.log")
        self.proxy.write_policy(POLICY % {"listener": listener, "server": server, "log": self.access_log})
        self.proxy.start()

    def ask(self, data):
        """The whole of what is said to these bytes, up to the end of the connection."""
        with self.proxy.raw() as connection:
            with contextlib.suppress(ConnectionError):
                connection.send(data)
            return connection.read_to_end()

    def last_head(self):
        return self.backend.requests[-1].head.decode("latin-1").lower()

    def logged(self, count):
        def lines():
            with contextlib.suppress(FileNotFoundError), open(self.access_log, encoding="utf-8") as log:
                found = log.read().splitlines()
                return found if len(found) >= count else None
            return None
        return [json.loads(line) for line in wait_until(lines, f"{count} lines of the access log")]


class ProxyProtocolTest(EdgeTest):
    V2 = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", 12) + socket.inet_aton("1.2.3.4")
          + socket.inet_aton("5.6.7.8") + struct.pack(">HH", 4711, 80))

    def test_the_announced_client_is_the_one_in_the_log_and_in_the_fields(self):
        self.start(listener=", proxy_protocol: required")
        headers = [b"PROXY TCP4 1.2.3.4 5.6.7.8 4711 80\r\n", self.V2]
        for header in headers:
            for step in (1, 7, 1000):
                with self.proxy.raw() as connection:
                    data = header + GET
                    for at in range(0, len(data), step):
                        connection.send(data[at:at + step])
                    self.assertEqual(connection.read_answer().status, 200)
                self.assertIn("x-forwarded-for: 1.2.3.4\r\n", self.last_head())
        self.assertEqual({line["client"] for line in self.logged(6)}, {"1.2.3.4:4711"})

    def test_whatever_else_comes_first_is_closed_without_an_answer_and_counted(self):
        self.start(listener=", proxy_protocol: required")
        for data in (GET, b"PROXY TCP4 1.2.3.4\r\n" + GET, b"\x16\x03\x01", b"PROXY " + b"x" * 5000,
                     self.V2[:12] + b"\x31" + self.V2[13:] + GET):
            self.assertEqual(self.ask(data), b"", data)
        self.assertEqual(self.proxy.metric("penstock_proxy_protocol_errors_total", reason="invalid"), 5)
        self.assertEqual(self.backend.requests, [])

    def test_only_some_may_send_it(self):
        self.start(listener=", proxy_protocol: required, proxy_protocol_from: [192.0.2.0/24]")
        self.assertEqual(self.ask(self.V2 + GET), b"")
        self.assertEqual(self.proxy.metric("penstock_proxy_protocol_errors_total", reason="untrusted"), 1)
        self.assertEqual(self.backend.requests, [])

    def test_without_it_a_header_is_no_request(self):
        self.start()
        self.assertTrue(self.ask(b"PROXY TCP4 1.2.3.4 5.6.7.8 4711 80\r\n" + GET).startswith(b"HTTP/1.1 400 "))


class ForwardingTest(EdgeTest):
    def test_what_a_client_says_of_itself_is_not_passed_on(self):
        self.start()
        spoofed = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https", "x-forwarded-host": "evil",
                   "forwarded": "for=6.6.6.6", "x-forwarded-client-cert": "Hash=1", "x-penstock-tenant": "root"}
        self.assertEqual(self.proxy.request("GET", "/a", headers=spoofed).status, 200)
        head = self.last_head()
        self.assertIn("x-forwarded-for: 127.0.0.1\r\n", head)
        self.assertIn("x-forwarded-proto: http\r\n", head)
        for word in ("6.6.6.6", "evil", "forwarded:", "client-cert", "tenant"):
            self.assertNotIn(word, head)

    def test_what_a_trusted_peer_says_is(self):
        self.start(server="  forwarding: {xff_trusted_cidrs: [127.0.0.0/8], forwarded: append, "
                          "internal_only_headers: [x-tenant]}\n")
        self.proxy.request("GET", "/a", headers={"x-forwarded-for": "6.6.6.6, 1.2.3.4", "x-tenant": "a"})
        head = self.last_head()
        self.assertIn("x-forwarded-for: 6.6.6.6, 1.2.3.4, 127.0.0.1\r\n", head)
        self.assertIn("x-tenant: a\r\n", head)
        self.assertIn("forwarded: for=127.0.0.1;host=", head)
        self.assertEqual(self.logged(1)[0]["client"], "1.2.3.4")

    def test_ten_thousand_hops_are_cut_or_refused(self):
        self.start(server="  forwarding: {xff_num_trusted_hops: 1}\n")
        for hops, status in (("1::," * 10_000 + "2::", 200), ("1.1.1.1, " * 10_000, 431)):
            answer = self.ask(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: "
                              + hops.encode() + b"\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer[:60])
        self.assertLess(len(self.last_head()), 1000)

    def test_fields_that_matter_cannot_be_nominated_away(self):
        self.start()
        for name in (b"x-forwarded-for", b"authorization", b"transfer-encoding", b"host", b"via", b"forwarded",
                     b"x-request-id", b"content-length"):
            answer = self.ask(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close, " + name + b"\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), name)
        self.assertEqual(self.backend.requests, [])

    def test_a_request_does_not_go_round(self):
        self.start(server="  forwarding: {via: edge-7}\n")
        answer = self.proxy.request("GET", "/a")
        self.assertEqual(answer.header("via"), "1.1 edge-7")
        answer = self.proxy.request("GET", "/a", headers={"via": "1.1 other, 1.1 edge-7"})
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (508, "loop_detected"))


class RequestTest(EdgeTest):
    def test_a_length_is_forwarded_in_its_one_spelling(self):
        self.start()
        with self.proxy.raw() as connection:
            connection.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0005\r\n\r\nhello")
            self.assertEqual(connection.read_answer().status, 200)
        self.assertIn("content-length: 5\r\n", self.last_head())

    def test_targets(self):
        self.start()
        for target, status, path in [(b"//v1//./x/../b?c=//", 200, "/v1/b?c=//"), (b"/%61b%2d", 200, "/ab-"),
                                     (b"http://other:81/a/../b", 200, "/b"), (b"/a;p", 200, "/a;p"),
                                     (b"/v1%2Fchat", 400, None), (b"/a%5cb", 400, None), (b"/a%00", 400, None),
                                     (b"/a%zz", 400, None), (b"/a#b", 400, None), (b"/../a", 400, None),
                                     (b"/%2e%2e/a", 400, None), (b"/a\0b", 400, None)]:
            answer = self.ask(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), (target, answer[:80]))
            if path:
                self.assertEqual(self.backend.requests[-1].path, path)
        self.assertEqual(len(self.backend.requests), 4)
        self.assertEqual(self.backend.requests[2].headers["host"], "other:81")
        star = self.ask(b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        self.assertTrue(star.startswith(b"HTTP/1.1 200 "), star)
        for line in (b"CONNECT a:1", b"TRACE /"):
            self.assertTrue(self.ask(line + b" HTTP/1.1\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 405 "))
        self.assertEqual(len(self.backend.requests), 4)

    def test_a_body_of_a_get_is_a_body(self):
        self.start()
        inner = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        answer = self.ask(b"GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                          % (len(inner), inner))
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertEqual([request.path for request in self.backend.requests], ["/a"])
        self.assertEqual(self.backend.requests[0].body, inner)

    def test_what_follows_a_bad_request_is_dropped(self):
        self.start()
        answer = self.ask(GET * 3 + b"GET /bad HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n" + GET * 3)
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 3)
        self.assertEqual(answer.count(b"HTTP/1.1 400 "), 1)
        self.assertEqual(answer.count(b"HTTP/1.1 "), 4)
        self.assertEqual(len(self.backend.requests), 3)

    def test_a_body_in_very_small_pieces(self):
        self.start()
        pieces = 100_000
        with self.proxy.raw(60) as connection:
            connection.send(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                            + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n")
            self.assertEqual(connection.read_answer().status, 200)
        self.assertEqual(len(self.backend.requests[0].body), pieces)

    def test_paths_of_operators_are_not_served_to_clients(self):
        self.start(lambda request: request.answer(404))
        for path in ("/metrics", "/admin", "/config", "/backends", "/decisions", "/quit", "/drain", "/pause"):
            answer = self.proxy.request("GET", path)
            self.assertEqual(answer.status, 404, path)
            self.assertEqual(self.backend.requests[-1].path, path)   # Like any other path of the backend's.

    def test_logs_hold_no_keys_and_one_line_a_request(self):
        self.start()
        self.ask(b"GET /a%22%0d%0a?api_key=canary-1 HTTP/1.0\r\nauthorization: Bearer canary-2\r\n"
                 b"user-agent: \"\xff\\\r\n\r\n")
        self.ask(b"GET /b HTTP/1.0\r\n\r\n")
        lines = self.logged(2)
        self.assertEqual(lines[0]["path"], "/a%22%0D%0A")
        self.assertEqual((lines[1]["model"], lines[1]["response_code"]), ("", 200))
        for name in os.listdir(self.proxy.folder):
            with open(os.path.join(self.proxy.folder, name), encoding="utf-8", errors="replace") as file:
                self.assertNotIn("canary", file.read(), name)
        self.assertNotIn("canary", str(self.proxy.admin("/decisions")))

    def test_names_that_clients_make_up_do_not_become_labels(self):
        self.start()
        for number in range(50):
            self.proxy.request("POST", "/v1/chat/completions", {"model": f"made-up-{number}", "messages": []})
            self.proxy.request("GET", f"/made-up-{number}")
        from tests.support.stack import request
        metrics = request(self.proxy.admin_address, "GET", "/metrics").body
        self.assertNotIn(b"made-up", metrics)

    def test_one_id_of_two_clients_is_two_requests(self):
        self.start()
        for _ in range(2):
            self.assertEqual(self.proxy.request("GET", "/a", headers={"x-request-id": "same"}).status, 200)
        self.assertEqual(len(self.proxy.admin("/decisions/same")["decisions"]), 2)

    def test_prompts_that_are_packed_or_no_json(self):
        self.start()
        for body, headers, status in [(b"\x1f\x8b" + b"0" * 100, {"content-encoding": "gzip"}, 415),
                                      (b" " * 1_000_000, {}, 400), (b"[" * 1_000_000, {}, 400),
                                      (b"\xef\xbb\xbf" + CHAT, {}, 400), (CHAT.decode().encode("utf-16"), {}, 400),
                                      (CHAT + b" // no", {}, 400), (CHAT + CHAT, {}, 400),
                                      (CHAT[:-1] + b',"a":1E1000000000}', {}, 400),
                                      (CHAT[:-1] + b',"a":"\\ud800"}', {}, 400)]:
            began = time.monotonic()
            answer = self.proxy.request("POST", "/v1/chat/completions", body, headers=headers)
            self.assertEqual(answer.status, status, body[:60])
            self.assertLess(time.monotonic() - began, 10)
        many = CHAT[:-1] + b"".join(b',"k%d":%d' % (n, n) for n in range(100_000)) + b"}"
        self.assertEqual(self.proxy.request("POST", "/v1/chat/completions", many).status, 200)
        self.assertEqual(len(self.backend.requests), 1)


class AnswerTest(EdgeTest):
    BAD = [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"HTTP/0.9 200 OK\r\n\r\n", b"HTTP/1.1 99 X\r\n\r\n",
           b"HTTP/1.1 1000 X\r\n\r\n", b"HTTP/1.1 2OO OK\r\n\r\n", b"HTTP/1.1 200 OK\nx: y\n\n",
           b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
           b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
           b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
           b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n" * 1000,
           b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nevil",
           b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n"]

    def test_what_is_no_answer_is_502_and_the_connection_is_gone(self):
        bad = []

        def answer(request):
            if bad:
                with contextlib.suppress(OSError):
                    request.send(bad.pop())
                request.hang()
            request.answer(200, b"good")
        self.start(answer)
        for data in self.BAD:
            bad.append(data)
            answer = self.proxy.request("GET", "/a")
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (502, "backend_bad_answer"), data[:60])
            self.assertNotIn(b"evil", answer.body)
            self.assertEqual(self.proxy.request("GET", "/a").body, b"good")

    # What the backend says before it closes, and what the client must not take for whole.
    CUT = [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 50,
           b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + b"x" * 50,
           b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n32\r\n" + b"x" * 50 + b"\r\n6",
           b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n32\r\n" + b"x" * 50 + b"\r\n"]

    def test_half_an_answer_never_looks_whole(self):
        saying = []

        def answer(request):
            request.send(saying[-1])
            request.close = True
        self.start(answer)
        for data in self.CUT:
            saying.append(data)
            said = self.ask(GET)
            self.assertTrue(said.startswith(b"HTTP/1.1 200 "), said[:60])
            self.assertFalse(said.endswith(b"0\r\n\r\n"), data)
            self.assertLessEqual(said.count(b"x" * 50), 1)

    def test_an_answer_until_the_end_of_the_connection_is_whole(self):
        def answer(request):
            request.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
            request.close = True
        self.start(answer)
        for _ in range(3):
            self.assertEqual(self.proxy.request("GET", "/a").body, b"all of it")
        self.assertEqual(self.backend.connections, 3)

    def test_bodies_that_may_not_be_are_not_passed_on(self):
        def answer(request):
            status = {"/204": 204, "/304": 304}.get(request.path, 200)
            request.send(b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\nhello" % status)
        self.start(answer)
        for method, path in ((b"HEAD", b"/"), (b"GET", b"/204"), (b"GET", b"/304")):
            said = self.ask(method + b" " + path + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            self.assertTrue(said.endswith(b"\r\n\r\n"), said)
            self.assertNotIn(b"hello", said)
        self.assertEqual(self.proxy.request("GET", "/").body, b"hello")


if __name__ == "__main__":
    main()
