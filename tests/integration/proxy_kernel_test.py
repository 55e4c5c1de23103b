"""A kernel that gives a real proxy less than it asks for: calls that are interrupted,
reads and writes of a few bytes, buffers as small as they get, memory that is limited;
and what is left to read when the proxy crashes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time

from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.stack import (ROOT, RawConnection, StackError, StackTest, chat, free_ports, main, patient, request,
                                 wait_until)

POLICY = """\
version: v1
server:
  listeners:
    - {address: {listen}}
%s  admin: {address: {admin}}
  workers: 2
%spools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    circuit_breaker: {enabled: false}
"""
SHIM = os.path.join(ROOT, "tests/support/faulty_calls.c")
MIB = 1 << 20


class KernelTest(StackTest):
    def start(self, script=None, server="", listener="", **how):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=POLICY % (listener, server), backends=[self.backend.address],
                                start=False)
        self.proxy.start_proxy(**how)
        return self.proxy

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8", errors="replace") as log:
            return log.read()


class FaultyCallsTest(KernelTest):
    """Every byte arrives, in its place, whatever single calls do."""

    def setUp(self):
        if patient(1) > 1:
            self.skipTest("a sanitizer's own library has to be the first one")
        folder = self.enterContext(contextlib.closing(Folder()))
        self.shim = folder.build(SHIM)
        self.random = random.Random(7)

    def echo(self, request_):
        """The body back: whole, or a piece an event."""
        if b'"stream": true' not in request_.body:
            return request_.answer(200, request_.body)
        request_.begin_events()
        text = request_.json()["messages"][0]["content"]
        for at in range(0, len(text), 997):
            request_.token(text[at:at + 997])
        request_.end_events()

    def ask(self, address, turns):
        for turn in range(turns):
            size = self.random.choice([1, 100, 5000, 200_000])
            text = "".join(self.random.choices("abcdefgh", k=size))
            answer = request(address, "POST", "/echo", text.encode(), timeout=60)
            self.assertEqual((answer.status, answer.body), (200, text.encode()))
            with contextlib.closing(self.proxy.stream(text, timeout=60, seed=turn)) as stream:
                self.assertEqual("".join(stream.tokens()), text)
        # Pipelined, on one connection.
        with RawConnection(address, 60) as client:
            client.send(b"".join(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n%04d" % n
                                 for n in range(50)))
            self.assertEqual([client.read_answer().body for _ in range(50)], [b"%04d" % n for n in range(50)])

    def side_by_side(self, turns, clients=4):
        failures = []

        def run():
            try:
                self.ask(self.proxy.proxy_address, turns)
            except (AssertionError, StackError) as error:
                failures.append(error)
        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        with open(f"/proc/{self.proxy.proxy.pid}/maps", encoding="ascii") as maps:
            self.assertIn(self.shim, maps.read())
        self.assertEqual(self.proxy.metric("penstock_client_protocol_errors_total"), 0)

    def test_calls_that_are_interrupted_find_nothing_or_do_a_part(self):
        for share in ("50", "400"):
            with self.subTest(share=share):
                self.start(self.echo, env={"LD_PRELOAD": self.shim, "FAULTY_SHARE": share})
                self.side_by_side(4)

    def test_buffers_as_small_as_they_get(self):
        self.start(self.echo, env={"LD_PRELOAD": self.shim, "FAULTY_BUFFERS": "1"})
        self.side_by_side(4)

    def test_tls_and_http2_too(self):
        folder = self.enterContext(contextlib.closing(Folder()))
        authority = Authority(folder.path)
        pair = authority.issue("localhost")
        tls_address = f"127.0.0.1:{free_ports(1)[0]}"
        self.start(self.echo, listener=f"    - {{name: tls, address: '{tls_address}', "
                                       f"tls: {{certificates: [{{cert_file: {pair.cert}, key_file: {pair.key}}}]}}}}\n",
                   env={"LD_PRELOAD": self.shim, "FAULTY_SHARE": "200", "FAULTY_BUFFERS": "4096"})
        text = "".join(self.random.choices("abcdefgh", k=300_000))
        for protocol in ("--http1.1", "--http2"):
            for _ in range(3):
                done = subprocess.run(["curl", "-sS", protocol, "--cacert", authority.cert, "--data-binary", "@-",
                                       "-H", "expect:", f"https://localhost:{tls_address.rpartition(':')[2]}/e"],
                                      input=text.encode(), capture_output=True, timeout=60, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertEqual(done.stdout, text.encode(), protocol)


class Folder:
    def __init__(self):
        self.path = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()

    def build(self, source):
        library = os.path.join(self.path, "shim.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        return library

    def close(self):
        subprocess.run(["rm", "-rf", self.path], check=True)


class MemoryTest(KernelTest):
    def test_an_attack_on_memory_ends_at_the_guard_and_not_at_the_kernel(self):
        """Bodies that never end, up to several times what there is: the limit of the
        kernel, which is little above the guard's, is not met."""
        if patient(1) > 1:
            self.skipTest("a sanitizer keeps what is freed, and reserves more than any limit")
        limits = "  limits: {buffered_bytes: 4GiB, request_body: 16MiB}\n"
        self.start(lambda request_: request_.answer(200, {"choices": []}), server=limits)
        base = self.proxy.metric("penstock_memory_used_bytes")
        guard = int(base + 160 * MIB) // MIB
        with open(f"/proc/{self.proxy.proxy.pid}/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE")
        subprocess.run(["prlimit", "--pid", str(self.proxy.proxy.pid), f"--as={mapped + 512 * MIB}"], check=True)
        self.proxy.write_policy(POLICY % ("", limits + f"  overload: {{memory_limit: {guard}MiB}}\n"))
        wait_until(lambda: self.proxy.metric("penstock_memory_limit_bytes") == guard * MIB, "it is in force")
        body = json.dumps(chat("x" * (12 * MIB))).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (len(body) + 1)
        with contextlib.ExitStack() as attack:
            for _ in range(60):
                # As one that is answered 503 goes on sending: it is cut.
                with contextlib.suppress(OSError):
                    client = attack.enter_context(self.proxy.raw(30))
                    client.socket.settimeout(2)
                    for at in range(0, len(body), MIB):
                        client.send((head if at == 0 else b"") + body[at:at + MIB])
                        time.sleep(0.01)
            # Above the guard is what comes between two looks of it, and the rest of a body.
            self.assertLess(self.proxy.metric("penstock_memory_used_bytes"), (guard + 64) * MIB)
            self.assertGreater(self.proxy.metric("penstock_shed_requests_total", reason="memory"), 0)
            self.assertEqual(request(self.proxy.admin_address, "GET", "/readyz").status, 200)
        wait_until(lambda: self.proxy.metric("penstock_overload_level") < 3, "it recovers", 60)
        wait_until(lambda: self.proxy.chat("hello?").status == 200, "it serves as before", 30)


