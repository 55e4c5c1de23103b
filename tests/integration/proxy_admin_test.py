"""The admin listener of a real proxy over a real engine: what an operator reads
there, and what one may do there."""

import json
import re
import shutil
import socket
import subprocess
import time

from tests.support.fake_backend import FakeBackend
from tests.support.stack import ROOT, StackTest, main, request, wait_until

ENGINE = {"device": "emulated", "ranks": 1, "more": ("--timing", "instant")}
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
    cache: answers
caches:
  - name: answers
observability: {decisions: 64}
"""
SAMPLE = re.compile(
    r'^([a-z_:][a-zA-Z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?|[+-]Inf|NaN)$')


class AdminTest(StackTest):
    def start(self, engines=2, **more):
        self.proxy = self.stack(engines=[ENGINE] * engines, policy=POLICY, **more)
        return self.proxy

    def get(self, path, **more):
        return request(self.proxy.admin_address, "GET", path, **more)

    def post(self, path, headers=None, address=None):
        return request(address or self.proxy.admin_address, "POST", path, headers=headers)

    def backend(self, name):
        for backend in self.proxy.admin("/backends")["pools"][0]["backends"]:
            if backend["name"] == name:
                return backend
        return self.fail(f"no backend {name}")

    def served_by(self, count=12):
        return {self.proxy.chat(f"question {number}?", max_tokens=1, temperature=1).header("x-penstock-backend")
                for number in range(count)}


class ReadingTest(AdminTest):
    def test_metrics_are_text_that_prometheus_takes(self):
        self.start()
        self.served_by(3)
        self.proxy.chat("again?", max_tokens=1)
        self.proxy.chat("again?", max_tokens=1)
        with self.proxy.stream("stream?", max_tokens=2, temperature=1) as stream:
            list(stream)
        answer = self.get("/metrics")
        self.assertTrue(answer.header("content-type").startswith("text/plain; version=0.0.4"))
        text = answer.body.decode()
        kinds, helped, seen = {}, set(), set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.assertNotIn(name, kinds, "told twice")
                kinds[name] = kind
            elif line.startswith("# HELP "):
                helped.add(line.split(" ")[2])
            else:
                found = SAMPLE.match(line)
                self.assertTrue(found, line)
                self.assertNotIn((found[1], found[2]), seen, "a sample twice")
                seen.add((found[1], found[2]))
                family = re.sub("_(bucket|sum|count)$", "", found[1]) if found[1] not in kinds else found[1]
                self.assertIn(family, kinds)
        self.assertEqual(helped, set(kinds))
        for name, kind in kinds.items():
            self.assertRegex(name, "^(penstock|process)_")
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        if shutil.which("promtool"):
            checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        # Every family has its row in the document.
        with open(f"{ROOT}/docs/metrics.md", encoding="utf-8") as file:
            document = file.read()
        self.assertEqual([name for name in kinds if f"`{name}`" not in document], [])
        self.assertEqual(self.proxy.metric("penstock_http_requests_total", pool="lexicon", code="200"), 6)
        self.assertEqual(self.proxy.metric("penstock_http_requests_total", pool="lexicon", stream="true"), 1)
        self.assertEqual(self.proxy.metric("penstock_cache_lookups_total", result="hit"), 1)
        self.assertEqual(self.proxy.metric("penstock_request_ttft_seconds_count", pool="lexicon"), 1)

    def test_backends_show_health_breaker_load_and_rung(self):
        self.start()
        self.served_by(4)
        name = self.proxy.engine_addresses[0]
        wait_until(lambda: self.backend(name)["rung"] == "push", "the load stream is heard", 10)
        backend = self.backend(name)
        self.assertEqual(backend["health"]["state"], "healthy")
        self.assertEqual((backend["breaker"]["state"], backend["breaker"]["override"]), ("closed", "auto"))
        self.assertEqual((backend["in_flight"], backend["drained"]), (0, False))
        self.assertLess(backend["report"]["age_s"], 5)

    def test_a_decision_can_be_looked_up_by_its_request(self):
        self.start()
        with self.proxy.stream("hello?", temperature=1, max_tokens=1) as stream:
            self.assertTrue(list(stream))
        wait_until(lambda: any(self.backend(name)["ttft_s"] for name in self.proxy.engine_addresses),
                   "a first token is known", 10)
        time.sleep(0.1)  # A worker looks at it every 50 ms.
        self.proxy.chat("why there?", headers={"x-request-id": "why-1"}, temperature=1, max_tokens=1)
        found = self.proxy.admin("/decisions/why-1")["decisions"]
        self.assertEqual(len(found), 1)
        decision = found[0]
        self.assertEqual((decision["pool"], decision["algorithm"], decision["attempt"], decision["candidate_count"]),
                         ("lexicon", "weighted_score", 1, 2))
        self.assertIn(decision["chosen"], self.proxy.engine_addresses)
        for candidate in decision["candidates"]:
            terms = candidate["terms"]
            self.assertAlmostEqual(candidate["score"], 0.6 * terms["latency"] + 0.4 * terms["queue"], places=2)
            self.assertIn(candidate["signal"]["rung"], ("push", "piggyback", "poll", "own"))
            self.assertEqual(candidate["ttft_age_s"] is None, candidate["ttft_s"] is None)
            self.assertEqual(candidate["signal"]["age_s"] is None, candidate["signal"]["rung"] == "own")
        ages = [(c["ttft_age_s"], c["signal"]["age_s"]) for c in decision["candidates"] if c["ttft_s"] is not None]
        self.assertTrue(ages)
        for ttft, report in ages:
            self.assertTrue(0 <= ttft < 60 and 0 <= report < 5, ages)
        # A cached answer had no choice; the ring forgets the oldest.
        self.assertEqual(self.get("/decisions/never").status, 404)
        for number in range(160):
            self.proxy.request("GET", f"/health?{number}")
        self.assertEqual(self.get("/decisions/why-1").status, 404)
        self.assertLessEqual(len(self.proxy.admin("/decisions")["decisions"]), 64 * 2)

    def test_the_other_pages(self):
        self.start(1)
        self.assertEqual(self.get("/livez").body, b"ok\n")
        self.assertEqual(self.get("/readyz").body, b"ok\n")
        self.assertIn(b"lexicon-5m", self.get("/config").body)
        self.assertEqual(self.proxy.admin("/cache")["caches"][0]["name"], "answers")
        for link in self.get("/").body.decode().split():
            self.assertEqual(self.get(link).status, 200, link)
        self.assertEqual(self.get("/nothing").status, 404)
        self.assertEqual(request(self.proxy.admin_address, "DELETE", "/backends").status, 405)
        # None of it on the listener of clients.
        self.assertNotIn(b"penstock_", self.proxy.request("GET", "/livez").body)
        self.assertEqual(self.proxy.request("GET", "/decisions").status, 404)

    def test_secrets_are_masked(self):
        backend = FakeBackend()
        self.addCleanup(backend.close)
        self.proxy = self.stack(engines=0, backends=[backend.address], policy=POLICY.replace(
            "    cache: answers\n", "    auth: {mode: replace, key: \"${NO_SUCH:-hush-hush}\"}\n    cache: answers\n"))
        self.proxy.chat("hello?")
        self.assertEqual(backend.requests[0].headers["authorization"], "Bearer hush-hush")
        for path in ("/config", "/metrics", "/backends", "/decisions", "/cache"):
            self.assertNotIn(b"hush-hush", self.get(path).body)
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            self.assertNotIn("hush-hush", log.read())


class OperatingTest(AdminTest):
    def operate(self, name, what):
        answer = self.post(f"/backends/lexicon/{name}/{what}")
        self.assertEqual((answer.status, answer.json()["ok"]), (200, True), answer.error())
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            self.assertIn(f"{name}: {what}", log.read())

    def test_a_drained_backend_gets_nothing_until_it_is_undrained(self):
        self.start()
        one, other = self.proxy.engine_addresses
        self.operate(one, "drain")
        self.assertTrue(self.backend(one)["drained"])
        self.assertEqual(self.proxy.metric("penstock_backend_drained", backend=one), 1)
        self.assertEqual(self.served_by(), {other})
        self.operate(one, "undrain")
        wait_until(lambda: one in self.served_by(), "it is used again", 20)

    def test_a_breaker_is_opened_closed_and_let_alone(self):
        self.start()
        one, other = self.proxy.engine_addresses
        self.operate(one, "breaker/open")
        self.assertEqual(self.backend(one)["breaker"]["override"], "open")
        self.assertEqual(self.served_by(), {other})
        self.operate(other, "breaker/open")
        self.assertEqual(self.proxy.chat("nobody?", temperature=1).status, 503)
        self.operate(other, "breaker/auto")
        self.operate(one, "breaker/close")
        self.assertEqual(self.backend(one)["breaker"]["state"], "closed")
        wait_until(lambda: one in self.served_by(), "it is used again", 20)
        self.operate(one, "breaker/auto")
        self.assertEqual(self.backend(one)["breaker"]["override"], "auto")

    def test_changes_come_from_this_machine_and_from_no_web_page(self):
        self.start(1)
        name = self.proxy.engine_addresses[0]
        path = f"/backends/lexicon/{name}/drain"
        self.assertEqual(self.post(path, {"origin": "http://evil.example"}).status, 403)
        self.assertEqual(self.post("/cache/flush", {"origin": "null"}).status, 403)
        self.assertEqual(self.get(path).status, 405)
        self.assertEqual(self.post("/backends/lexicon/nobody/drain").status, 404)
        self.assertEqual(self.post(f"/backends/lexicon/{name}/explode").status, 404)
        self.assertFalse(self.backend(name)["drained"])

    def test_changes_from_another_address_are_refused(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # Nothing is sent.
                own = probe.getsockname()[0]
            except OSError:
                own = "127.0.0.1"
        if own.startswith("127."):
            self.skipTest("this machine has no address but the loopback one")
        self.start(1, start=False)
        port = self.proxy.admin_address.rsplit(":", 1)[1]
        self.proxy.write_policy(POLICY.replace("{admin}", f"0.0.0.0:{port}"))
        self.proxy.start()
        self.assertEqual(self.post("/cache/flush", address=f"{own}:{port}").status, 403)
        self.assertEqual(request(f"{own}:{port}", "GET", "/readyz").status, 200)
        self.assertEqual(self.post("/cache/flush").status, 200)


class AccessLogTest(AdminTest):
    def test_one_line_a_request_and_never_what_was_said(self):
        backend = FakeBackend(lambda request: request.stream("answered-with"))
        self.addCleanup(backend.close)
        stack = self.stack(engines=0, backends=[backend.address], policy=POLICY, start=False)
        path = f"{stack.folder}/access.json"
        stack.write_policy(POLICY.replace("{decisions: 64}", f"{{access_log: {path}}}"))
        stack.start()
        with stack.stream("asked-for", {"authorization": "Bearer key-of-mine", "x-request-id": "line-1"}) as stream:
            list(stream)
        stack.request("GET", "/a\"b?key=key-of-mine")
        stack.request("POST", "/v1/chat/completions", {"model": "none\r\nforged"})

        def lines():
            with open(path, encoding="utf-8") as file:
                return file.read().splitlines()
        oversized = stack.request("GET", "/" + "a" * 20000)
        self.assertEqual(oversized.status, 414)
        wait_until(lambda: len(lines()) == 4, "all are logged")
        entries = [json.loads(line) for line in lines()]
        first = entries[0]
        self.assertEqual((first["request_id"], first["response_code"], first["stream"]), ("line-1", 200, True))
        self.assertEqual(first["backend"], backend.address)
        last = entries[3]
        self.assertEqual((last["request_id"], last["response_code"], last["response_code_details"]),
                         (oversized.header("x-request-id"), 414, "uri_too_long"))
        self.assertTrue(last["client"].startswith("127.0.0.1:"))
        text = "\n".join(lines())
        for secret in ("asked-for", "answered-with", "key-of-mine"):
            self.assertNotIn(secret, text)


if __name__ == "__main__":
    main()
