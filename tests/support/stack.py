"""Whole stacks for integration tests: real binaries on free ports of 127.0.0.1.

    class ChatTest(StackTest):
        def test_answers_through_the_proxy(self):
            stack = self.stack(engines=3)
            answer = stack.chat("What is a turbine?")
            self.assertEqual(answer.status, 200, answer.error())

Whatever a test started is stopped by its own process id when the test ends; the
logs of a failed test are printed. Binaries come from PENSTOCK_BIN (ctest sets
it), else from build-dev/bin.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import unittest

from config.setup import local_stack
from config.setup.local_stack import MODEL, ROOT, Answer, EventStream, StackError, chat, patient, request

__all__ = ["MODEL", "ROOT", "Answer", "EventStream", "RawConnection", "Stack", "StackError", "StackTest",
           "chat", "free_ports", "patient", "request", "wait_until"]

BINARIES = os.environ.get("PENSTOCK_BIN", os.path.join(ROOT, "build-dev/bin"))
_LOG_LINES = 30
_SANITIZER_REPORT = re.compile(r"(ERROR|WARNING): \w+Sanitizer|: runtime error: ")


def free_ports(count):
    """Ports of 127.0.0.1 that were free a moment ago; all different."""
    with contextlib.ExitStack() as sockets:
        bound = []
        for _ in range(count):
            probe = sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            bound.append(probe.getsockname()[1])
        return bound


def wait_until(condition, what, seconds=30):
    """Waits until `condition()` is true and returns its value; fails with `what` otherwise."""
    end = time.monotonic() + patient(seconds)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise StackError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class RawConnection:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, address, timeout=10):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), patient(timeout))
        self._patience = patient(timeout)
        self._buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def read_until(self, mark):
        """The bytes up to and with `mark`; fails where the connection ends before it, and
        where it goes on for `timeout` seconds without it."""
        end = time.monotonic() + self._patience
        while mark not in self._buffer:
            if time.monotonic() > end:
                raise StackError(f"no {mark!r} within {self._patience} s; last came {self._buffer[-500:]!r}")
            data = self.socket.recv(65536)
            if not data:
                raise StackError(f"the connection ended before {mark!r}; it said {self._buffer!r}")
            self._buffer += data
        at = self._buffer.index(mark) + len(mark)
        found, self._buffer = self._buffer[:at], self._buffer[at:]
        return found

    def read_to_end(self):
        """Everything up to the end; a reset counts as one."""
        data, self._buffer = self._buffer, b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.socket.recv(65536):
                data += more
        return data

    def read_answer(self):
        """One answer with a content-length (or none): an Answer."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {}
        for line in filter(None, head[1:]):
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            data = self.socket.recv(65536)
            if not data:
                raise StackError(f"the connection ended after {len(self._buffer)} of {length} body bytes")
            self._buffer += data
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stack:
    """Engines and one proxy in a folder of their own.

    engines: how many, or a list of keyword arguments of local_stack.engine_process
    (ranks, device, model, more), one dict an engine. policy: the text of a policy
    file, with {listen}, {admin} and {backends} filled in; or None for quickstart's
    shape. Without `start` nothing runs yet: start_engine(i) and start_proxy() do.
    """

    DEFAULT_POLICY = """\
version: v1
server:
  listeners:
    - address: {listen}
      debug_headers: true
  admin:
    address: {admin}
  workers: 2
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    cache: answers
caches:
  - name: answers
"""

    def __init__(self, engines=1, policy=None, start=True, folder=None, backends=()):
        self.folder = folder or tempfile.mkdtemp(prefix="penstock-test-")
        self._engine_options = [{} for _ in range(engines)] if isinstance(engines, int) else list(engines)
        ports = free_ports(len(self._engine_options) + 2)
        self.proxy_address, self.admin_address, *self.engine_addresses = [f"127.0.0.1:{p}" for p in ports]
        self.backends = [*self.engine_addresses, *backends]
        self.engines = [None] * len(self._engine_options)
        self.proxy = None
        self._started = []
        self.policy_file = os.path.join(self.folder, "policy.yaml")
        self.write_policy(policy or self.DEFAULT_POLICY)
        if start:
            self.start()

    # --- processes

    def start(self):
        for index in range(len(self.engines)):
            self.start_engine(index, wait=False)
        for index in range(len(self.engines)):
            self.wait_for_engine(index)
        self.start_proxy()

    def start_engine(self, index, wait=True):
        """(Re)starts one engine on its address."""
        address = self.engine_addresses[index]
        self.engines[index] = local_stack.engine_process(
            BINARIES, address, self._log(f"engine-{index}"), **self._engine_options[index])
        self._started.append(self.engines[index])
        if wait:
            self.wait_for_engine(index)
        return self.engines[index]

    def wait_for_engine(self, index):
        local_stack.wait_ready(self.engines[index], self.engine_addresses[index], "/health")

    def start_proxy(self, wait=True, more=(), env=None, before=()):
        """`more`: further words of its command line; `before`: those that start it, as
        prlimit and its own; `env`: variables beside our own."""
        self.proxy = local_stack.proxy_process(BINARIES, self.policy_file, self._log("proxy"), more=more, before=before,
                                               env={**os.environ, **env} if env else None)
        self._started.append(self.proxy)
        if wait:
            local_stack.wait_ready(self.proxy, self.admin_address, "/readyz")
        return self.proxy

    def wait_for_reports(self):
        """Until the engines' load reports are in: before it, choices and cache keys differ."""
        local_stack.wait_for_reports(self.proxy, self.admin_address)

    def stop(self):
        # Those too that others took over from.
        first = [process for process in [self.proxy, *self.engines] if process]
        local_stack.stop_all(list(dict.fromkeys([*first, *self._started])))

    def bad_ends(self):
        """What is wrong with how processes ended, one line each: a status other than 0,
        a signal that is not a test's SIGKILL, a sanitizer's report. REQUIRES: stopped."""
        found = [process.obituary() for process in self._started
                 if process.ended() not in (0, -signal.SIGKILL)]
        for process in self._started:
            with open(process.log, encoding="utf-8", errors="replace") as log:
                found += [f"{process.name}: {line.strip()}" for line in log if _SANITIZER_REPORT.search(line)]
        return found

    def _log(self, name):
        # A restart gets a log of its own: name.log, name.2.log ...
        path, turn = os.path.join(self.folder, f"{name}.log"), 1
        while os.path.exists(path):
            turn += 1
            path = os.path.join(self.folder, f"{name}.{turn}.log")
        return path

    def logs(self):
        """The last lines of every log, and a sanitizer's report whole, for a failed test."""
        text = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".log"):
                with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as log:
                    lines = log.readlines()
                reports = (at for at, line in enumerate(lines) if _SANITIZER_REPORT.search(line))
                first = min(next(reports, len(lines)), max(0, len(lines) - _LOG_LINES))
                text.append(f"--- {name}\n{''.join(lines[first:])}")
        return "\n".join(text)

    # --- policy

    def write_policy(self, text):
        """Replaces the policy file at once, as editors do; a running proxy reloads it."""
        text = (text.replace("{listen}", self.proxy_address).replace("{admin}", self.admin_address)
                .replace("{backends}", json.dumps(self.backends)))
        with open(self.policy_file + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(self.policy_file + ".new", self.policy_file)

    # --- asking

    def request(self, method, path, body=None, **more):
        return request(self.proxy_address, method, path, body, **more)

    def chat(self, question, headers=None, timeout=30, **body):
        return self.request("POST", "/v1/chat/completions", chat(question, **body), headers=headers,
                            timeout=timeout)

    def stream(self, question, headers=None, timeout=30, **body):
        return EventStream(self.proxy_address, "/v1/chat/completions", chat(question, stream=True, **body),
                           headers, timeout)

    def raw(self, timeout=10):
        return RawConnection(self.proxy_address, timeout)

    def admin(self, path, method="GET"):
        """The JSON of an admin path; fails where it is not answered with 200."""
        answer = request(self.admin_address, method, path)
        if answer.status != 200:
            raise StackError(f"{method} {path}: {answer.error()}")
        return answer.json()

    def metric(self, name, **labels):
        """The sum of the samples of `name` that have these labels; 0 where there are none."""
        answer = request(self.admin_address, "GET", "/metrics")
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in answer.body.decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                total += float(value)
        return total


class StackTest(unittest.TestCase):
    """A test case whose stacks are stopped, and whose logs are shown if it fails."""

    def stack(self, *args, start=True, **kwargs):
        folder = tempfile.mkdtemp(prefix="penstock-test-")
        stack = Stack(*args, **kwargs, folder=folder, start=False)
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.addCleanup(self._show_logs_of_failure, stack)
        self.addCleanup(self._require_good_ends, stack)
        self.addCleanup(stack.stop)
        if start:
            stack.start()
        return stack

    def _require_good_ends(self, stack):
        self.assertEqual(stack.bad_ends(), [])

    def _show_logs_of_failure(self, stack):
        outcome = self._outcome.result
        if any(test is self for test, _ in outcome.errors + outcome.failures):
            print(stack.logs(), flush=True)


EXIT_SKIPPED = 77  # All of it. ctest shows that as skipped, where it would show a pass.


def main():
    result = unittest.main(verbosity=2, exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(EXIT_SKIPPED if result.skipped and len(result.skipped) >= result.testsRun else 0)