class HeavyRequestTest(KernelTest):
    def test_what_a_heavy_request_costs_the_others_is_measured_and_bounded(self):
        """The heaviest body that is taken is read in one turn, which the delay of the loop shows."""
        if patient(1) > 1:
            self.skipTest("with a sanitizer such a turn is so late that requests are shed")
        self.start(lambda request_: request_.answer(200, {"choices": []}))
        deep = '{"a":' * 60 + "1" + "}" * 60
        heavy = ('{"model":"lexicon-5m","messages":[' + ",".join([deep] * (9 * MIB // len(deep))) + "]}").encode()
        for _ in range(8):
            self.assertEqual(self.proxy.request("POST", "/v1/chat/completions", heavy, timeout=60).status, 200)
        count = "penstock_event_loop_delay_seconds_count"
        seen = self.proxy.metric(count)
        self.assertGreater(seen, 0)
        wait_until(lambda: self.proxy.metric(count) > seen, "the loop goes on measuring")
        # Not one turn was as late as what sheds requests.
        late = seen - self.proxy.metric("penstock_event_loop_delay_seconds_bucket", le="1")
        self.assertLessEqual(late, seen / 100)
        self.assertEqual(self.proxy.metric("penstock_shed_requests_total", reason="loop_delay"), 0)


class CrashTest(KernelTest):
    KEY, PROMPT = "sk-canary-7f3a", "canary-prompt-51c0"

    def test_a_crash_tells_nothing_of_what_clients_sent(self):
        for fatal in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
            with self.subTest(fatal.name):
                self.start(lambda request_: request_.hang())
                body = json.dumps(chat(self.PROMPT)).encode()
                with self.proxy.raw() as client:
                    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %s\r\n"
                                b"content-length: %d\r\n\r\n%s" % (self.KEY.encode(), len(body), body))
                    wait_until(lambda: self.backend.requests, "it is on its way")
                    process = self.proxy.proxy
                    process.send(fatal)
                    wait_until(lambda: process.ended() is not None, "it is gone")
                    self.proxy._started.remove(process)  # Its end is what was asked for.
                self.assertNotIn(self.KEY, self.log())
                self.assertNotIn(self.PROMPT, self.log())

    def test_whoever_starts_it_again_does_not_do_so_in_a_circle_nor_keep_core_files(self):
        with open(os.path.join(ROOT, "config/deploy/penstock.service"), encoding="utf-8") as file:
            unit = dict(line.split("=", 1) for line in file.read().splitlines()
                        if "=" in line and not line.startswith("#"))
        self.assertEqual(unit["Restart"], "on-failure")
        self.assertEqual(unit["LimitCORE"], "0")
        # So many starts within that time, and each waits that long: it is not in a circle.
        wait, within, most = (int(unit[key].rstrip("s")) for key in (
            "RestartSec", "StartLimitIntervalSec", "StartLimitBurst"))
        self.assertGreaterEqual(wait, 1)
        self.assertGreater(within, wait * most)


if __name__ == "__main__":
    main()
