"""Very many connections: idle ones, ones that come and go at once, ones that are reset.
Those above the limit are refused, everybody else is served, and nothing is left behind."""

import contextlib
import os
import resource
import socket
import struct
import threading

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, main, patient, request, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
  limits: {connections: 1000}
pools:
  - name: main
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
"""


class ConnectionsTest(StackTest):
    @classmethod
    def setUpClass(cls):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))

    def setUp(self):
        self.backend = FakeBackend(lambda request: request.answer(body=b"fine"))
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, backends=[self.backend.address], policy=POLICY)
        host, port = self.proxy.proxy_address.rsplit(":", 1)
        self.address = (host, int(port))

    def connect(self):
        return socket.create_connection(self.address, patient(20))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.proxy.proxy.pid}/fd"))

    def assert_served(self):
        self.assertEqual(self.proxy.request("GET", "/x").body, b"fine")

    def test_idle_ones_above_the_limit_are_refused_and_the_others_stay(self):
        with self.proxy.raw() as kept:
            kept.send(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
            self.assertEqual(kept.read_answer().body, b"fine")
            memory = self.proxy.metric("process_resident_memory_bytes")
            idle = []
            self.addCleanup(lambda: [sock.close() for sock in idle])
            for _ in range(1500):
                idle.append(self.connect())
            wait_until(lambda: self.proxy.metric("penstock_client_connections_refused_total") >= 500,
                       "those above the limit are refused")
            self.assertEqual(self.proxy.metric("penstock_client_connections"), 1000)
            # The one that was there is served, and the operator's page too.
            kept.send(b"GET /y HTTP/1.1\r\nhost: a\r\n\r\n")
            self.assertEqual(kept.read_answer().body, b"fine")
            self.assertEqual(request(self.proxy.admin_address, "GET", "/readyz").status, 200)
            each = (self.proxy.metric("process_resident_memory_bytes") - memory) / 1000
            self.assertLess(each, 64 << 10, "bytes an idle connection")
            for sock in idle:
                sock.close()
        wait_until(lambda: self.proxy.metric("penstock_client_connections") == 0, "all are gone")
        self.assert_served()

    def test_a_storm_of_connections_leaves_nothing_behind(self):
        self.assert_served()
        before, failures, stop = self.descriptors(), [], threading.Event()

        def storm():
            for _ in range(1000):
                self.connect().close()

        def others():
            while not stop.is_set():
                answer = self.proxy.request("GET", "/x")
                if answer.status != 200:
                    failures.append(answer.error())

        other = threading.Thread(target=others)
        other.start()
        threads = [threading.Thread(target=storm) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        other.join()
        self.assertEqual(failures, [])
        wait_until(lambda: self.proxy.metric("penstock_client_connections") == 0, "all are gone")
        self.assertGreaterEqual(self.proxy.metric("penstock_client_connections_total"), 3000)
        wait_until(lambda: self.descriptors() <= before + 2, "no descriptor is left open")

    def test_resets_at_any_moment_are_nobodys_business(self):
        whole = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
        half = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nhalf"
        for said in (b"", whole[:7], whole, whole * 20, half):
            for _ in range(50):
                sock = self.connect()
                with contextlib.suppress(OSError):
                    sock.sendall(said)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
        wait_until(lambda: self.proxy.metric("penstock_client_connections") == 0, "all are gone")
        wait_until(lambda: self.proxy.metric("penstock_http_requests_active") == 0, "and their requests")
        self.assert_served()
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            self.assertLess(len(log.readlines()), 50)


if __name__ == "__main__":
    main()
