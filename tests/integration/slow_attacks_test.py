"""slowhttptest against a real proxy: fields that trickle in, bodies that do, answers that are
read a few bytes at a time, each on 150 connections at once. All of them end by the proxy's
own limits, whoever else asks meanwhile is answered, and the kernel keeps little for them."""

import contextlib
import subprocess

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
  timeouts: {request_headers: 2s, request_body_idle: 2s, keep_alive: 3s}
pools:
  - name: main
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    timeouts: {idle: 2s}
"""
CONNECTIONS = 150
LARGE = b"x" * 8_000_000       # The kernel would keep 4 MB of it.
EACH_SECOND = ("-i", "1", "-x", "3")


class SlowAttacksTest(StackTest):
    def setUp(self):
        def answer(request):
            request.read_body()
            request.answer(body=LARGE if request.path == "/large" else b"well")
        self.backend = FakeBackend(answer)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=POLICY, backends=[self.backend.address])

    @contextlib.contextmanager
    def attack(self, path, *options):
        """It never ends by itself here: its own idea of who is connected comes late."""
        process = subprocess.Popen(
            ["slowhttptest", *options, "-c", str(CONNECTIONS), "-r", "100", "-l", str(int(patient(120))),
             "-u", f"http://{self.proxy.proxy_address}{path}"], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def others_are_answered_until(self, all_have_ended):
        kept, asked = 0, 0

        def over():
            nonlocal kept, asked
            answer = self.proxy.request("GET", "/")
            self.assertEqual((answer.status, answer.body), (200, b"well"))
            asked += 1
            kept = max(kept, *self.kept_by_the_kernel(), 0)
            return all_have_ended()
        wait_until(over, "the proxy ends all of them", 60)
        self.assertGreater(asked, 10)
        return kept

    def kept_by_the_kernel(self):
        """Bytes of each connection that the proxy has written and its client has not taken."""
        port = f":{int(self.proxy.proxy_address.rsplit(':', 1)[1]):04X}"
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
        listening = "0A"
        return [int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(port) and row[3] != listening]

    def timeouts(self, kind):
        return sum(self.proxy.metric("penstock_timeouts_total", kind=kind, pool=pool) for pool in ("main", "none"))

    def test_fields_that_trickle_in(self):
        with self.attack("/", "-H", *EACH_SECOND):
            self.others_are_answered_until(lambda: self.timeouts("request_headers") >= CONNECTIONS)

    def test_bodies_that_trickle_in(self):
        with self.attack("/", "-B", "-s", "8192", *EACH_SECOND):
            self.others_are_answered_until(lambda: self.timeouts("request_body") >= CONNECTIONS)

    def test_answers_that_are_read_a_few_bytes_at_a_time(self):
        def left():
            return self.proxy.metric("penstock_response_flags_total", flag="DC")
        with self.attack("/large", "-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5"):
            kept = self.others_are_answered_until(lambda: left() >= CONNECTIONS)
            wait_until(lambda: sum(self.kept_by_the_kernel()) == 0, "nothing is kept for them any more")
        self.assertLess(kept, 512 * 1024)


if __name__ == "__main__":
    main()
