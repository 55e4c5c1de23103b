"""HTTP/1 clients at backends that speak HTTP/2: what a backend gives back is lost to
nobody, answered once, and no fault of the backend's."""

import http.client
import json
import threading

from tests.support import sdk
from tests.support.h2_backend import Http2Backend
from tests.support.stack import StackTest, main

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    connections: {protocol: http2, max_connections: 4}
    load_reports: {push: false}
"""
CLIENTS, EACH = 12, 50


class Http2BackendsTest(StackTest):
    @classmethod
    def setUpClass(cls):
        sdk.python_package("http2", sdk.HTTP2)

    def run_clients(self, stack):
        """What each request got: (status, its own body came back)."""
        outcomes, lock = [], threading.Lock()

        def client(number):
            connection = http.client.HTTPConnection(*stack.proxy_address.split(":"), timeout=60)
            for turn in range(EACH):
                body = json.dumps({"model": "lexicon-5m", "prompt": f"{number}-{turn}"})
                connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                same = answer.read() == body.encode()
                with lock:
                    outcomes.append((answer.status, same))
            connection.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def check(self, backend):
        stack = self.stack(engines=0, backends=[backend.address], policy=POLICY)
        outcomes = self.run_clients(stack)
        self.assertEqual(outcomes, [(200, True)] * (CLIENTS * EACH))
        # None was lost, none was taken in twice.
        self.assertEqual(len(backend.taken), CLIENTS * EACH)
        self.assertEqual(len(set(backend.taken)), CLIENTS * EACH)
        self.assertEqual(stack.metric("penstock_breaker_transitions_total"), 0)
        shown = stack.admin("/backends")["pools"][0]["backends"][0]
        self.assertEqual(shown["health"]["state"], "healthy")
        self.assertEqual(shown["connections"]["protocol"], "http2")
        self.assertEqual(shown["connections"]["http1"], 0)
        return stack

    def test_many_requests_share_few_connections(self):
        with Http2Backend() as backend:
            stack = self.check(backend)
            self.assertEqual(stack.metric("penstock_backend_connections", protocol="http2"), 2)   # Workers.
            self.assertEqual(stack.metric("penstock_backend_streams"), 0)

    def test_a_goaway_loses_nothing(self):
        with Http2Backend(goaway_after=20) as backend:
            stack = self.check(backend)
            self.assertGreater(stack.metric("penstock_backend_goaways_total"), CLIENTS * EACH / 20 - 5)
            # Some of them were on their way when the connection closed.
            self.assertGreaterEqual(stack.metric("penstock_backend_streams_refused_total"), backend.passed_over)

    def test_refused_streams_go_again(self):
        with Http2Backend(refuse_every=7) as backend:
            stack = self.check(backend)
            self.assertEqual(stack.metric("penstock_backend_streams_refused_total"), backend.refused)
            # Refused for the fourth time, a request waits as it does for a busy backend.
            again = stack.metric("penstock_retries_total", reason="refused")
            self.assertLessEqual(again, backend.refused)
            self.assertGreater(again, backend.refused / 2)

    def test_one_stream_a_connection_is_enough(self):
        with Http2Backend(streams=1) as backend:
            self.check(backend)
            self.assertGreater(backend.connections, 2)


if __name__ == "__main__":
    main()
