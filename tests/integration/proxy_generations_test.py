"""Many policy files, one after the other, in front of clients that last: what is
taken, what is refused as a whole, and what becomes of the old ones."""

import contextlib
import os
import signal
import socket
import time

from tests.support.fake_backend import FakeBackend
from tests.support.lasting import LastingClients, lasting_answer
from tests.support.load import Load
from tests.support.stack import (RawConnection, StackError, StackTest, free_ports, main, patient, request,
                                 wait_until)

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}%s]
  admin: {address: %s}
  workers: 2
%spools:
  - name: lexicon
    models: [%s]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    load_balancing: {algorithm: %s}
"""
ASK = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"


def policy(listeners="", admin="{admin}", server="", model="lexicon-5m", algorithm="round_robin"):
    return POLICY % (listeners, admin, server, model, algorithm)


def listener(port, more=""):
    return f", {{name: port-{port}, address: 127.0.0.1:{port}{more}}}"


class GenerationsTest(StackTest):
    def start(self, text=None, script=lasting_answer, backends=3, start=True):
        self.backends = [FakeBackend(script) for _ in range(backends)]
        for backend in self.backends:
            self.addCleanup(backend.close)
        self.proxy = self.stack(engines=0, policy=text or policy(), backends=[b.address for b in self.backends],
                                start=start)
        return self.proxy

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            return log.read()

    def generation(self):
        return self.proxy.metric("penstock_config_generation")

    def take(self, text):
        """Writes a policy file and waits until it is in force."""
        before = self.generation()
        self.proxy.write_policy(text)
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: self.generation() > before, "it is taken")

    def refuse(self, text):
        before = self.proxy.metric("penstock_config_reloads_total", result="rejected")
        self.proxy.write_policy(text)
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: self.proxy.metric("penstock_config_reloads_total", result="rejected") > before, "refused")

    def status(self, port):
        try:
            return request(f"127.0.0.1:{port}", "GET", "/v1/models").status
        except StackError:
            return 0

    def refuses(self, address):
        try:
            with RawConnection(address):
                return False
        except ConnectionRefusedError:
            return True


class ManyFilesTest(GenerationsTest):
    def test_a_hundred_files_good_and_bad_under_load_lose_nothing_and_leave_nothing(self):
        self.start()
        every = list(self.proxy.backends)
        clients = LastingClients(self.proxy.proxy_address, kept=3, streaming=3)
        with Load(self.proxy.proxy_address, clients=2, streamed=False) as load:
            wait_until(lambda: clients.streams > 0 and len(load.done()) > 10, "load is under way")
            resident = 0
            for turn in range(50):
                self.proxy.backends = every if turn % 3 == 0 else every[:1 + turn % 2]
                self.take(policy(algorithm=("least_request", "weighted_score", "random")[turn % 3]))
                self.refuse(policy() + "unknown: 1\n")
                if turn == 20:
                    resident = self.proxy.metric("process_resident_memory_bytes")
            grown = self.proxy.metric("process_resident_memory_bytes") - resident
            clients.stop()
        self.assertEqual(clients.errors, [])
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])
        self.assertGreater(clients.kept, 50)
        self.assertEqual(self.generation(), 51)
        if patient(1) == 1:
            self.assertLess(grown, 8 << 20)
        wait_until(lambda: self.proxy.metric("penstock_config_generations_alive") == 1, "the old ones are gone")

    def test_an_old_file_lives_as_long_as_a_stream_that_began_under_it(self):
        self.start()
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            tokens = stream.tokens()
            next(tokens)
            for model in ("second", "third"):
                self.take(policy(model=model))
            self.assertEqual(self.proxy.metric("penstock_config_generations_alive"), 2)
            self.assertEqual(len(list(tokens)), 49)
        wait_until(lambda: self.proxy.metric("penstock_config_generations_alive") == 1, "it is gone")

    def test_a_storm_of_signals_is_some_reloads_and_ends_with_the_last_file(self):
        self.start(script=lambda request: request.answer(200, {"choices": []}))
        with Load(self.proxy.proxy_address, clients=2, streamed=False) as load:
            wait_until(lambda: len(load.done()) > 10, "load is under way")
            begun = time.monotonic()
            for turn in range(200):
                self.proxy.write_policy(policy(model=f"model-{turn}, lexicon-5m") if turn % 2 else "version: v1\n")
                self.proxy.proxy.send(signal.SIGHUP)
                time.sleep(0.01)
            seconds = time.monotonic() - begun
            wait_until(lambda: "model-199" in self.proxy.request("GET", "/v1/models").body.decode(), "the last one")
        reloads = sum(self.proxy.metric("penstock_config_reloads_total", result=r) for r in ("accepted", "rejected"))
        self.assertLessEqual(reloads, 10 * seconds + 5)  # Of 200 asked for.
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])

    def test_a_file_that_is_written_in_pieces_is_read_when_it_is_whole(self):
        self.start()
        text = policy(model="second").replace("{listen}", self.proxy.proxy_address).replace(
            "{admin}", self.proxy.admin_address).replace("{backends}", str([b.address for b in self.backends]))
        # Each piece but the last is a file that could be taken for a whole one, or for a bad one.
        pieces = text.splitlines(keepends=True)
        with open(self.proxy.policy_file, "w", encoding="utf-8") as file:
            for piece in pieces:
                file.write(piece)
                file.flush()
                time.sleep(0.1)
        wait_until(lambda: self.generation() == 2, "it is taken")
        self.assertEqual(self.proxy.metric("penstock_config_reloads_total", result="rejected"), 0)
        self.assertEqual([model["id"] for model in self.proxy.request("GET", "/v1/models").json()["data"]],
                         ["second"])

    def test_an_earlier_file_can_come_back(self):
        self.start()
        first = request(self.proxy.admin_address, "GET", "/config").header("x-penstock-policy-hash")
        self.take(policy(model="second"))
        self.take(policy())
        answer = request(self.proxy.admin_address, "GET", "/config")
        self.assertEqual(answer.header("x-penstock-policy-hash"), first)
        self.assertEqual(answer.header("x-penstock-policy-generation"), "3")

    def test_what_takes_a_new_process_is_told(self):
        self.start()
        self.take(policy().replace("workers: 2", "workers: 3") + "observability: {decisions: 64}\n")
        for field in ("server.workers", "observability.decisions"):
            self.assertIn(f"policy reload: {field} changes with a restart only", self.log())


class ListenerTest(GenerationsTest):
    def test_a_listener_comes_changes_and_goes_without_a_restart(self):
        self.start()
        port, = free_ports(1)
        self.take(policy(listeners=listener(port)))
        self.assertEqual(self.status(port), 200)
        with RawConnection(f"127.0.0.1:{port}") as kept, RawConnection(f"127.0.0.1:{port}") as idle:
            for connection in (kept, idle):
                connection.send(ASK)
                self.assertEqual(connection.read_answer().status, 200)
            self.take(policy(listeners=listener(port, ", debug_headers: true")))
            kept.send(ASK)
            self.assertEqual(kept.read_answer().header("connection"), "")
            body = b'{"model": "lexicon-5m"}'
            kept.send(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            self.assertNotEqual(kept.read_answer().header("x-penstock-backend"), "")
            self.take(policy())
            # Whoever is connected gets one more answer, and is asked to leave.
            kept.send(ASK)
            self.assertEqual(kept.read_answer().header("connection"), "close")
            self.assertEqual(idle.read_to_end(), b"")
        wait_until(lambda: self.refuses(f"127.0.0.1:{port}"), "nobody listens there")
        self.assertIn(f"listener port-{port} on 127.0.0.1:{port} is closed", self.log())
        # And it comes back.
        self.take(policy(listeners=listener(port)))
        self.assertEqual(self.status(port), 200)

    def test_a_stream_outlives_its_listener(self):
        self.start()
        port, = free_ports(1)
        self.take(policy(listeners=listener(port)))
        address, self.proxy.proxy_address = self.proxy.proxy_address, f"127.0.0.1:{port}"
        stream = self.proxy.stream("hello?")
        self.addCleanup(stream.close)
        self.proxy.proxy_address = address
        tokens = stream.tokens()
        next(tokens)
        self.take(policy())
        self.assertEqual(len(list(tokens)), 49)

    def test_a_file_with_a_busy_port_is_refused_as_a_whole(self):
        self.start()
        free, = free_ports(1)
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen(1)
            busy = holder.getsockname()[1]
            self.refuse(policy(listeners=listener(free) + listener(busy), model="second"))
            self.assertIn(f"127.0.0.1:{busy}: the port is in use by another program", self.log())
            self.assertEqual(self.status(free), 0)
            self.assertEqual([model["id"] for model in self.proxy.request("GET", "/v1/models").json()["data"]],
                             ["lexicon-5m"])
            self.refuse(policy(admin=f"127.0.0.1:{busy}"))
        self.take(policy(listeners=listener(free) + listener(busy), model="second"))
        self.assertEqual([self.status(free), self.status(busy)], [200, 200])

    def test_listeners_move_under_load(self):
        self.start(script=lambda request: request.answer(200, {"choices": []}))
        ports = free_ports(4)
        with Load(self.proxy.proxy_address, clients=4, streamed=False) as load:
            wait_until(lambda: len(load.done()) > 10, "load is under way")
            for turn in range(8):
                self.take(policy(listeners="".join(listener(port) for port in ports[turn % 4:])))
                self.assertEqual([self.status(port) for port in ports[turn % 4:]], [200] * (4 - turn % 4))
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])

    def test_the_admin_page_moves(self):
        self.start()
        port, = free_ports(1)
        old, self.proxy.admin_address = self.proxy.admin_address, f"127.0.0.1:{port}"
        self.proxy.write_policy(policy())
        wait_until(lambda: not self.refuses(self.proxy.admin_address), "it is there")
        self.assertEqual(self.generation(), 2)
        self.assertTrue(self.refuses(old))


class SignalTest(GenerationsTest):
    def test_readiness_goes_first_and_listeners_after_the_delay(self):
        self.start(policy(server="  timeouts: {drain_delay: 1500ms}\n"))
        with self.proxy.raw() as kept:
            kept.send(ASK)
            self.assertEqual(kept.read_answer().status, 200)
            self.proxy.proxy.send(signal.SIGTERM)
            wait_until(lambda: request(self.proxy.admin_address, "GET", "/readyz").status == 503, "not ready", 10)
            # Balancers have not noticed yet.
            self.assertEqual(self.proxy.request("GET", "/v1/models").status, 200)
            kept.send(ASK)
            self.assertEqual(kept.read_answer().status, 200)
            wait_until(lambda: self.refuses(self.proxy.proxy_address), "it listens no more", 10)
            kept.send(ASK)
            self.assertEqual(kept.read_answer().header("connection"), "close")
        self.assertEqual(self.proxy.proxy.wait(patient(10)), 0)

    def test_a_second_signal_ends_the_delay_as_well(self):
        self.start(policy(server="  timeouts: {drain_delay: 60s}\n"))
        self.proxy.proxy.send(signal.SIGTERM)
        wait_until(lambda: request(self.proxy.admin_address, "GET", "/readyz").status == 503, "not ready", 10)
        self.proxy.proxy.send(signal.SIGTERM)
        self.assertEqual(self.proxy.proxy.wait(patient(10)), 0)

    def test_signals_in_any_order_and_before_it_is_ready_do_no_harm(self):
        orders = ((signal.SIGHUP,), (signal.SIGUSR1,), (signal.SIGHUP, signal.SIGTERM),
                  (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
        self.start(start=False)
        for delay in (0.005, 0.02, 0.3):
            for order in orders:
                with self.subTest(f"{order} after {delay} s"):
                    process = self.proxy.start_proxy(wait=False)
                    # Once its handlers are there; before, it is not the proxy yet.
                    wait_until(lambda: self.handles(process.pid, signal.SIGHUP), "it hears")
                    time.sleep(delay)
                    for number in order:
                        process.send(number)
                    if signal.SIGTERM not in order:
                        wait_until(lambda: " ready: " in self.log(), "it is ready all the same")
                        process.send(signal.SIGTERM)
                    self.assertEqual(process.wait(patient(15)), 0)

    def handles(self, pid, number):
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            caught = next(line for line in status if line.startswith("SigCgt")).split()[1]
        return int(caught, 16) >> (number - 1) & 1

    def test_a_drain_under_load_drops_no_request(self):
        self.start(policy(server="  timeouts: {drain_delay: 300ms}\n"))
        clients = LastingClients(self.proxy.proxy_address, kept=4, streaming=4, end_on_refusal=True)
        wait_until(lambda: clients.kept > 20, "load is under way")
        self.proxy.proxy.send(signal.SIGTERM)
        self.assertEqual(self.proxy.proxy.wait(patient(20)), 0)
        clients.stop()
        self.assertEqual(clients.errors, [])


if __name__ == "__main__":
    main()
