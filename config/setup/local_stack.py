"""Engines and proxies as processes of this machine: started, awaited, asked and
stopped by their own process ids. What ./run and the integration tests share.

Only the standard library of Python 3.11. Nothing here knows which ports or
which policy; those are the caller's. PENSTOCK_PATIENCE=n in the environment makes
every time limit n times as long, for programs that are that much slower.
"""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, "backend-engine/models/lexicon-5m")
_POLL_SECONDS = 0.02
_PATIENCE = float(os.environ.get("PENSTOCK_PATIENCE", "1"))
_PR_SET_PDEATHSIG = 1
_TCP_LISTEN = "0A"
_libc = ctypes.CDLL(None)


class StackError(Exception):
    """Something of the stack failed; the text is one line with cause and cure."""


def patient(seconds):
    """A time limit as long as PENSTOCK_PATIENCE makes it."""
    return seconds * _PATIENCE


# --- ports -------------------------------------------------------------------


def port_is_free(port, host="127.0.0.1"):
    """True if a listener could be made there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As our listeners do, so that connections of the last run do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def port_holder(port):
    """Who listens on `port`: "nginx (process 123)", or "" where /proc does not tell."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as rows:
                for row in list(rows)[1:]:
                    field = row.split()
                    if field[3] == _TCP_LISTEN and int(field[1].rsplit(":", 1)[1], 16) == port:
                        inodes.add(f"socket:[{field[9]}]")
        except OSError:
            pass
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8") as name:
                        return f"{name.read().strip()} (process {pid})"
        except OSError:
            pass  # Gone meanwhile, or somebody else's.
    return ""


# --- processes ---------------------------------------------------------------


class Process:
    """One program with its log in a file. It ends when we do, however we end."""

    def __init__(self, name, argv, log, env=None):
        self.name = name
        self.log = log
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "wb") as out:
            try:
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    cwd=ROOT, env=env, preexec_fn=self._before_exec)
            except OSError as error:
                raise StackError(f"{name} does not start: {error.strerror}: {argv[0]}") from error

    @staticmethod
    def _before_exec():
        os.setsid()  # A Ctrl-C of the terminal goes to us alone; we stop them in order.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    @property
    def pid(self):
        return self._process.pid

    def ended(self):
        """The exit status (negative: the signal) or None while it runs."""
        return self._process.poll()

    def last_words(self):
        """The last line of its log that is not empty."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                lines = [line.strip() for line in log if line.strip()]
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing"

    def obituary(self):
        """How it ended and what it said last. REQUIRES: it has ended."""
        status = self.ended()
        how = f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return f"{self.name} ended with {how}; the last it said: {self.last_words()} (log: {self.log})"

    def require_alive(self):
        if self.ended() is not None:
            raise StackError(self.obituary())

    def send(self, signal_number):
        """Sends a signal; nothing happens where it has ended."""
        if self.ended() is None:
            self._process.send_signal(signal_number)

    def wait(self, seconds):
        """The exit status, or None if it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, seconds=10):
        """Asks it to end, insists after `seconds`. Returns the exit status."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # One that was stopped would not hear the first.
        if self.wait(patient(seconds)) is None:
            self.kill()
        return self.ended()

    def kill(self):
        self.send(signal.SIGKILL)
        self._process.wait()


def engine_process(binaries, address, log, *, model=MODEL, ranks=2, device="cpu", more=(), env=None):
    return Process(f"engine {address}",
                   [os.path.join(binaries, "penstock-engine"), "serve", "--model", model,
                    "--listen", address, "--tensor-parallel", str(ranks), "--device", device,
                    *more], log, env)


def proxy_process(binaries, policy, log, *, more=(), env=None, before=()):
    """`before`: words that start it, as those of prlimit."""
    return Process("proxy", [*before, os.path.join(binaries, "penstock"), "serve", "-c", policy, *more],
                   log, env)


def stop_all(processes, seconds=10):
    """Stops them side by side, in the order given. What is left after `seconds` is
    asked again, which ends an answer in progress, and killed after as long again."""
    for _ in range(2):
        for process in processes:
            process.send(signal.SIGTERM)
            process.send(signal.SIGCONT)
        end = time.monotonic() + patient(seconds)
        for process in processes:
            process.wait(max(0.0, end - time.monotonic()))
    for process in processes:
        if process.ended() is None:
            process.kill()


# --- asking ------------------------------------------------------------------


class Answer:
    """A whole answer: status, headers (case does not matter), body."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name, default=""):
        return self.headers.get(name, default)

    def json(self):
        return json.loads(self.body)

    def error(self):
        """What went wrong, in the words of an OpenAI-shaped error where it is one."""
        try:
            return f"{self.status}: {self.json()['error']['message']}"
        except (ValueError, KeyError, TypeError):
            return f"{self.status}: {self.body[:200].decode('utf-8', 'replace').strip()}"


