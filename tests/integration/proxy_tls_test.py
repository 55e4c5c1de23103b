"""TLS on both sides of a real proxy: curl, openssl and Python as clients, TLS backends
good and bad, certificates that change under load."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading

from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.stack import BINARIES, StackTest, chat, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, tls: %s}]
  admin: {address: {admin}}
  workers: 2
  timeouts: {tls_handshake: 2s}
  limits: {connections: 60}
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    load_reports: {push: false}
    %s
"""


class TlsTest(StackTest):
    def setUp(self):
        self.folder = os.path.realpath(self.enterContext(_folder()))
        self.authority = Authority(self.folder)
        self.chat = self.authority.issue("chat", "chat.example", "127.0.0.1")
        self.backend = self.closed(FakeBackend(lambda request: request.answer(body={"answer": "yes"})))

    def enterContext(self, context):  # Python 3.11 has its own.
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def closed(self, backend):
        self.addCleanup(backend.close)
        return backend

    def tls_stack(self, pairs=None, more="", pool="", backends=None):
        certificates = [{"cert_file": pair.cert, "key_file": pair.key} for pair in pairs or [self.chat]]
        tls = "{certificates: %s%s}" % (json.dumps(certificates), more)
        backends = [self.backend.address] if backends is None else backends
        return self.stack(engines=0, policy=POLICY % (tls, pool), backends=backends)

    def connect(self, stack, context=None, name="chat.example", session=None):
        context = context or self.authority.client_context()
        plain = socket.create_connection(_split(stack.proxy_address), patient(10))
        return context.wrap_socket(plain, server_hostname=name, session=session)

    def ask(self, sock, close=True):
        body = json.dumps(chat("hello")).encode()
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: chat.example\r\n%scontent-length: %d\r\n\r\n"
                     % (b"connection: close\r\n" if close else b"", len(body)) + body)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status, json.loads(answer.read())

    def handshakes(self, stack, result):
        return stack.metric("penstock_tls_handshakes_total", listener="public", result=result)

    def counted(self, stack, result, count=1):
        wait_until(lambda: self.handshakes(stack, result) >= count, f"{count} handshakes counted as {result}")


@contextlib.contextmanager
def _folder():
    path = os.path.join("/tmp", f"penstock-tls-{os.getpid()}-{threading.get_ident()}")
    os.makedirs(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def run(*argv, stdin=""):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=patient(60))
    return done.returncode, done.stdout + done.stderr


