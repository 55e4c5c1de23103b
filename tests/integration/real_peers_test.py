"""Programs that others made on both sides: curl, nghttp and h2load as clients, over
HTTP/1 and HTTP/2, with TLS and without; nginx and Node as backends, likewise."""

import hashlib
import json
import re
import subprocess
import tempfile

from tests.support.certificates import Authority
from tests.support.real_backends import BIG, OWN, SMALL, WIRES, Nginx, Node
from tests.support.stack import RawConnection, StackTest, free_ports, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners:
    - {name: public, address: {listen}}
    - {name: secure, address: "%s", tls: {certificates: [%s]}}
  admin: {address: {admin}}
  workers: 2
  overload: {loop_delay_from: 0s}  # An answer that comes early makes curl fail.
pools:
%s
routes:
%s
"""
POOL = """\
  - name: %s
    backends: ["%s"]
    load_reports: {push: false}
    health_check: {enabled: false}
    timeouts: {connect: 20s}
    connections: {protocol: %s}
"""
TLS = """\
    tls: {enabled: true, ca_file: "%s"}
    upgrades: [websocket]
"""
SENT = b"what is sent, " * 70_000
CURL = {"http1": ("http", "--http1.1", "1.1"), "http2": ("http", "--http2-prior-knowledge", "2"),
        "https1": ("https", "--http1.1", "1.1"), "https2": ("https", "--http2", "2")}


class RealPeersTest(StackTest):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.authority = Authority(folder.name)
        pair = cls.authority.issue("engines", "127.0.0.1")
        cls.backends = []
        for make in (lambda: Nginx(folder.name, pair), lambda: Node(pair)):
            cls.backends.append(make())
            cls.addClassCleanup(cls.backends[-1].close)

    def setUp(self):
        pair = self.authority.issue("proxy", "127.0.0.1")
        self.secure = f"127.0.0.1:{free_ports(1)[0]}"
        pools, routes = "", ""
        for name, wire, address in self.all():
            # With TLS it is for ALPN to say.
            pools += POOL % (name, address, {"http1": "http1", "http2": "http2"}.get(wire, "auto"))
            pools += TLS % self.authority.cert if wire.startswith("https") else ""
            routes += f"  - {{name: {name}, match: {{path_prefix: /{name}/}}, pool: {name}}}\n"
        certificate = json.dumps({"cert_file": pair.cert, "key_file": pair.key})
        self.proxy = self.stack(engines=0, policy=POLICY % (self.secure, certificate, pools, routes))

    def all(self):
        return [(f"{backend.name}-{wire}", wire, backend.addresses[wire])
                for backend in self.backends for wire in WIRES]

    def base(self, scheme):
        return f"{scheme}://{self.secure if scheme == 'https' else self.proxy.proxy_address}"

    def run_tool(self, *argv, stdin=None):
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=patient(60), check=False)
        said = done.stdout[-1000:] + done.stderr[-1000:]
        self.assertEqual(done.returncode, 0, f"{argv}: {said.decode('utf-8', 'replace')}")
        return done.stdout

    def curl(self, wire, path, *more, stdin=None):
        """(body, everything else that curl tells of the answer)"""
        scheme, flag, version = CURL[wire]
        head = f"{self.folder}/head"
        body = self.run_tool("curl", "-sS", "--cacert", self.authority.cert, flag, "-D", head, *more,
                             self.base(scheme) + path, stdin=stdin)
        with open(head, encoding="latin-1") as file:
            head = file.read()
        self.assertTrue(re.search(rf"^HTTP/{version} 200", head, re.MULTILINE), head)
        return body, head

    def check_spoken(self):
        """Each backend was spoken to as it is meant to be."""
        for pool in self.proxy.admin("/backends")["pools"]:
            shown = pool["backends"][0]
            wire = pool["name"].split("-")[1]
            other = {"1": "http2", "2": "http1"}[wire[-1]]
            self.assertEqual(shown["connections"][other], 0, pool["name"])
        self.assertEqual(self.proxy.metric("penstock_breaker_transitions_total"), 0)

    def test_curl_gets_and_sends_every_byte_in_every_mix(self):
        for name, _, _ in self.all():
            # nginx answers before it has read a body; curl 7.88 fails over that on HTTP/2,
            # without a proxy too.
            early = name.startswith("nginx")
            sent, own = (SENT[:1000], OWN) if early else (SENT, SENT)
            for wire in CURL:
                with self.subTest(backend=name, client=wire):
                    body, _ = self.curl(wire, f"/{name}/big")
                    self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(BIG).digest())
                    if early and "2" in wire:
                        continue
                    body, _ = self.curl(wire, f"/{name}/echo", "--data-binary", "@-", stdin=sent)
                    self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(own).digest())
                    # Nobody knows how long it will be.
                    body, _ = self.curl(wire, f"/{name}/echo", "-T", "-", "-X", "POST", stdin=sent)
                    self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(own).digest())
        self.check_spoken()

    def test_trailers_and_events_pass_in_every_mix(self):
        for wire in WIRES:
            for client in CURL:
                with self.subTest(backend=wire, client=client):
                    body, head = self.curl(client, f"/node-{wire}/trailers", "-H", "te: trailers")
                    self.assertEqual(body, b"body\n")
                    self.assertIn("x-checksum: 1234", head.lower())
                    body, head = self.curl(client, f"/node-{wire}/events")
                    self.assertEqual(body, b"data: 3\n\ndata: 2\n\ndata: 1\n\ndata: [DONE]\n\n")

    def test_nghttp_sees_many_streams_in_every_mix(self):
        for name, _, _ in self.all():
            for scheme in ("http", "https"):
                with self.subTest(backend=name, client=scheme):
                    base = f"{self.base(scheme)}/{name}"
                    out = self.run_tool("nghttp", "-nv", "--no-verify-peer", "-m4", f"{base}/small", f"{base}/big")
                    self.assertEqual(len(re.findall(rb"recv \(stream_id=\d+\) :status: 200", out)), 8)

    def test_h2load_loses_no_request_in_any_mix(self):
        for name, _, _ in self.all():
            for scheme, more in (("http", ["--h1"]), ("http", []), ("https", ["--h1"]), ("https", [])):
                with self.subTest(backend=name, client=scheme, more=more):
                    out = self.run_tool("h2load", *more, "-n", "200", "-c", "3", "-m", "10",
                                        f"{self.base(scheme)}/{name}/small").decode()
                    self.assertIn("200 succeeded, 0 failed, 0 errored, 0 timeout", out)
                    self.assertIn("status codes: 200 2xx", out)
        self.check_spoken()

    def test_a_websocket_goes_to_backends_with_tls_whatever_else_they_speak(self):
        for wire in ("https1", "https2"):
            with self.subTest(wire), RawConnection(self.proxy.proxy_address) as client:
                client.send(b"GET /node-%s/chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\n"
                            b"upgrade: websocket\r\n\r\n" % wire.encode())
                self.assertTrue(client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 "))
                client.send(b"hello")
                self.assertEqual(client.read_until(b"hello"), b"hello")
                # The pool's other requests go on as before.
                self.assertEqual(self.curl("http1", f"/node-{wire}/small")[0], SMALL)

        def open_to(pool):
            shown = next(p for p in self.proxy.admin("/backends")["pools"] if p["name"] == pool)
            return shown["backends"][0]["connections"]
        wait_until(lambda: (open_to("node-https2")["http1"], open_to("node-https2")["http2"]) == (0, 1),
                   "the tunnel is closed, and the connection of the others is not")


if __name__ == "__main__":
    main()
