"""The result cache of a real proxy: what is replayed, what is shared while it is
still on its way, and what never is."""

import contextlib
import http.client
import json
import socket
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackError, StackTest, chat, main, request, wait_until

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
    health_check: {enabled: false}
    load_reports: {push: false}
    load_balancing: {algorithm: round_robin}
    cache: answers
caches:
  - name: answers
"""


class Asker(threading.Thread):
    """One streamed request in the background; its raw body as it comes."""

    def __init__(self, address, body, headers=None):
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(*address.rsplit(":", 1), timeout=30)
        self._body, self._headers = json.dumps(body).encode(), headers or {}
        self.seen = b""
        self.status, self.answer, self.error = 0, None, ""
        self._connection.connect()
        self._socket = self._connection.sock
        self.start()

    def run(self):
        try:
            self._connection.request("POST", "/v1/chat/completions", self._body, self._headers)
            self.answer = self._connection.getresponse()
            self.status = self.answer.status
            while data := self.answer.read1(65536):
                self.seen += data
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.error = str(error) or type(error).__name__
        finally:
            self._connection.close()

    def header(self, name):
        return self.answer.getheader(name, "")

    def leave(self):
        self._socket.shutdown(socket.SHUT_RDWR)


class CacheTest(StackTest):
    def start(self, script=None, policy=POLICY, backends=1):
        self.backends = [FakeBackend(script) for _ in range(backends)]
        for backend in self.backends:
            self.addCleanup(backend.close)
        self.backend = self.backends[0]
        self.proxy = self.stack(engines=0, policy=policy, backends=[b.address for b in self.backends])
        return self.proxy

    def count(self):
        return sum(len(backend.requests) for backend in self.backends)

    def lookups(self, result):
        return self.proxy.metric("penstock_cache_lookups_total", result=result)

    def ask(self, body=None, headers=None):
        return self.proxy.request("POST", "/v1/chat/completions", body or chat("hello?"), headers=headers)


class ReplayTest(CacheTest):
    def test_a_hit_is_the_same_answer_byte_for_byte(self):
        whole = b'{"id": "x",  "choices": [ {"message": {"content": "h\\u00e9"}} ] }\n'
        self.start(lambda request: request.answer(200, whole))
        first, second = self.ask(), self.ask()
        self.assertEqual((first.body, second.body), (whole, whole))
        self.assertEqual(second.header("content-type"), first.header("content-type"))
        self.assertRegex(first.header("cache-status"), "^penstock; fwd=uri-miss")
        self.assertRegex(second.header("cache-status"), "^penstock; hit; ttl=[0-9]+$")
        self.assertEqual(first.header("age"), "")
        self.assertEqual(second.header("age"), "0")
        self.assertEqual(self.count(), 1)
        self.assertEqual((self.lookups("miss"), self.lookups("hit")), (1, 1))

    def test_an_alias_and_the_models_own_name_share_an_answer(self):
        self.start(policy=POLICY.replace("[lexicon-5m]", "[{name: lexicon-5m, aliases: [words]}]"))
        self.assertRegex(self.ask({**chat("hello?"), "model": "words"}).header("cache-status"), "uri-miss")
        self.assertRegex(self.ask().header("cache-status"), "hit")
        self.assertEqual(self.backend.requests[0].json()["model"], "lexicon-5m")

    def test_a_stream_is_replayed_byte_for_byte(self):
        def odd(request):
            request.begin_events()
            request.chunk(b": a comment\r\n\r\nevent: odd\nda")
            request.chunk(b"ta: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n")
            request.chunk(b"data: first line\ndata: second line\n\ndata:[DONE]\n\n")
            request.send(b"0\r\n\r\n")
        self.start(odd)
        bodies = [Asker(self.proxy.proxy_address, chat("hello?", stream=True)) for _ in range(1)]
        bodies[0].join(10)
        again = Asker(self.proxy.proxy_address, chat("hello?", stream=True))
        again.join(10)
        self.assertEqual(bodies[0].seen, b": a comment\r\n\r\nevent: odd\ndata: {\"choices\":[{\"delta\":{\"content\":"
                                         b"\"one\"}}]}\n\ndata: first line\ndata: second line\n\ndata:[DONE]\n\n")
        self.assertEqual(again.seen, bodies[0].seen)
        self.assertIn("hit", again.header("cache-status"))
        self.assertTrue(again.header("content-type").startswith("text/event-stream"))
        self.assertEqual(self.count(), 1)

    def test_the_same_request_in_another_spelling_is_the_same(self):
        self.start()
        same = [b'{"model":"lexicon-5m","temperature":0,"messages":[],"stop":"\\u0041"}',
                b' { "messages" : [ ] , "stop":"A", "temperature":0,\n"model":"lexicon-5m"} ']
        other = [b'{"model":"lexicon-5m","temperature":0,"messages":[],"stop":"B"}',
                 b'{"model":"lexicon-5m","temperature":0.0,"messages":[],"stop":"A"}',
                 b'{"model":"lexicon-5m","temperature":0,"messages":[],"stop":"A","extra":null}',
                 b'{"model":"lexicon-5m","temperature":0,"messages":[],"stop":"A","stream":false}']
        for body in same:
            self.assertEqual(self.ask(body).status, 200)
        self.assertEqual(self.count(), 1)
        for number, body in enumerate(other):
            self.ask(body)
            self.assertEqual(self.count(), 2 + number, body)
        # The same body elsewhere is another question.
        self.proxy.request("POST", "/v1/completions", same[0])
        self.assertEqual(self.count(), 6)

    def test_tenants_never_share(self):
        self.start(lambda request: request.answer(200, {"for": request.headers.get("authorization", "")}))
        for key in ("", "Bearer a", "Bearer b", "Bearer a"):
            headers = {"authorization": key} if key else {}
            self.assertEqual(self.ask(headers=headers).json(), {"for": key})
        self.assertEqual(self.count(), 3)

    def test_only_what_is_deterministic_is_kept(self):
        self.start()
        for more in ({"temperature": 0.7}, {"temperature": None}, {"n": 2}):
            for _ in range(2):
                answer = self.ask(chat("hello?", **more))
                self.assertIn("fwd=bypass", answer.header("cache-status"))
        self.assertEqual(self.count(), 6)
        self.assertEqual(self.lookups("hit"), 0)
        for _ in range(2):
            self.ask(chat("hello?", temperature=1, top_k=1))
        self.assertEqual(self.count(), 7)

    def test_a_policy_may_keep_what_is_not_deterministic(self):
        self.start(policy=POLICY + "    only_deterministic: false\n")
        sampled = chat("hello?", temperature=0.7)
        first, second = self.ask(sampled), self.ask(sampled)
        self.assertEqual(first.json(), second.json())
        self.assertIn("hit", second.header("cache-status"))
        self.assertEqual((self.count(), self.lookups("hit")), (1, 1))

    def test_errors_and_broken_answers_are_not_kept(self):
        def cut(request):
            request.begin_events()
            request.token("half")
            request.reset()
        scripts = [lambda request: request.answer(500, {}), lambda request: request.answer(400, {}),
                   lambda request: request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf") or request.reset()]
        self.start(policy=POLICY + "defaults: {retry: {attempts: 0}, circuit_breaker: {enabled: false}}\n")
        for script in scripts:
            self.backend.script = script
            with contextlib.suppress(StackError):
                self.ask()
        self.backend.script = cut
        asker = Asker(self.proxy.proxy_address, chat("hello?", stream=True))
        asker.join(10)
        self.assertNotEqual(asker.error, "")
        before = self.count()
        self.backend.script = lambda request: request.stream("whole") if b"true" in request.body else request.answer()
        self.assertEqual(self.ask().json(), {})
        again = Asker(self.proxy.proxy_address, chat("hello?", stream=True))
        again.join(10)
        self.assertIn(b"whole", again.seen)
        self.assertEqual(self.count(), before + 2)

    def test_an_entry_lives_for_its_ttl(self):
        self.start(policy=POLICY + "    ttl: 1s\n")
        self.ask()
        self.assertIn("hit", self.ask().header("cache-status"))
        wait_until(lambda: "fwd=stale" in self.ask().header("cache-status"), "its time is over", 10)
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.lookups("stale") + self.lookups("miss"), 2)

    def test_age_counts_seconds(self):
        self.start()
        self.ask()
        wait_until(lambda: self.ask().header("age") not in ("", "0"), "a second has passed", 10)
        self.assertEqual(self.count(), 1)

    def test_answers_beyond_the_limit_pass_and_are_not_kept(self):
        big = b"x" * 100_000
        self.start(lambda request: request.answer(200, big), policy=POLICY + "    max_entry_bytes: 64KiB\n")
        for _ in range(2):
            self.assertEqual(self.ask().body, big)
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.proxy.metric("penstock_cache_entries"), 0)
        self.assertGreaterEqual(self.proxy.metric("penstock_cache_rejected_total"), 1)

    def test_the_longest_unused_go_first(self):
        self.start(lambda request: request.answer(200, b"x" * 10_000),
                   policy=POLICY + "    max_entry_bytes: 64KiB\n    max_bytes: 64KiB\n")
        for number in range(20):
            self.ask(chat(f"number {number}"))
        self.assertLessEqual(self.proxy.metric("penstock_cache_bytes"), 65536)
        self.assertGreater(self.proxy.metric("penstock_cache_evictions_total"), 0)
        self.assertIn("hit", self.ask(chat("number 19")).header("cache-status"))
        self.assertNotIn("hit", self.ask(chat("number 0")).header("cache-status"))

    def test_an_operator_flushes_it(self):
        self.start()
        self.ask()
        self.proxy.admin("/cache/flush", "POST")
        self.assertEqual(self.proxy.admin("/cache")["caches"][0]["entries"], 0)
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            self.assertIn("flush", log.read())
        self.assertIn("fwd=uri-miss", self.ask().header("cache-status"))
        self.assertEqual(self.count(), 2)


class SharedFlightTest(CacheTest):
    """Identical requests in progress."""

    def setUp(self):
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)

    def paused(self, request):
        """A stream that stops after its first token until it may go on."""
        request.begin_events()
        request.token("one")
        self.go_on.wait(20)
        for token in ("two", "three"):
            request.token(token)
        request.end_events()

    def asker(self, **more):
        asker = Asker(self.proxy.proxy_address, chat("hello?", stream=True, **more))
        self.addCleanup(asker.join, 5)
        return asker

    def whole(self, asker):
        asker.join(15)
        self.assertEqual((asker.status, asker.error), (200, ""))
        return asker.seen

    def joined(self, count):
        wait_until(lambda: self.lookups("coalesced") == count, f"{count} have joined")

    def test_one_request_answers_all_and_a_late_one_sees_it_from_the_start(self):
        self.start(self.paused)
        leader = self.asker()
        wait_until(lambda: b"one" in leader.seen, "it streams")
        others = [self.asker() for _ in range(12)]
        self.joined(12)
        # What is there already is shown at once.
        wait_until(lambda: all(b"one" in other.seen for other in others), "all follow")
        self.go_on.set()
        first = self.whole(leader)
        self.assertIn(b"[DONE]", first)
        for other in others:
            self.assertEqual(self.whole(other), first)
            self.assertIn("collapsed", other.header("cache-status"))
        self.assertEqual(self.count(), 1)

    def test_clients_that_leave_take_nothing_from_the_others_the_first_one_neither(self):
        self.start(self.paused)
        leader = self.asker()
        wait_until(lambda: b"one" in leader.seen, "it streams")
        stays, leaves = self.asker(), self.asker()
        self.joined(2)
        wait_until(lambda: b"one" in stays.seen and b"one" in leaves.seen, "both follow")
        leaves.leave()
        leader.leave()
        time.sleep(0.2)
        self.go_on.set()
        self.assertIn(b"[DONE]", self.whole(stays))
        self.assertEqual(self.count(), 1)
        # The answer was whole, so it is kept.
        self.assertIn("hit", self.ask(chat("hello?", stream=True)).header("cache-status"))

    def test_when_all_have_left_the_backend_is_told(self):
        self.start(lambda request: (request.begin_events(), request.token("one"), request.hang()))
        askers = [self.asker()]
        wait_until(lambda: b"one" in askers[0].seen, "it streams")
        askers += [self.asker(), self.asker()]
        self.joined(2)
        for asker in askers:
            asker.leave()
        self.assertTrue(self.backend.gone.wait(10), "the backend sees the end")
        wait_until(lambda: self.proxy.metric("penstock_backend_requests_active") == 0, "nothing runs there")

    def test_when_the_first_backend_fails_before_its_answer_another_client_leads(self):
        def fails_first(request):
            if self.count() == 1:
                self.go_on.wait(20)
                request.reset()
            request.stream("well")
        # No retries: the first client gets its error, the second must lead.
        self.start(fails_first, policy=POLICY + "defaults: {retry: {attempts: 0}}\n")
        leader = self.asker()
        wait_until(lambda: self.count() == 1, "it is sent")
        others = [self.asker() for _ in range(3)]
        self.joined(3)
        leader.leave()
        time.sleep(0.1)
        self.go_on.set()
        for other in others:
            self.assertIn(b"well", self.whole(other))
        self.assertEqual(self.count(), 2)

    def test_when_the_leader_leaves_before_its_answer_and_the_backend_says_busy_another_leads(self):
        def busy_first(request):
            if self.count() == 1:
                self.go_on.wait(20)
                request.answer(429, {}, {"retry-after": "0.2"})
            else:
                request.stream("well")
        self.start(busy_first)
        leader = self.asker()
        wait_until(lambda: self.count() == 1, "it is sent")
        other = self.asker()
        self.joined(1)
        leader.leave()
        time.sleep(0.1)
        self.go_on.set()
        self.assertIn(b"well", self.whole(other))

    def test_a_broken_stream_is_cut_for_all(self):
        def breaks(request):
            request.begin_events()
            request.token("one")
            self.go_on.wait(20)
            request.reset()
        self.start(breaks)
        askers = [self.asker()]
        wait_until(lambda: b"one" in askers[0].seen, "it streams")
        askers.append(self.asker())
        self.joined(1)
        wait_until(lambda: b"one" in askers[1].seen, "it follows")
        self.go_on.set()
        for asker in askers:
            asker.join(15)
            self.assertNotEqual(asker.error, "")
            self.assertIn(b"backend_reset", asker.seen)
            self.assertNotIn(b"[DONE]", asker.seen)

    def test_whole_answers_are_shared_too(self):
        def slow(request):
            self.go_on.wait(20)
            request.answer(200, {"n": self.count()})
        self.start(slow)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask())) for _ in range(8)]
        for thread in threads:
            thread.start()
        self.joined(7)
        self.go_on.set()
        for thread in threads:
            thread.join(15)
        self.assertEqual([answer.json() for answer in answers], [{"n": 1}] * 8)
        self.assertEqual(self.count(), 1)

    def test_without_coalescing_each_asks_for_itself(self):
        self.start(self.paused, policy=POLICY + "    coalesce: false\n")
        askers = [self.asker() for _ in range(3)]
        wait_until(lambda: self.count() == 3, "all are sent")
        self.go_on.set()
        for asker in askers:
            self.assertIn(b"[DONE]", self.whole(asker))


if __name__ == "__main__":
    main()