class ClientTest(TlsTest):
    def curl(self, stack, *more, name="chat.example"):
        port = stack.proxy_address.rsplit(":", 1)[1]
        return run("curl", "-sS", "--max-time", "20", "--resolve", f"{name}:{port}:127.0.0.1", "--cacert",
                   self.authority.cert, *more, "-H", "content-type: application/json", "-d",
                   json.dumps(chat("hello")), f"https://{name}:{port}/v1/chat/completions")

    def test_curl_with_every_version_and_name(self):
        tools = self.authority.issue("tools", "tools.example", "*.pool.example")
        stack = self.tls_stack([self.chat, tools])
        for version in ("--tlsv1.2", "--tlsv1.3"):
            most = version.replace("--tlsv", "")
            for name, shown in (("chat.example", "CN=chat"), ("tools.example", "CN=tools"),
                                ("a.pool.example", "CN=tools")):
                status, said = self.curl(stack, version, "--tls-max", most, "-v", name=name)
                self.assertEqual(status, 0, said)
                self.assertIn('{"answer": "yes"}', said)
                self.assertIn(f"subject: {shown}", said)
                self.assertIn(f"SSL connection using TLSv{most}", said)
        status, said = self.curl(stack, name="b.a.pool.example")   # The first certificate, and another name.
        self.assertEqual(status, 60, said)
        status, said = self.curl(stack, "--cacert", Authority(self.folder, "other").cert)
        self.assertEqual(status, 60, said)
        self.counted(stack, "alert")
        self.assertGreaterEqual(self.handshakes(stack, "full"), 6)

    def test_a_name_that_nobody_has_is_refused_where_one_is_required(self):
        stack = self.tls_stack(more=", require_sni: true")
        self.assertEqual(self.curl(stack)[0], 0)
        status, said = self.curl(stack, name="other.example")
        self.assertEqual(status, 35, said)
        self.counted(stack, "server_name")

    def test_clients_that_must_show_a_certificate(self):
        clients = Authority(self.folder, "clients")
        agent, foreign = clients.issue("agent"), self.authority.issue("foreign")
        expired = clients.issue("expired", days=-1)
        stack = self.tls_stack(more=f", client_certificates: required, client_ca_file: {clients.cert}")
        for pair, good in ((None, False), (agent, True), (foreign, False), (expired, False)):
            for most in ("1.2", "1.3"):
                shown = ("--cert", pair.cert, "--key", pair.key) if pair else ()
                status, said = self.curl(stack, "--tls-max", most, *shown)
                self.assertEqual(status == 0, good, said)
        self.counted(stack, "certificate", 6)

    def test_openssl_resumes_and_old_versions_are_refused(self):
        stack = self.tls_stack()
        saved = os.path.join(self.folder, "session.pem")
        client = ("openssl", "s_client", "-connect", stack.proxy_address, "-servername", "chat.example",
                  "-CAfile", self.authority.cert)
        question = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        for version in ("-tls1_2", "-tls1_3"):
            _, said = run(*client, version, "-ign_eof", "-sess_out", saved, stdin=question)
            self.assertIn("New, TLSv1", said)
            self.assertIn("Verify return code: 0 (ok)", said)
            _, said = run(*client, version, "-ign_eof", "-sess_in", saved, stdin=question)
            self.assertIn("Reused, TLSv1", said)
        self.counted(stack, "resumed", 2)
        # Under another name the session is worth nothing.
        other = tuple(word if word != "chat.example" else "other.example" for word in client)
        _, said = run(*other, "-tls1_3", "-ign_eof", "-sess_in", saved, stdin=question)
        self.assertIn("New, TLSv1", said)
        for old in (("-tls1", "-cipher", "DEFAULT@SECLEVEL=0"), ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")):
            _, said = run(*client, *old)
            self.assertIn("alert protocol version", said)
        self.counted(stack, "version", 2)
        for weak in ("NULL-SHA256:@SECLEVEL=0", "AES128-SHA:@SECLEVEL=0", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"):
            _, said = run(*client, "-tls1_2", "-cipher", weak)
            self.assertIn("handshake failure", said)
        self.counted(stack, "cipher", 3)
        _, said = run(*client, "-alpn", "spdy/3")
        self.assertIn("no application protocol", said)

    def test_python_keeps_its_connection_and_reads_streams(self):
        self.backend.script = lambda request: (request.stream("one ", "two") if request.json().get("stream")
                                               else request.answer(body={"answer": "yes"}))
        stack = self.tls_stack()
        host, port = _split(stack.proxy_address)
        connection = http.client.HTTPSConnection(host, port, timeout=patient(20),
                                                 context=self.authority.client_context())
        for stream in (False, True, False):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat("hello", stream=stream)),
                               {"content-type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            self.assertEqual(answer.status, 200, body)
            self.assertIn(b"[DONE]" if stream else b"yes", body)
        self.assertEqual(self.handshakes(stack, "full"), 1)
        connection.close()

    def test_large_bodies_arrive_as_they_were(self):
        text = "".join(chr(97 + i * 7 % 26) for i in range(1 << 20))
        self.backend.script = lambda request: request.answer(body=request.json())
        stack = self.tls_stack()
        with self.connect(stack) as sock:
            body = json.dumps(chat(text)).encode()
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
                         + body)
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            self.assertEqual(json.loads(answer.read()), json.loads(body))


class HostileClientTest(TlsTest):
    """Connections that are no clients: each is closed in time, and others do not notice."""

    def assert_others_are_served(self, stack):
        with self.connect(stack) as sock:
            self.assertEqual(self.ask(sock)[0], 200)
        self.assertTrue(stack.admin("/backends"))

    def hello(self, name="chat.example"):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.authority.client_context().wrap_bio(incoming, outgoing, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        return outgoing.read()

    def test_what_is_no_handshake_is_closed_and_counted(self):
        stack = self.tls_stack()
        hello = self.hello()
        cases = [
            ("nothing at all", b"", "timeout"),
            ("half a hello", hello[:100], "timeout"),
            ("one byte", hello[:1], "timeout"),
            ("plain HTTP", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "not_tls"),
            ("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
            ("an SSL 2 hello", bytes.fromhex("802e010002001500000010") + bytes(40), None),
            ("a hello of SSL 3", hello[:1] + b"\x03\x00" + hello[3:9] + b"\x03\x00" + hello[11:], None),
            ("a record that is too long", b"\x16\x03\x01\xff\xff" + bytes(70000), "protocol"),
            ("zeros", bytes(2000), None),
        ]
        for what, data, reason in cases:
            with self.subTest(what):
                before = self.handshakes(stack, reason) if reason else 0
                with socket.create_connection(_split(stack.proxy_address), patient(10)) as sock:
                    with contextlib.suppress(OSError):
                        sock.sendall(data)
                    with contextlib.suppress(OSError):
                        while sock.recv(4096):
                            pass
                if reason:
                    self.counted(stack, reason, before + 1)
        self.assert_others_are_served(stack)

    def test_odd_names_in_a_hello_get_the_first_certificate_or_an_alert(self):
        name = "a" * 60 + ".example"
        hello = self.hello(name)
        self.assertEqual(hello.count(name.encode()), 1)
        odd = {"none": None, "not in ASCII": b"\xff\xfe" * 34, "zeros": bytes(68), "line ends": b"a\r\nb" * 17,
               "dots alone": b"." * 68, "wildcards": b"*." * 34, "upper case": b"CHAT.EXAMPLE" + b"X" * 56}
        for require in (False, True):
            stack = self.tls_stack(more=f", require_sni: {str(require).lower()}")
            for what, other in odd.items():
                with self.subTest(what, require=require):
                    said = self.hello(None) if other is None else hello.replace(name.encode(), other)
                    with socket.create_connection(_split(stack.proxy_address), patient(10)) as sock:
                        sock.sendall(said)
                        # An alert, or a handshake. OpenSSL refuses a name with a zero in it.
                        self.assertEqual(sock.recv(1)[0], 21 if require or what == "zeros" else 22)
            if not require:
                self.assert_others_are_served(stack)
            stack.stop()

    def test_what_was_agreed_on_is_what_is_spoken(self):
        stack = self.tls_stack()
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        request = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        cases = [   # Offered, what is chosen, what is said, how the answer begins.
            (None, None, request, b"HTTP/1.1 200"),
            (["http/1.1"], "http/1.1", request, b"HTTP/1.1 200"),
            (["h2", "http/1.1"], "h2", preface, b"\0\0"),           # SETTINGS.
            (["http/1.1", "h2"], "h2", preface, b"\0\0"),           # The order is ours.
            (["http/1.1"], "http/1.1", preface, b"HTTP/1.1 505"),
            (None, None, preface, b"HTTP/1.1 505"),
            (["h2"], "h2", request, b"\0\0"),
        ]
        for offered, chosen, said, begins in cases:
            with self.subTest(offered=offered, said=said[:3]):
                context = self.authority.client_context()
                if offered:
                    context.set_alpn_protocols(offered)
                with self.connect(stack, context) as sock:
                    self.assertEqual(sock.selected_alpn_protocol(), chosen)
                    sock.sendall(said)
                    heard = sock.recv(16384)
                    self.assertTrue(heard.startswith(begins), heard)
                    if chosen == "h2" and said is request:   # GOAWAY, and the end.
                        with contextlib.suppress(OSError):
                            while more := sock.recv(16384):
                                heard += more
                        self.assertIn(b"\x07\0\0\0\0\0", heard)
        self.assert_others_are_served(stack)

    def test_a_hello_in_single_bytes_is_one(self):
        stack = self.tls_stack()
        plain = socket.create_connection(_split(stack.proxy_address), patient(10))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.authority.client_context().wrap_bio(incoming, outgoing, server_hostname="chat.example")
        with plain:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                    break
                for byte in outgoing.read():
                    plain.sendall(bytes([byte]))
                incoming.write(plain.recv(65536))
        self.assertEqual(client.version(), "TLSv1.3")

    def test_silent_connections_do_not_keep_others_out_for_long(self):
        stack = self.tls_stack()
        silent = [socket.create_connection(_split(stack.proxy_address)) for _ in range(80)]
        wait_until(lambda: stack.metric("penstock_client_connections_refused_total") >= 20,
                   "connections above the limit are refused")
        self.assertLessEqual(stack.metric("penstock_client_connections"), 60)
        self.assertTrue(stack.admin("/backends"))
        self.counted(stack, "timeout", 60)
        self.assert_others_are_served(stack)
        for sock in silent:
            sock.close()
        wait_until(lambda: stack.metric("penstock_client_connections") == 0, "all are gone")

    def test_a_body_that_is_cut_off_is_never_sent_on(self):
        stack = self.tls_stack()
        sock = self.connect(stack)
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n{\"model\": ")
        socket.close(sock.detach())   # The descriptor is gone without close_notify ...
        with self.connect(stack) as other:
            other.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n{\"model\": ")
            other.shutdown(socket.SHUT_WR)   # ... or only our direction is.
            with contextlib.suppress(OSError):
                while other.recv(4096):
                    pass
        self.assert_others_are_served(stack)
        self.assertEqual(len(self.backend.requests), 1)

    def test_resets_are_nobodys_business(self):
        stack = self.tls_stack()
        for data in (b"", self.hello(), self.hello()[:50]):
            for _ in range(20):
                sock = socket.create_connection(_split(stack.proxy_address))
                sock.sendall(data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
        wait_until(lambda: stack.metric("penstock_client_connections") == 0, "all are gone")
        self.assert_others_are_served(stack)
        with open(stack.proxy.log, encoding="utf-8") as log:
            self.assertLess(sum("no TLS handshake" in line for line in log), 20)


class BackendTest(TlsTest):
    TLS = "tls: {enabled: true, ca_file: %s, server_name: engines.example}"

    def backend_with(self, pair, **more):
        context = pair.server_context(more.pop("client_ca", None)) if pair else None
        return self.closed(FakeBackend(lambda request: request.answer(body={"answer": "yes"}), tls=context, **more))

    def stack_for(self, backend, pool=None, checks="health_check: {enabled: false}"):
        pool = (pool or self.TLS % self.authority.cert) + "\n    " + checks
        return self.tls_stack(pool=pool, backends=[backend.address])

    def ask_through(self, stack):
        with self.connect(stack) as sock:
            return self.ask(sock)

    def test_a_backend_that_proves_its_name_is_used_checked_and_resumed(self):
        backend = self.backend_with(self.authority.issue("engine", "engines.example"))
        stack = self.stack_for(backend, checks="health_check: {interval: 100ms, timeout: 100ms}")
        self.assertEqual(self.ask_through(stack), (200, {"answer": "yes"}))
        wait_until(lambda: stack.metric("penstock_backend_health") == 1, "its check passes")
        wait_until(lambda: backend._tls.session_stats()["hits"] > 0, "later connections resume a session")

    def test_backends_that_prove_nothing_get_nothing(self):
        other = Authority(self.folder, "other")
        fake = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfake"
        cases = [
            ("expired", self.authority.issue("expired", "engines.example", days=-1), {}, "has expired"),
            ("another name", self.authority.issue("another", "else.example"), {}, "mismatch"),
            ("another authority", other.issue("foreign", "engines.example"), {}, "issuer"),
            ("plain HTTP", None, {"before_tls": fake}, "speak TLS"),
            ("injected before the handshake", self.authority.issue("engine", "engines.example"),
             {"before_tls": fake}, "speak TLS"),
        ]
        for what, pair, more, why in cases:
            with self.subTest(what):
                backend = self.backend_with(pair, **more)
                stack = self.stack_for(backend)
                status, body = self.ask_through(stack)
                self.assertEqual((status, body["error"]["code"]), (502, "backend_tls_error"))
                self.assertIn(why, body["error"]["message"])
                self.assertEqual(backend.requests, [])
                self.assertGreaterEqual(
                    stack.metric("penstock_backend_connect_failures_total", reason="tls"), 1)
                stack.stop()

    def test_a_silent_backend_is_late_not_hung(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        stack = self.tls_stack(pool=self.TLS % self.authority.cert + "\n    timeouts: {connect: 300ms}\n"
                               "    health_check: {enabled: false}",
                               backends=["127.0.0.1:%d" % listener.getsockname()[1]])
        status, body = self.ask_through(stack)
        self.assertEqual((status, body["error"]["code"]), (504, "backend_connect_timeout"))

    def test_we_show_our_certificate_to_backends_that_ask(self):
        clients = Authority(self.folder, "clients")
        own = clients.issue("proxy")
        backend = self.backend_with(self.authority.issue("engine", "engines.example"), client_ca=clients.cert)
        shown = f"tls: {{enabled: true, ca_file: {self.authority.cert}, server_name: engines.example, " \
                f"cert_file: {own.cert}, key_file: {own.key}}}"
        stack = self.stack_for(backend, shown)
        self.assertEqual(self.ask_through(stack)[0], 200)
        self.assertGreater(stack.metric("penstock_certificate_expiry_timestamp_seconds", pool="lexicon"), 0)


class ReloadTest(TlsTest):
    def serial(self, stack):
        with self.connect(stack) as sock:
            return sock.getpeercert()["serialNumber"]

    def replace(self, pair, cert, key):
        for source, target in ((cert, pair.cert), (key, pair.key)):
            shutil.copy(source, target + ".new")
            os.replace(target + ".new", target)

    def test_a_new_certificate_under_load_loses_nothing(self):
        stack = self.tls_stack()
        before = self.serial(stack)
        failures, asked, stop = [], [0], threading.Event()

        def load():
            while not stop.is_set():
                try:
                    with self.connect(stack) as sock:
                        for last in (False, False, True):
                            status, _ = self.ask(sock, close=last)
                            asked[0] += 1
                            if status != 200:
                                failures.append(status)
                except OSError as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        fresh = self.authority.issue("fresh", "chat.example", "127.0.0.1", days=60)
        self.replace(self.chat, fresh.cert, fresh.key)
        wait_until(lambda: self.serial(stack) != before, "new connections get the new certificate")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(asked[0], 20)
        # Between the two renames the pair did not fit, which may have been seen and refused.
        self.assertEqual(stack.metric("penstock_tls_reloads_total", result="accepted"), 1)
        self.assertEqual(stack.metric("penstock_tls_last_reload_successful"), 1)

    def test_files_that_do_not_fit_are_refused_and_the_old_ones_stay(self):
        stack = self.tls_stack()
        before = self.serial(stack)
        good = os.path.join(self.folder, "good")
        shutil.copy(self.chat.cert, good)
        other = self.authority.issue("unrelated")
        garbage = os.path.join(self.folder, "garbage")
        with open(garbage, "wb") as file:
            file.write(bytes(range(256)) * 40)
        for count, wrong in enumerate((garbage, other.cert, os.devnull, None), 1):
            if wrong is None:
                os.remove(self.chat.cert)
            else:
                shutil.copy(wrong, self.chat.cert + ".new")
                os.replace(self.chat.cert + ".new", self.chat.cert)
            wait_until(lambda: stack.metric("penstock_tls_reloads_total", result="rejected") >= count,
                       f"{wrong} is refused")
            self.assertEqual(self.serial(stack), before)
            self.assertEqual(stack.metric("penstock_tls_last_reload_successful"), 0)
        shutil.copy(good, self.chat.cert)
        wait_until(lambda: stack.metric("penstock_tls_last_reload_successful") == 1, "all is well again")
        with open(stack.proxy.log, encoding="utf-8") as log:
            said = log.read()
        self.assertIn("the last good ones stay", said)
        self.assertIn("is not the key of CN=unrelated", said)

    def test_a_symbolic_link_that_is_swapped_is_a_new_certificate(self):
        for name in ("one", "two"):
            os.makedirs(os.path.join(self.folder, name))
            pair = self.authority.issue("chat", "chat.example")
            shutil.copy(pair.cert, os.path.join(self.folder, name, "tls.crt"))
            shutil.copy(pair.key, os.path.join(self.folder, name, "tls.key"))
        link = os.path.join(self.folder, "current")
        os.symlink("one", link)
        self.chat.cert, self.chat.key = (os.path.join(link, f"tls.{end}") for end in ("crt", "key"))
        stack = self.tls_stack()
        before = self.serial(stack)
        os.symlink("two", link + ".new")
        os.replace(link + ".new", link)
        wait_until(lambda: self.serial(stack) != before, "the other folder's certificate is used")
        self.assertEqual(stack.metric("penstock_tls_reloads_total", result="rejected"), 0)

    def test_a_policy_file_may_turn_tls_on_and_change_it(self):
        stack = self.tls_stack()
        with self.connect(stack) as sock:
            self.assertEqual(self.ask(sock)[0], 200)
        plain = (POLICY % ("X", "")).replace(", tls: X", "")
        stack.write_policy(plain)
        wait_until(lambda: stack.metric("penstock_config_reloads_total", result="accepted") >= 1, "it is taken")
        wait_until(lambda: _plain_works(stack), "the listener speaks plain HTTP")


def _plain_works(stack):
    try:
        return stack.request("GET", "/v1/models").status == 200
    except (OSError, http.client.HTTPException):
        return False


class CheckTest(TlsTest):
    def check(self, cert, key, more=""):
        path = os.path.join(self.folder, "policy.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("version: v1\nserver:\n  listeners:\n    - address: 127.0.0.1:8443\n      tls:\n"
                       f"        certificates: [{{cert_file: {cert}, key_file: {key}}}]\n"
                       f"pools: [{{name: a, backends: [\"127.0.0.1:1\"]{more}}}]\n")
        return run(os.path.join(BINARIES, "penstock"), "check", path)

    def test_says_which_file_is_wrong_why_and_what_to_do(self):
        other = self.authority.issue("other")
        at = "server.listeners[0].tls.certificates[0]."
        for cert, key, status, says in (
                ("chat.crt", "chat.key", 0, "OK"),
                ("missing.crt", "chat.key", 1, at + "cert_file: cannot read"),
                ("chat.crt", os.path.basename(other.key), 1, at + "key_file: other.key: is not the key of CN=chat"),
                ("chat.key", "chat.key", 1, at + "cert_file: chat.key: holds no certificate in PEM form"),
                ("chat.crt", "chat.crt", 1, at + "key_file: chat.crt: holds no private key in PEM form")):
            code, said = self.check(cert, key)
            self.assertEqual(code, status, said)
            self.assertIn(says, said)

    def test_warns_of_what_expires(self):
        for days, says in ((5, "expires on"), (-1, "expired on")):
            self.authority.issue("old", days=days)
            code, said = self.check("old.crt", "old.key")
            self.assertEqual(code, 0, said)
            self.assertIn("warning: server.listeners[0].tls.certificates[0].cert_file: old.crt: CN=old " + says, said)
        code, said = self.check("chat.crt", "chat.key", ", tls: {enabled: true, insecure_skip_verify: true}")
        self.assertEqual(code, 0, said)
        self.assertIn("warning: pools[0].tls.insecure_skip_verify", said)


if __name__ == "__main__":
    main()
