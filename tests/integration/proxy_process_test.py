"""A real proxy as a process among others: stopped and continued, killed, starved,
with logs that cannot be written, with another one on its port."""

import contextlib
import fcntl
import itertools
import os
import resource
import signal
import subprocess
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.load import Load
from tests.support.stack import BINARIES, StackTest, main, patient, request, wait_until

EMULATED = {"device": "emulated", "ranks": 1, "more": ("--timing", "v100", "--speed", "4")}
POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 2
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
%sobservability: {access_log: "%s"}
"""
ALONE = "    health_check: {enabled: false}\n    load_reports: {push: false}\n"


def policy(pool=ALONE, access_log="off"):
    return POLICY % (pool, access_log)


class ProcessTest(StackTest):
    def start(self, text=None, script=None, start=True):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=text or policy(), backends=[self.backend.address], start=start)
        return self.proxy

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def statuses(self, count):
        return {self.proxy.request("GET", "/a").status for _ in range(count)}

    def processor_seconds(self, pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class StoppedTest(ProcessTest):
    def test_a_proxy_that_was_stopped_holds_it_against_nobody(self):
        # Its engines go on all the time; what they say waits in the kernel.
        pool = ("    health_check: {interval: 1s, timeout: 900ms, unhealthy_threshold: 1}\n"
                "    timeouts: {first_token: 3s, idle: 3s, connect: 1s}\n    retry: {attempts: 0}\n")
        stack = self.proxy = self.stack(engines=[EMULATED] * 3, policy=policy(pool))
        stack.wait_for_reports()
        with Load(stack.proxy_address, clients=12, streamed=True) as load:
            wait_until(lambda: len(load.done()) > 30, "load is under way")
            for _ in range(3):
                stack.proxy.send(signal.SIGSTOP)
                time.sleep(4)
                stack.proxy.send(signal.SIGCONT)
                served = len(load.done())
                wait_until(lambda: len(load.done()) > served + 20, "it goes on")
                time.sleep(1.5)  # Stops in close succession are too much to do.
        self.assertEqual([outcome.error for outcome in load.stop() if outcome.error], [])
        for word in ("unhealthy", "breaker", "fell silent"):
            self.assertNotIn(word, self.log())
        for kind in ("first_token", "idle", "connect"):
            self.assertEqual(stack.metric("penstock_timeouts_total", kind=kind), 0, kind)

    def test_what_has_expired_meanwhile_is_answered_once(self):
        self.start(policy(ALONE + "    timeouts: {response: 2s}\n    retry: {attempts: 0}\n"),
                   script=lambda request: request.hang())
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.proxy.raw(30)) for _ in range(20)]
            for client in clients:
                client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: len(self.backend.requests) == 20, "all have arrived")
            self.proxy.proxy.send(signal.SIGSTOP)
            time.sleep(4)
            self.proxy.proxy.send(signal.SIGCONT)
            self.assertEqual({client.read_answer().status for client in clients}, {504})
        wait_until(lambda: self.proxy.metric("penstock_http_requests_active") == 0, "nothing is left")
        self.assertEqual(self.proxy.metric("penstock_http_requests_total", code="504"), 20)
        self.assertEqual(len(self.backend.requests), 20)


class LogTest(ProcessTest):
    def entries(self, path):
        with open(path, encoding="utf-8") as log:
            return log.read().count('"start_time"')

    def dropped(self, log):
        return self.proxy.metric("penstock_log_lines_dropped_total", log=log)

    def test_a_full_disk_costs_lines_and_no_request(self):
        self.start(policy(access_log="/dev/full"))
        self.assertEqual(self.statuses(50), {200})
        wait_until(lambda: self.dropped("access") == 50, "they are counted")

    def test_a_log_that_is_moved_away_is_opened_anew_when_told(self):
        self.start(start=False)
        path = os.path.join(self.proxy.folder, "access.log")
        self.proxy.write_policy(policy(access_log=path))
        self.proxy.start_proxy()
        self.assertEqual(self.statuses(3), {200})
        wait_until(lambda: self.entries(path) == 3, "they are written")
        for turn, tell in enumerate((signal.SIGUSR1, signal.SIGHUP)):
            os.rename(path, path + f".{turn}")
            self.proxy.proxy.send(tell)
            wait_until(lambda: os.path.exists(path), "it is opened anew")
            self.assertEqual(self.statuses(3), {200})
            wait_until(lambda: self.entries(path) == 3, "they are in the new file")
        self.assertEqual([self.entries(path + f".{turn}") for turn in (0, 1)], [3, 3])
        # Its folder is gone: the old file stays.
        os.rename(self.proxy.folder + "/access.log", self.proxy.folder + "/kept.log")
        os.mkdir(path)
        self.proxy.proxy.send(signal.SIGUSR1)
        wait_until(lambda: "cannot be opened again" in self.log(), "it is told")
        self.assertEqual(self.statuses(2), {200})
        wait_until(lambda: self.entries(self.proxy.folder + "/kept.log") == 5, "they are in the old one")

    def test_where_the_access_log_goes_changes_with_a_reload(self):
        self.start(start=False)
        paths = [os.path.join(self.proxy.folder, name) for name in ("one.log", "two.log")]
        for index, target in enumerate([paths[0], paths[1], "off", paths[1]]):
            self.proxy.write_policy(policy(access_log=target))
            if index == 0:
                self.proxy.start_proxy()
            else:
                wait_until(lambda: self.proxy.metric("penstock_config_generation") == index + 1, "it is in force")
            self.assertEqual(self.statuses(4), {200})
        wait_until(lambda: [self.entries(path) for path in paths] == [4, 8], "each has its own")
        self.proxy.write_policy(policy(access_log="/nowhere/at/all"))
        wait_until(lambda: "cannot be opened" in self.log(), "it is refused")
        self.assertEqual(self.proxy.metric("penstock_config_generation"), 4)

    def test_a_pipe_that_nobody_reads_makes_neither_requests_nor_the_end_wait(self):
        self.start(start=False)
        path = os.path.join(self.proxy.folder, "pipe")
        os.mkfifo(path)
        self.proxy.write_policy(policy(access_log=path))
        process = self.proxy.start_proxy(wait=False)
        wait_until(lambda: process.ended() is not None, "it says that nobody reads")
        self.assertIn("cannot be opened", self.log())
        self.proxy._started.remove(process)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        self.proxy.start_proxy()
        self.assertEqual(self.statuses(100), {200})
        self.proxy.proxy.send(signal.SIGTERM)
        self.assertEqual(self.proxy.proxy.wait(patient(15)), 0)

    def test_asked_to_end_again_and_again_it_ends_well(self):
        self.start(start=False)
        late = itertools.cycle([signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
        for _ in range(8):  # What is left to do by then takes a moment.
            process = self.proxy.start_proxy()
            process.send(signal.SIGTERM)
            while process.ended() is None:
                process.send(next(late))
            self.assertEqual(process.ended(), 0)

    def test_a_standard_error_that_nobody_reads_costs_lines_and_blocks_nobody(self):
        self.start(start=False)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        process = subprocess.Popen([os.path.join(BINARIES, "penstock"), "serve", "-c", self.proxy.policy_file],
                                   stderr=writer, stdout=subprocess.DEVNULL)
        os.close(writer)
        try:
            wait_until(self.ready, "it is ready")
            self.proxy.write_policy(policy() + "unknown: 1\n")
            for _ in range(60):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.12)
            wait_until(lambda: self.dropped("process") > 0, "lines are dropped")
            self.assertEqual(self.statuses(20), {200})
        finally:
            process.terminate()
        self.assertEqual(process.wait(patient(15)), 0)

    def test_outputs_that_are_closed_are_no_end(self):
        self.start(start=False)
        self.proxy.write_policy(policy(access_log="stdout"))
        reader, writer = os.pipe()
        process = subprocess.Popen([os.path.join(BINARIES, "penstock"), "serve", "-c", self.proxy.policy_file],
                                   stderr=writer, stdout=writer)
        os.close(writer)
        try:
            wait_until(self.ready, "it is ready")
            os.close(reader)  # Whoever wrote would be ended by SIGPIPE.
            self.assertEqual(self.statuses(20), {200})
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: self.dropped("access") > 0, "lines are lost")
            self.assertEqual(self.statuses(20), {200})
        finally:
            process.terminate()
        self.assertEqual(process.wait(patient(15)), 0)

    def ready(self):
        with contextlib.suppress(Exception):
            return request(self.proxy.admin_address, "GET", "/readyz").status == 200
        return False


class NeighbourTest(ProcessTest):
    def test_a_second_one_on_the_same_ports_is_refused(self):
        self.start()
        second = subprocess.run([os.path.join(BINARIES, "penstock"), "serve", "-c", self.proxy.policy_file],
                                capture_output=True, text=True, timeout=patient(20), check=False)
        self.assertNotEqual(second.returncode, 0)
        self.assertIn("in use by another program", second.stderr)
        self.assertEqual(self.statuses(5), {200})

    def test_one_that_is_killed_under_load_is_back_when_it_is_started_again(self):
        self.start()
        with Load(self.proxy.proxy_address, clients=6, streamed=False, pause=0.01) as load:
            wait_until(lambda: len(load.done()) > 20, "load is under way")
            self.proxy.proxy.kill()
            self.proxy.start_proxy()
            done = len(load.done())
            wait_until(lambda: len([o for o in load.done()[done:] if not o.error]) > 20, "it serves")
        # Whoever it had not answered was told so by the end of its connection.
        self.assertFalse([o for o in load.stop() if o.error and o.status == 200])

    def test_a_machine_with_too_much_to_do_still_gets_answers(self):
        self.start()
        burners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(4)]
        try:
            self.assertEqual(self.statuses(50), {200})
            self.assertEqual(request(self.proxy.admin_address, "GET", "/readyz").status, 200)
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()

    def test_a_limit_of_processes_that_is_too_low_is_a_clear_error_or_no_harm(self):
        # Root is beyond that limit, so that only others see the error.
        self.start(start=False)
        process = self.proxy.start_proxy(wait=False, before=("prlimit", "--nproc=1:1"))
        wait_until(lambda: process.ended() is not None or " ready: " in self.log(), "it starts or says why not")
        if process.ended() is not None:
            self.proxy._started.remove(process)
            self.assertGreater(process.ended(), 0, "an exit, not a crash")
            self.assertIn("thread", self.log().lower())

    def test_a_clock_of_the_wall_that_jumps_changes_nothing(self):
        # Set back ten years at its start, and an hour on: what is timed is timed by another clock.
        if not os.path.exists("/usr/bin/faketime"):
            self.skipTest("faketime is not installed")
        self.start(start=False)
        self.proxy.start_proxy(before=("faketime", "-f", "-10y"))
        self.assertEqual(self.statuses(20), {200})

    def test_a_clock_near_the_end_of_32_bits_of_milliseconds_changes_nothing(self):
        before = ("unshare", "--time", "--monotonic", str(2**32 // 1000 - 5))
        if subprocess.run([*before, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("time namespaces are not allowed here")
        self.start(policy(ALONE + "    timeouts: {response: 1s}\n    retry: {attempts: 0}\n"), start=False)
        self.proxy.start_proxy(before=before)
        end = time.monotonic() + 8  # The counter passes 2^32 in between.
        while time.monotonic() < end:
            self.assertEqual(self.statuses(5), {200})
            time.sleep(0.2)
        self.backend.script = lambda request: request.hang()
        self.assertEqual(self.statuses(1), {504})

    def test_descriptors_that_run_out_are_waited_for_without_a_spin(self):
        if patient(1) > 1:
            self.skipTest("a sanitizer needs descriptors for its own checks")
        self.start()
        self.assertEqual(self.statuses(5), {200})
        pid = self.proxy.proxy.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(self.proxy.raw(30)) for _ in range(8)]
            for client in waiting:
                client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: "Too many open files" in self.log(), "it is told")
            before = self.processor_seconds(pid)
            time.sleep(3)
            self.assertLess(self.processor_seconds(pid) - before, 1)
            self.assertLessEqual(self.log().count("Too many open files"), 2)  # Once a worker.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            self.assertEqual({client.read_answer().status for client in waiting}, {200})


class MetricsTest(ProcessTest):
    def test_what_clients_say_does_not_grow_the_page_of_metrics(self):
        self.start()

        def samples():
            text = request(self.proxy.admin_address, "GET", "/metrics").body.decode()
            return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

        def ask(number):
            model = f"model-{number}" + "\\n{}\"" * (number % 2)
            self.proxy.request("POST", "/v1/chat/completions", {"model": model, "messages": []},
                               headers={"x-request-id": f"id-{number}", "authorization": f"Bearer {number}"})
            self.proxy.request("GET", f"/path-{number}?q={number}")
            self.proxy.request(f"METHOD{number}", "/a")
        ask(0)
        ask(1)
        before = samples()
        for number in range(2, 120):
            ask(number)
        self.assertEqual(samples(), before)


if __name__ == "__main__":
    main()
