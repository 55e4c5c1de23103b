"""gRPC through the proxy: a client and servers of the grpcio package, over HTTP/2
without TLS on both sides."""

import concurrent.futures
import os
import threading

# Its fork handlers run in the children that become proxies, and end some of them.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from tests.support import sdk
from tests.support.stack import StackTest, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
pools:
  - name: grpc
    backends: {backends}
    connections: {protocol: http2}
    health_check: {path: /grpc.health.v1.Health/Check, interval: 200ms, timeout: 150ms}
    load_reports: {push: false}
routes:
  - {name: all, match: {path_prefix: /test.}, pool: grpc}
"""


class EchoServer:
    """/test.Echo/Unary, Many (as many copies as its first byte says), Both (each message
    back as it comes), Fail (the status that the message names), Hang."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.begun = threading.Event()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_stream_rpc_method_handler(self.hang),
        }), grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            # HealthCheckResponse{status: SERVING}
            "Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01"),
        })))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def unary(self, request, context):
        context.set_trailing_metadata((("x-echo-trailer", "late"),))
        return request

    def many(self, request, context):
        for number in range(request[0]):
            yield b"%d" % number

    def both(self, requests, context):
        for request in requests:
            yield request

    def fail(self, request, context):
        code = next(code for code in grpc.StatusCode if code.name.encode() == request)
        context.abort(code, "as asked: 50%")

    def hang(self, request, context):
        context.add_callback(self.cancelled.set)
        self.begun.set()
        yield b"first"
        self.cancelled.wait(patient(30))

    def stop(self):
        self.server.stop(0).wait()


class GrpcTest(StackTest):
    @classmethod
    def setUpClass(cls):
        sdk.python_package("grpc", sdk.GRPC)
        global grpc
        import grpc

    def setUp(self):
        self.echo = EchoServer()
        self.addCleanup(self.echo.stop)
        self.proxy = self.stack(engines=0, backends=[self.echo.address], policy=POLICY)
        self.channel = grpc.insecure_channel(self.proxy.proxy_address, options=[("grpc.enable_retries", 0)])
        self.addCleanup(self.channel.close)

    def unary(self, method="Unary", **more):
        return self.channel.unary_unary(f"/test.Echo/{method}", **more)

    def status_of(self, call):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        return raised.exception

    def test_a_unary_call_is_answered_with_its_trailers(self):
        answer, call = self.unary().with_call(b"hello", timeout=patient(10))
        self.assertEqual(answer, b"hello")
        self.assertIn(("x-echo-trailer", "late"), call.trailing_metadata())
        self.assertEqual(self.unary()(b"x" * 1_000_000, timeout=patient(10)), b"x" * 1_000_000)
        self.assertEqual(self.proxy.metric("penstock_backend_connections", protocol="http1"), 0)

    def test_a_server_streams_many_messages(self):
        many = self.channel.unary_stream("/test.Echo/Many")
        self.assertEqual(list(many(b"\xc8", timeout=patient(10))), [b"%d" % number for number in range(200)])

    def test_both_sides_stream_in_turns(self):
        mine, turn = [f"message {number}".encode() for number in range(20)], threading.Semaphore(1)

        def ask():
            for message in mine:
                turn.acquire()   # Each waits for the answer to the one before it.
                yield message

        heard = []
        for message in self.channel.stream_stream("/test.Echo/Both")(ask(), timeout=patient(20)):
            heard.append(message)
            turn.release()
        self.assertEqual(heard, mine)

    def test_a_status_passes_as_it_is(self):
        for name in ("NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"):
            error = self.status_of(lambda name=name: self.unary("Fail")(name.encode(), timeout=patient(10)))
            self.assertEqual((error.code().name, error.details()), (name, "as asked: 50%"))
        self.assertEqual(self.proxy.metric("penstock_breaker_transitions_total"), 0)

    def test_failed_statuses_open_the_breaker(self):
        for _ in range(5):
            self.status_of(lambda: self.unary("Fail")(b"UNAVAILABLE", timeout=patient(10)))
        self.assertEqual(self.proxy.metric("penstock_breaker_transitions_total", to="open"), 1)

    def test_its_health_service_says_whether_a_server_is_well(self):
        def state():
            return self.proxy.admin("/backends")["pools"][0]["backends"][0]["health"]["state"]

        wait_until(lambda: state() == "healthy", "the server passes its checks")
        self.echo.stop()
        wait_until(lambda: state() == "down", "nothing listens there any more")

    def test_a_method_that_nobody_has_is_the_servers_to_refuse(self):
        error = self.status_of(lambda: self.unary("Missing")(b"", timeout=patient(10)))
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_a_client_that_cancels_is_heard_by_the_server(self):
        call = self.channel.unary_stream("/test.Echo/Hang")(b"")
        self.assertEqual(next(call), b"first")
        call.cancel()
        self.assertTrue(self.echo.cancelled.wait(patient(10)))
        self.assertEqual(self.unary()(b"on", timeout=patient(10)), b"on")

    def test_a_deadline_ends_the_call_on_both_sides(self):
        call = self.channel.unary_stream("/test.Echo/Hang")(b"", timeout=1)
        error = self.status_of(lambda: list(call))
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertTrue(self.echo.cancelled.wait(patient(10)))

    def test_a_server_that_is_gone_is_unavailable(self):
        self.echo.stop()
        error = self.status_of(lambda: self.unary()(b"hello", timeout=patient(10)))
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertRegex(error.details(), "backend 127.0.0.1:|no healthy backend")

    def test_a_server_that_leaves_costs_no_call_but_those_that_it_cancels_itself(self):
        others = [EchoServer() for _ in range(2)]
        for other in others:
            self.addCleanup(other.stop)
        proxy = self.stack(engines=0, backends=[server.address for server in others], policy=POLICY)
        channel = grpc.insecure_channel(proxy.proxy_address, options=[("grpc.enable_retries", 0)])
        self.addCleanup(channel.close)
        stop, lost, done = threading.Event(), [], []

        def client():
            call = channel.unary_unary("/test.Echo/Unary")
            while not stop.is_set():
                try:
                    done.append(call(b"hello", timeout=patient(20)))
                except grpc.RpcError as error:
                    lost.append(f"{error.code()}: {error.details()}")

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(done) > 200, "load is under way")
            others[0].server.stop(grace=patient(10)).wait()   # A GOAWAY, and then the end.
            before = len(done)
            wait_until(lambda: len(done) > before + 200, "the other one goes on")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        # grpcio cancels calls that cross its GOAWAY on the wire instead of refusing them, so
        # nobody may send them again: one a client at most, and nothing of another kind.
        self.assertLessEqual(len(lost), len(threads))
        self.assertEqual(set(lost) - {"StatusCode.CANCELLED: CANCELLED"}, set())


if __name__ == "__main__":
    main()
