"""TLS while a new process takes over: streams end in the old one, connections go to the
new one, and the tickets that the old one gave out are good there."""

import http.client
import json
import os
import re
import socket
import ssl
import tempfile
import threading

from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.lasting import lasting_answer
from tests.support.stack import StackTest, chat, main, patient, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, tls: {certificates: [{cert_file: "%s", key_file: "%s"}]}}]
  admin: {address: {admin}}
  workers: 2
  timeouts: {drain: 20s, drain_streams: 20s}
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {interval: 1s}
    load_reports: {push: false}
observability: {access_log: "%s"}
"""
WHOLE = "".join(f"{number} " for number in range(50))


class TlsTakeoverTest(StackTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.authority = Authority(folder.name)
        pair = self.authority.issue("chat", "chat.example")
        backend = FakeBackend(lasting_answer)
        self.addCleanup(backend.close)
        self.access_log = os.path.join(folder.name, "access.log")
        self.proxy = self.stack(engines=0, policy=POLICY % (pair.cert, pair.key, self.access_log),
                                backends=[backend.address], start=False)
        self.path = os.path.join(self.proxy.folder, "takeover")
        self.next()

    def next(self):
        """Starts the next process and waits until it serves; returns the one before."""
        before = self.proxy.proxy
        process = self.proxy.start_proxy(wait=False, more=("--takeover", self.path))
        wait_until(lambda: process.require_alive() or " ready: " in self.log(process), "it serves")
        return before

    def log(self, process):
        with open(process.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def context(self, version=None):
        context = self.authority.client_context()
        if version:
            context.maximum_version = version
        return context

    def connect(self, context, session=None):
        host, port = self.proxy.proxy_address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), patient(20))
        return context.wrap_socket(plain, server_hostname="chat.example", session=session)

    def ask(self, sock, close=True, **more):
        body = json.dumps(chat("hello", **more)).encode()
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: chat.example\r\n%scontent-length: %d\r\n\r\n"
                     % (b"connection: close\r\n" if close else b"", len(body)) + body)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer

    def handshakes(self, result):
        return self.proxy.metric("penstock_tls_handshakes_total", result=result)

    def test_streams_end_in_the_old_process_and_connections_go_to_the_new_one(self):
        streams = [self.connect(self.context()) for _ in range(4)]
        answers = [self.ask(sock, stream=True) for sock in streams]
        firsts = [answer.readline() for answer in answers]      # They are under way.
        idle = self.connect(self.context())
        self.assertEqual(self.ask(idle, close=False).read(), b'{"choices": []}')
        old = self.next()
        wait_until(lambda: " draining: " in self.log(old), "the old one takes no more")
        self.assertIsNone(old.ended())
        with self.connect(self.context()) as sock:
            self.assertEqual(self.ask(sock).status, 200)
        self.assertEqual(self.handshakes("full"), 1)             # The new one's own count.
        for first, answer, sock in zip(firsts, answers, streams):
            said = (first + answer.read()).decode()
            told = "".join(json.loads(data)["choices"][0]["delta"].get("content", "")
                           for data in re.findall(r"data: (\{.*)", said))
            self.assertEqual(told, WHOLE)
            self.assertTrue(said.endswith("data: [DONE]\n\n"))
            sock.close()
        idle.close()
        self.assertEqual(old.wait(patient(20)), 0)

    def test_no_connection_fails_while_processes_follow_each_other(self):
        failures, served, stop = [], [0], threading.Event()
        context = self.context()

        def load():
            session = None
            while not stop.is_set():
                try:
                    with self.connect(context, session) as sock:
                        answer = self.ask(sock)
                        if answer.status != 200 or answer.read() != b'{"choices": []}':
                            failures.append(answer.status)
                        session = sock.session
                        served[0] += 1
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        old = []
        for _ in range(3):
            before = served[0]
            wait_until(lambda: served[0] > before + 20, "load is under way")
            old.append(self.next())
        before = served[0]
        wait_until(lambda: served[0] > before + 20, "the last one serves")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        for process in old:
            self.assertEqual(process.wait(patient(30)), 0)
        self.assertGreater(self.handshakes("resumed"), 20)

    def test_tickets_of_the_old_process_are_good_in_the_next_ones_for_a_while(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version.name):
                context = self.context(version)
                with self.connect(context) as sock:
                    self.assertFalse(sock.session_reused)
                    self.ask(sock).read()
                    session = sock.session
                # A key of its own each time, and two of those before it.
                for reused in (True, True, False):
                    self.next().wait(patient(20))     # So that the new one takes what comes.
                    with self.connect(context, session) as sock:
                        self.assertEqual(sock.session_reused, reused)
                        self.assertEqual(self.ask(sock).status, 200)
                    self.assertEqual(self.handshakes("resumed"), int(reused))

    def test_keys_are_told_on_request_alone_and_written_nowhere(self):
        def told(words):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                asking.connect(self.path)
                asking.send(words)
                asking.settimeout(patient(5))
                heard = []
                while not heard or heard[-1] not in (b"end", b""):
                    heard.append(asking.recv(1024))
                return heard
        self.assertEqual([text for text in told(b"take 1") if text.startswith(b"keys ")], [])
        wait_until(lambda: "broke off" in self.log(self.proxy.proxy), "it is told")
        keys = [text for text in told(b"take 1 keys") if text.startswith(b"keys ")]
        self.assertEqual([len(text) for text in keys], [5 + 80])
        secret = keys[0][5 + 16:]            # The name in front is in each ticket.
        self.next()
        with self.connect(self.context()) as sock:
            self.assertEqual(self.ask(sock).status, 200)
        for folder in (self.folder, self.proxy.folder):
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    text = file.read()
                for size in (8, 16):
                    self.assertNotIn(secret[:size], text, name)
                    self.assertNotIn(secret[:size].hex().encode(), text.lower(), name)


if __name__ == "__main__":
    main()