def _connection(address, timeout):
    host, port = address.rsplit(":", 1)
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=patient(timeout))


def request(address, method, path, body=None, headers=None, timeout=30):
    """One request on a connection of its own. `body`: bytes, or what becomes JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("content-type", "application/json")
    connection = _connection(address, timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise StackError(f"{method} http://{address}{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def wait_ready(process, address, path, seconds=60):
    """Waits until `path` answers 200 there; fails if `process` ends or time does."""
    end = time.monotonic() + patient(seconds)
    said = "no answer"
    while True:
        process.require_alive()
        try:
            answer = request(address, "GET", path, timeout=2)
            if answer.status == 200:
                return
            said = answer.error()
        except StackError as error:
            said = str(error)
        if time.monotonic() > end:
            raise StackError(f"{process.name} is not ready after {seconds} s: {said} (log: {process.log})")
        time.sleep(_POLL_SECONDS)


def wait_for_reports(proxy, admin, seconds=10):
    """Waits until every pool has heard from its engines which weights they serve:
    from then on a choice goes by their own reports, and the cache keeps answers."""
    end = time.monotonic() + patient(seconds)
    while not all(pool["weights"] for pool in request(admin, "GET", "/backends").json()["pools"]):
        proxy.require_alive()
        if time.monotonic() > end:
            raise StackError(f"no engine has reported its load within {seconds} s (log: {proxy.log})")
        time.sleep(_POLL_SECONDS)


class EventStream:
    """An answer of server-sent events. Iterating gives each event's data as text,
    "[DONE]" included, and raises StackError where the stream is cut."""

    def __init__(self, address, path, body, headers=None, timeout=30):
        self._where = f"POST http://{address}{path}"
        self._connection = _connection(address, timeout)
        try:
            self._connection.request("POST", path, json.dumps(body).encode(),
                                     {"content-type": "application/json", **(headers or {})})
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise StackError(f"{self._where}: {error or type(error).__name__}") from error
        self.status = self._response.status
        self.headers = self._response.headers
        self.done = False  # "[DONE]" was seen.

    def header(self, name, default=""):
        return self.headers.get(name, default)

    def error(self):
        """Reads the rest and says what went wrong. For a status other than 200."""
        return Answer(self.status, self.headers, self._response.read()).error()

    def __iter__(self):
        data = []
        try:
            for line in iter(self._response.readline, b""):
                line = line.decode().rstrip("\r\n")
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    text = "\n".join(data)
                    data = []
                    self.done = self.done or text == "[DONE]"
                    yield text
        except (OSError, http.client.HTTPException) as error:
            raise StackError(f"{self._where}: the stream was cut: {error or type(error).__name__}") from error

    def tokens(self):
        """The pieces of a chat answer, up to its end.

        Raises StackError for an error event and for a stream that ends without
        a finish reason and "[DONE]": half an answer is none.
        """
        finished = False
        for text in self:
            if text == "[DONE]":
                break
            event = json.loads(text)
            if "error" in event:
                raise StackError(f"{self._where}: {event['error'].get('message', text)}")
            for choice in event.get("choices", []):
                piece = choice.get("delta", {}).get("content") or ""
                if piece:
                    yield piece
                finished = finished or choice.get("finish_reason") is not None
        if not (finished and self.done):
            raise StackError(f"{self._where}: the stream ended before the answer did")

    def close(self):
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def chat(question, **more):
    """The body of a chat request to the embedded model, the same answer each time."""
    return {"model": "lexicon-5m", "messages": [{"role": "user", "content": question}],
            "temperature": 0, **more}
