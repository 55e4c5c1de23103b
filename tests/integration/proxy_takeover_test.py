"""A proxy that is replaced by a new process while it serves: not one request fails,
every stream is whole, and a new process that is no good changes nothing."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

from tests.support.fake_backend import FakeBackend
from tests.support.lasting import LastingClients, lasting_answer
from tests.support.load import Load
from tests.support.stack import BINARIES, StackError, StackTest, main, patient, request, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}%s]
  admin: {address: {admin}}
  workers: %d
  timeouts: {drain: 20s, drain_streams: 20s}
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {interval: 1s}
    load_reports: {push: false}
    load_balancing: {algorithm: round_robin}
"""


def policy(workers=2, more=""):
    return POLICY % (more, workers)


class TakeoverTest(StackTest):
    def start(self, script=lasting_answer):
        self.start_backends(script)
        self.path = os.path.join(self.proxy.folder, "takeover")
        self.next()
        return self.proxy

    def next(self, wait=True):
        """Starts a process on the same socket as those before; tells it and waits until it serves."""
        self.addCleanup(lambda process: process.ended() is None and process.kill(),
                        process := self.proxy.start_proxy(wait=False, more=("--takeover", self.path)))
        if wait:
            self.wait_live(process)
        return process

    def wait_live(self, process):
        wait_until(lambda: process.require_alive() or " ready: " in self.log(process), "it serves")

    def busy_port(self):
        """A port of 127.0.0.1 on which somebody else listens until the test ends."""
        holder = socket.socket()
        self.addCleanup(holder.close)
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        return holder.getsockname()[1]

    def log(self, process):
        with open(process.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def test_five_restarts_under_load_fail_no_request_and_every_stream_is_whole(self):
        self.start()
        clients = LastingClients(self.proxy.proxy_address, kept=4, streaming=6)
        with Load(self.proxy.proxy_address, clients=4, streamed=False) as load:
            wait_until(lambda: len(load.done()) > 20 and clients.streams > 0, "load is under way")
            old = [self.proxy.proxy]
            for turn in range(5):
                old.append(self.next())
                # Another number of workers each time: no socket, and nobody who waits in one, is forgotten.
                self.proxy.write_policy(policy(workers=1 + turn % 3))
                time.sleep(0.7)
            served = len(load.done())
            wait_until(lambda: len(load.done()) > served + 50, "the last one serves")
            for process in old[:-1]:
                self.assertEqual(process.wait(patient(30)), 0, self.log(process))
            clients.stop()
        outcomes = load.stop()
        self.assertEqual(clients.errors, [])
        self.assertEqual([outcome.error for outcome in outcomes if outcome.error], [])
        self.assertGreater(clients.streams, 6)
        self.assertGreater(clients.kept, 100)
        self.assertGreaterEqual(clients.connections, 4 + 4)  # They were asked to connect anew.
        self.assertIsNone(self.proxy.proxy.ended())
        self.assertEqual(request(self.proxy.admin_address, "GET", "/readyz").status, 200)

    def test_what_operators_said_of_backends_is_said_to_the_next_process(self):
        self.start()
        old = self.proxy.proxy
        held, left = (backend.address for backend in self.backends)
        for word in (f"{held}/drain", f"{held}/breaker/open", f"{left}/breaker/close"):
            self.proxy.admin(f"/backends/lexicon/{word}", method="POST")
        process = self.next()
        self.assertEqual(old.wait(patient(30)), 0, self.log(old))
        shown = {b["name"]: b for b in self.proxy.admin("/backends")["pools"][0]["backends"]}
        self.assertEqual({name: (b["drained"], b["breaker"]["override"]) for name, b in shown.items()},
                         {held: (True, "open"), left: (False, "close")})
        self.assertIn(f"takeover: backend lexicon/{held}: drain, as an operator told", self.log(process))
        served = {self.proxy.chat("hello?").header("x-penstock-backend") for _ in range(8)}
        self.assertEqual(len(served), 1, served)
        self.assertIn(left, served.pop())

    def test_a_new_process_that_is_no_good_changes_nothing(self):
        self.start()
        old = self.proxy.proxy
        busy = self.busy_port()
        cases = {"no policy file": "", "an error": policy() + "unknown: 1\n",
                 "a busy port": policy(more=f", {{name: second, address: 127.0.0.1:{busy}}}")}
        with Load(self.proxy.proxy_address, clients=2, streamed=False) as load:
            for name, text in cases.items():
                with self.subTest(name):
                    with open(self.proxy.policy_file, encoding="utf-8") as file:
                        good = file.read()
                    self.proxy.write_policy(text)
                    process = self.next(wait=False)
                    wait_until(lambda: process.ended() is not None, "it gives up")
                    self.assertNotEqual(process.ended(), 0)
                    self.proxy._started.remove(process)
                    self.proxy.write_policy(good)
                    served = len(load.done())
                    wait_until(lambda: len(load.done()) > served + 10, "the old one serves")
            # One that dies between asking and being ready.
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                asking.connect(self.path)
                asking.send(b"take 1")
                asking.settimeout(patient(5))
                self.assertIn(b"listen " + self.proxy.proxy_address.encode(), asking.recv(1024))
            wait_until(lambda: "broke off before it was ready" in self.log(old), "it is told")
            # And one that talks nonsense, or says ready without having asked.
            for words in (b"hello", b"ready 1", b"\0" * 1000):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                    asking.connect(self.path)
                    asking.send(words)
                    asking.settimeout(patient(5))
                    self.assertEqual(asking.recv(1024), b"")
            self.proxy.proxy = old
            self.assertIsNone(old.ended())
            third = self.next()
            self.assertEqual(old.wait(patient(20)), 0)
            served = len(load.done())
            wait_until(lambda: len(load.done()) > served + 10, "a good one serves")
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])
        self.assertIsNone(third.ended())

    def test_an_old_process_that_is_killed_takes_only_its_own_streams_along(self):
        def answer(request):
            if b'"stream": true' not in request.body:
                return request.answer(200, {"choices": []})
            request.begin_events()
            request.token("one")
            request.hang()
        self.start(answer)
        old = self.proxy.proxy
        stream = self.proxy.stream("hello?")
        self.addCleanup(stream.close)
        tokens = stream.tokens()
        self.assertEqual(next(tokens), "one")
        with Load(self.proxy.proxy_address, clients=4, streamed=False) as load:
            wait_until(lambda: len(load.done()) > 10, "load is under way")
            self.next()
            wait_until(lambda: "draining" in self.log(old), "the old one drains")
            # What it had begun is answered within a moment; then only the stream is its own.
            served = len(load.done())
            wait_until(lambda: len(load.done()) > served + 50, "the new one serves")
            old.kill()
            served = len(load.done())
            wait_until(lambda: len(load.done()) > served + 20, "the new one serves")
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])
        with self.assertRaises((StackError, OSError)):
            list(tokens)

    def test_a_signal_starts_the_next_one_by_itself_and_systemd_is_told(self):
        self.start_notified()
        old = self.proxy.proxy
        self.assertEqual(self.heard(), "READY=1")
        old.send(signal.SIGHUP)
        self.assertRegex(self.heard(), r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.assertEqual(self.heard(), "READY=1")
        clients = LastingClients(self.proxy.proxy_address, kept=2, streaming=2)
        wait_until(lambda: clients.kept > 10, "load is under way")
        old.send(signal.SIGUSR2)
        wait_until(lambda: "was started" in self.log(old), "it is started")
        heir = int(re.search(r"process (\d+) was started", self.log(old))[1])
        self.addCleanup(self.end, heir)
        self.assertEqual({self.heard(), self.heard()}, {"READY=1", f"MAINPID={heir}"})
        self.assertEqual(old.wait(patient(30)), 0)
        served = clients.kept
        wait_until(lambda: clients.kept > served + 20, "the new one serves")
        clients.stop()
        self.assertEqual(clients.errors, [])
        os.kill(heir, signal.SIGTERM)
        self.assertEqual(self.heard(), "STOPPING=1")
        wait_until(lambda: not os.path.exists(f"/proc/{heir}"), "it ends")

    def start_notified(self):
        self.start_backends()
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notified.close)
        self.notified.bind(os.path.join(self.proxy.folder, "notify"))
        self.notified.settimeout(patient(20))
        self.proxy.start_proxy(env={"NOTIFY_SOCKET": os.path.join(self.proxy.folder, "notify")})

    def start_backends(self, script=lasting_answer):
        self.backends = [FakeBackend(script) for _ in range(2)]
        for backend in self.backends:
            self.addCleanup(backend.close)
        self.proxy = self.stack(engines=0, policy=policy(), backends=[b.address for b in self.backends], start=False)

    def heard(self):
        return self.notified.recv(1024).decode()

    def end(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def test_a_socket_that_systemd_opened_is_served_and_taken_over(self):
        self.start_backends()
        host, port = self.proxy.proxy_address.rsplit(":", 1)
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(16)
        # Whoever connects before anybody serves waits.
        early = self.proxy.raw()
        self.addCleanup(early.close)
        early.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        self.pass_on(listening)
        self.assertEqual(early.read_answer().status, 200)
        self.assertEqual(self.proxy.chat("hello?").status, 200)

    def pass_on(self, listening):
        """Starts the proxy as systemd would, through a shell that gives it descriptor 3."""
        script = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" serve -c "$1" 3<&%d' % listening.fileno()
        process = subprocess.Popen(["sh", "-c", script, os.path.join(BINARIES, "penstock"), self.proxy.policy_file],
                                   pass_fds=[listening.fileno()])

        def stop():
            process.terminate()
            self.assertEqual(process.wait(patient(20)), 0)
        self.addCleanup(stop)

        def ready():
            try:
                return request(self.proxy.admin_address, "GET", "/readyz").status == 200
            except StackError:
                return False
        wait_until(ready, "it serves")


if __name__ == "__main__":
    main()
