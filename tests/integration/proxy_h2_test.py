"""HTTP/2 from clients that others made: curl, nghttp, h2load, and raw frames; on the
same port as HTTP/1."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.h2_raw import CANCEL, GET, H2Raw, NO_ERROR, POST, at
from tests.support.stack import StackTest, chat, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 1
  timeouts: {drain: 5s, drain_streams: 5s}
%s
pools:
  - name: main
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
%s
observability: {access_log: "%s"}
"""


def policy(server="", pool="", access_log="off"):
    return POLICY % (server, pool, access_log)


class H2Test(StackTest):
    def proxied(self, script=None, **more):
        """A proxy in front of a backend that does what `script` says."""
        backend = FakeBackend(script)
        self.addCleanup(backend.close)
        return self.stack(engines=0, backends=[backend.address], policy=policy(**more)), backend

    def run_tool(self, *argv):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=patient(120), check=False)
        self.assertEqual(done.returncode, 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


class PeersTest(H2Test):
    def test_curl_is_answered_by_a_real_engine(self):
        stack = self.stack(engines=1)
        out = self.run_tool("curl", "-sS", "--http2-prior-knowledge", "-w", "\n%{http_version} %{http_code}",
                            "-H", "content-type: application/json", "-d",
                            json.dumps(chat("What is a turbine?", max_tokens=8)),
                            f"http://{stack.proxy_address}/v1/chat/completions")
        body, _, last = out.rpartition("\n")
        self.assertEqual(last, "2 200")
        self.assertIn("Turbine", json.loads(body)["choices"][0]["message"]["content"])
        # HTTP/1 on the same port, from the same tool.
        out = self.run_tool("curl", "-sS", "-w", "\n%{http_version} %{http_code}",
                            f"http://{stack.proxy_address}/v1/models")
        self.assertEqual(out.rpartition("\n")[2], "1.1 200")

    def test_nghttp_sees_many_streams_and_a_stream_of_events(self):
        def script(request):
            request.stream("Tur", "bine") if request.path == "/events" else request.answer(body=b"fine")
        stack, _ = self.proxied(script)
        base = f"http://{stack.proxy_address}"
        out = self.run_tool("nghttp", "-nv", f"{base}/a", f"{base}/b", f"{base}/events")
        self.assertEqual(len(re.findall(r"recv \(stream_id=\d+\) :status: 200", out)), 3)
        self.assertIn("content-type: text/event-stream", out)

    def test_h2load_loses_no_request(self):
        stack, backend = self.proxied(lambda request: request.answer(body=b"fine"))
        out = self.run_tool("h2load", "-n", "2000", "-c", "4", "-m", "32", f"http://{stack.proxy_address}/x")
        self.assertIn("2000 succeeded, 0 failed, 0 errored, 0 timeout", out)
        self.assertEqual(len(backend.requests), 2000)
        wait_until(lambda: stack.metric("penstock_client_connections", protocol="http2") == 0, "they are gone")


class RelayTest(H2Test):
    def test_requests_of_one_connection_are_answered_side_by_side(self):
        def script(request):
            if request.path == "/slow":
                request.hang()
            request.answer(body=request.path.encode())
        stack, backend = self.proxied(script)
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, at("/slow"))
            for stream in range(3, 43, 2):
                client.headers(stream, at(f"/{stream}"))
            for stream in range(3, 43, 2):
                self.assertEqual(client.answer(stream).body, f"/{stream}".encode())
            self.assertEqual(stack.metric("penstock_client_connections", protocol="http2"), 1)
            client.reset(1)
            self.assertTrue(backend.gone.wait(patient(10)), "the backend's request is cancelled")

    def test_the_access_log_names_the_protocol(self):
        log = os.path.join(self.stack_folder(), "access.log")
        stack, _ = self.proxied(access_log=log)
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, GET)
            self.assertEqual(client.answer(1).status, 200)
        stack.request("GET", "/x")
        stack.stop()
        with open(log, encoding="utf-8") as lines:
            self.assertEqual([json.loads(line)["protocol"] for line in lines], ["HTTP/2", "HTTP/1.1"])

    def stack_folder(self):
        import tempfile
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def test_a_broken_stream_is_reset_after_its_error_event(self):
        def script(request):
            request.begin_events()
            request.token("Tur")
            request.reset()
        stack, _ = self.proxied(script)
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, at("/v1/chat/completions", POST), end=False)
            client.data(1, json.dumps(chat("Hm?", stream=True)).encode(), end=True)
            heard = client.answer(1)
            self.assertIn(b'"code":"backend_reset"', heard.body)
            self.assertEqual(heard.reset, 2)
            client.ping()  # And the connection goes on.

    def test_two_hundred_streams_are_served_a_hundred_at_a_time(self):
        stack, backend = self.proxied(lambda request: request.hang())
        with H2Raw(stack.proxy_address) as client:
            # Before it has read our settings, a client cannot know the limit.
            for stream in range(1, 401, 2):
                client.headers(stream, GET)
            wait_until(lambda: len(backend.requests) >= 100, "a hundred are there")
            client.ping()
            refused = [s for s in range(1, 401, 2) if client.of(s).reset == 7]
            self.assertEqual(len(refused), 100)
            self.assertEqual(len(backend.requests), 100)


