"""h2spec, every case of it, strict ones too: over cleartext and over TLS, in front of a
backend of HTTP/1 and of one of HTTP/2. The cleartext listener speaks HTTP/2 alone: where
it shares the port with HTTP/1, bytes that are no preface are answered as HTTP/1, which
one case of h2spec takes for a failure. Behind TLS both are offered, and ALPN decides."""

import json
import tempfile

from tests.support import h2spec, sdk
from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.h2_backend import Http2Backend
from tests.support.stack import StackTest, free_ports, main

POLICY = """\
version: v1
server:
  listeners:
    - {name: cleartext, address: {listen}, protocols: [http2]}
    - {name: secure, address: "%s", tls: {certificates: [%s]}}
  admin: {address: {admin}}
  workers: 1
pools:
  - name: main
    backends: {backends}
    connections: {protocol: %s}
    health_check: {enabled: false}
    load_reports: {push: false}
"""
BODY = b"fine, and long enough to be cut into frames"
CASES = 146   # Of the version that h2spec.py names.


class H2SpecTest(StackTest):
    @classmethod
    def setUpClass(cls):
        h2spec.program()

    def check(self, backend, protocol):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        pair = Authority(folder.name).issue("api", "127.0.0.1")
        secure = f"127.0.0.1:{free_ports(1)[0]}"
        certificate = json.dumps({"cert_file": pair.cert, "key_file": pair.key})
        stack = self.stack(engines=0, backends=[backend.address], policy=POLICY % (secure, certificate, protocol))
        for name, address in (("cleartext", stack.proxy_address), ("TLS", secure)):
            with self.subTest(name):
                passed, others = h2spec.run(address, folder=folder.name, tls=name == "TLS")
                self.assertEqual(others, [])
                self.assertEqual(passed, CASES)

    def test_every_case_passes_in_front_of_a_backend_of_http1(self):
        backend = FakeBackend(lambda request: request.answer(body=BODY))
        self.addCleanup(backend.close)
        self.check(backend, "http1")

    def test_every_case_passes_in_front_of_a_backend_of_http2(self):
        sdk.python_package("http2", sdk.HTTP2)
        with Http2Backend(body=BODY) as backend:
            self.check(backend, "http2")


if __name__ == "__main__":
    main()
