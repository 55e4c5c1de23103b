"""h2spec, every case of it, strict ones too. The listener speaks HTTP/2 alone: where it
shares the port with HTTP/1, bytes that are no preface are answered as HTTP/1, which
one case of h2spec takes for a failure."""

import tempfile

from tests.support import h2spec
from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, main

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, protocols: [http2]}]
  admin: {address: {admin}}
  workers: 1
pools:
  - name: main
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
"""


class H2SpecTest(StackTest):
    def test_every_case_passes_in_front_of_a_backend_of_http1(self):
        h2spec.program()
        backend = FakeBackend(lambda request: request.answer(body=b"fine, and long enough to be cut into frames"))
        self.addCleanup(backend.close)
        stack = self.stack(engines=0, backends=[backend.address], policy=POLICY)
        with tempfile.TemporaryDirectory() as folder:
            passed, others = h2spec.run(stack.proxy_address, folder=folder)
        self.assertEqual(others, [])
        self.assertGreater(passed, 140)


if __name__ == "__main__":
    main()
