"""WebSocket through a real proxy: the client and the server of the `websockets` package,
and raw sockets for what these would never do."""

import asyncio
import os
import signal
import tempfile
import threading

from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.sdk import python_package
from tests.support.stack import StackTest, main, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
  timeouts: {drain: 500ms, drain_streams: 3s}
pools:
  - name: sockets
    backends: {backends}
    upgrades: [websocket]
    timeouts: {tunnel: 1s}%s
    health_check: {enabled: false}
    load_reports: {push: false}
observability: {access_log: "%s"}
"""
ASK = (b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
       b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
AGREED = (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
          b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


class TunnelTest(StackTest):
    def start(self, backend, more=""):
        stack = self.stack(engines=0, policy="version: v1\n", backends=[backend], start=False)
        self.access_log = os.path.join(stack.folder, "access.log")
        stack.write_policy(POLICY % (more, self.access_log))
        stack.start()
        return stack

    def logged(self):
        def line():
            with open(self.access_log, encoding="utf-8") as log:
                return log.read()
        return wait_until(line, "a line of the access log")


class EchoServer:
    """A server of the package that sends back what it gets, on a thread of its own."""

    def __init__(self, tls=None):
        from websockets.asyncio.server import serve
        self._loop, started = asyncio.new_event_loop(), threading.Event()

        async def echo(connection):
            async for message in connection:
                await connection.send(message)

        async def run():
            self._stop = asyncio.Event()
            async with serve(echo, "127.0.0.1", 0, max_size=None, ssl=tls) as server:
                self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
                started.set()
                await self._stop.wait()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(run()))
        self._thread.start()
        started.wait(20)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class PackageTest(TunnelTest):
    @classmethod
    def setUpClass(cls):
        python_package("websockets", "websockets==17.4")

    def test_messages_of_every_size_go_both_ways(self):
        from websockets.sync.client import connect
        server = EchoServer()
        self.addCleanup(server.close)
        stack = self.start(server.address)
        with connect(f"ws://{stack.proxy_address}/chat", max_size=None, compression=None) as client:
            for size in (0, 1, 125, 126, 65_535, 65_536, 5_000_000):
                message = os.urandom(size)
                client.send(message)
                self.assertEqual(client.recv(timeout=30), message)
            client.send("text é")
            self.assertEqual(client.recv(timeout=30), "text é")
            client.ping().wait(30)
        line = self.logged()
        self.assertIn('"response_code":101', line)
        self.assertGreater(stack.metric("penstock_http_requests_total", code="101"), 0)

    def test_a_backend_whose_tls_would_agree_on_http2_is_upgraded_over_http1(self):
        from websockets.sync.client import connect
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            context = authority.issue("sockets", "127.0.0.1").server_context()
            context.set_alpn_protocols(["h2", "http/1.1"])   # What it likes best comes first.
            server = EchoServer(context)
            self.addCleanup(server.close)
            stack = self.start(server.address, f"\n    tls: {{enabled: true, ca_file: {authority.cert}}}")
            for _ in range(2):   # The second resumes the session of the first.
                with connect(f"ws://{stack.proxy_address}/chat") as client:
                    client.send("hello")
                    self.assertEqual(client.recv(timeout=30), "hello")

    def test_many_at_once(self):
        from websockets.sync.client import connect
        server = EchoServer()
        self.addCleanup(server.close)
        stack = self.start(server.address)
        clients = [connect(f"ws://{stack.proxy_address}/chat") for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(f"{number}")
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(timeout=30), f"{number}")
        for client in clients:
            client.close()
        wait_until(lambda: stack.metric("penstock_http_requests_active") == 0, "all are closed")


class RawTest(TunnelTest):
    def serve(self, script):
        backend = FakeBackend(script)
        self.addCleanup(backend.close)
        return self.start(backend.address), backend

    def test_early_bytes_wait_for_the_101(self):
        go_on, heard = threading.Event(), []

        def script(request):
            go_on.wait(10)
            request.send(AGREED)
            heard.append(request.exactly(5))
            request.send(b"back")
            request.close = True
        stack, _ = self.serve(script)
        with stack.raw() as client:
            client.send(ASK + b"early")
            self.assertEqual(heard, [])
            go_on.set()
            self.assertTrue(client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 "))
            self.assertEqual(client.read_until(b"back"), b"back")
        self.assertEqual(heard, [b"early"])

    def test_an_answer_that_is_no_101_is_relayed(self):
        stack, backend = self.serve(lambda request: request.answer(403, b"no"))
        with stack.raw() as client:
            client.send(ASK)
            self.assertEqual(client.read_answer().status, 403)
            client.send(ASK)
            self.assertEqual(client.read_answer().status, 403)
        self.assertEqual(len(backend.requests), 2)

    def test_a_tunnel_on_which_nothing_moves_is_cut(self):
        def script(request):
            request.send(AGREED)
            request.hang()
        stack, backend = self.serve(script)
        with stack.raw() as client:
            client.send(ASK)
            client.read_until(b"\r\n\r\n")
            self.assertEqual(client.read_to_end(), b"")
        self.assertTrue(backend.gone.wait(10))
        self.assertEqual(stack.metric("penstock_timeouts_total", kind="tunnel"), 1)
        line = self.logged()
        self.assertIn('"response_code":101', line)

    def test_a_client_that_leaves_is_told_to_the_backend(self):
        def script(request):
            request.send(AGREED)
            request.hang()
        stack, backend = self.serve(script)
        with stack.raw() as client:
            client.send(ASK)
            client.read_until(b"\r\n\r\n")
        self.assertTrue(backend.gone.wait(10))
        wait_until(lambda: stack.metric("penstock_client_connections") == 0, "it is gone")

    def test_a_tunnel_outlives_the_drain_of_whole_answers(self):
        def script(request):
            request.send(AGREED)
            while True:
                request.send(request.exactly(1))
        stack, _ = self.serve(script)
        with stack.raw() as client:
            client.send(ASK)
            client.read_until(b"\r\n\r\n")
            stack.proxy.send(signal.SIGTERM)
            for _ in range(8):  # 200 ms each: past drain, within drain_streams.
                client.send(b"x")
                self.assertEqual(client.read_until(b"x"), b"x")
                threading.Event().wait(0.2)
            self.assertIsNone(stack.proxy.ended())
            client.read_to_end()
        wait_until(lambda: stack.proxy.ended() is not None, "the proxy has ended", 10)


if __name__ == "__main__":
    main()