class CancelTest(H2Test):
    def test_streams_that_are_cancelled_anywhere_leave_nothing_behind(self):
        left, lock = [0], threading.Lock()

        def script(request):
            request.begin_events()
            try:
                while True:
                    request.token("a")
                    time.sleep(0.02)
            except OSError:                # Its connection was closed.
                with lock:
                    left[0] += 1
        stack, backend = self.proxied(script)
        seeded = random.Random(7)
        with H2Raw(stack.proxy_address) as client:
            client.ping()                  # Now the limit of streams is known.
            for stream in range(1, 201, 2):
                client.headers(stream, at("/v1/chat/completions", POST), end=False)
                client.data(stream, json.dumps(chat("Hm?", stream=True)).encode(), end=True)
            waiting = {stream: seeded.randrange(4) for stream in range(1, 201, 2)}
            while waiting:
                for stream, events in list(waiting.items()):
                    if client.of(stream).body.count(b"\n\n") >= events:
                        client.reset(stream)
                        del waiting[stream]
                client.read(wait=0.05)
            client.ping()                  # And the connection goes on.
            wait_until(lambda: left[0] == len(backend.requests), "every backend has been told")
            wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "none is in progress")
            self.assertEqual(stack.metric("penstock_client_h2_floods_total"), 0)


class EndTest(H2Test):
    def test_a_drain_loses_no_request_and_says_goaway_twice(self):
        def script(request):
            time.sleep(1)
            request.answer(body=b"fine")
        stack, _ = self.proxied(script)
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, GET)
            client.ping()
            stack.proxy.send(signal.SIGTERM)
            client.until(lambda: client.goaway is not None, "the first GOAWAY")
            self.assertEqual((client.goaway, client.last_stream), (NO_ERROR, 2**31 - 1))
            client.headers(3, GET)        # It crosses the GOAWAY, and is served.
            self.assertEqual(client.answer(1).body, b"fine")
            self.assertEqual(client.answer(3).body, b"fine")
            self.assertEqual(client.until_closed(), NO_ERROR)
            self.assertEqual(client.last_stream, 3)
        wait_until(lambda: stack.proxy.ended() == 0, "the proxy has ended")

    def test_a_reload_keeps_streams(self):
        def script(request):
            request.begin_events()
            for _ in range(6):
                request.token("a")
                time.sleep(0.5)
            request.end_events()
        stack, _ = self.proxied(script)
        with H2Raw(stack.proxy_address) as client:
            client.headers(1, at("/v1/chat/completions", POST), end=False)
            client.data(1, json.dumps(chat("Hm?", stream=True)).encode(), end=True)
            client.until(lambda: client.of(1).body, "the first event")
            before = stack.metric("penstock_config_reloads_total", result="accepted")
            stack.write_policy(policy() + "# another text\n")
            wait_until(lambda: stack.metric("penstock_config_reloads_total", result="accepted") > before, "reload")
            heard = client.answer(1)
            self.assertTrue(heard.ended and heard.body.endswith(b"data: [DONE]\n\n"))
            client.headers(3, at("/v1/models"))
            self.assertEqual(client.answer(3).status, 200)

    def test_a_client_that_takes_nothing_is_reset_and_its_place_freed(self):
        def script(request):
            request.begin_events()
            while True:
                request.token("x" * 1000)
        stack, backend = self.proxied(script, pool="    timeouts: {idle: 1s}")
        with H2Raw(stack.proxy_address, settings={4: 0}) as client:
            client.headers(1, at("/v1/chat/completions", POST), end=False)
            client.data(1, json.dumps(chat("Hm?", stream=True)).encode(), end=True)
            self.assertEqual(client.answer(1).reset, CANCEL)
            self.assertEqual(client.of(1).body, b"")
            self.assertEqual(stack.metric("penstock_http_requests_active"), 0)
            self.assertEqual(stack.metric("penstock_client_h2_resets_total", reason="stalled"), 1)


if __name__ == "__main__":
    main()
