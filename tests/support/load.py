"""Closed-loop load for integration tests: so many clients, each with one request
after the other, streamed and whole in turn; every outcome is kept."""

import contextlib
import dataclasses
import threading
import time

from config.setup.local_stack import EventStream, StackError, chat, request


@dataclasses.dataclass
class Outcome:
    began: float               # time.monotonic()
    ended: float = 0.0
    streamed: bool = False
    request_id: str = ""
    backend: str = ""
    status: int = 0
    started: bool = False      # A token of a streamed answer, or the head of a whole one, was seen.
    error: str = ""            # Why the answer is not whole; "": it is.


class Load:
    """Clients that ask until stop(); `body(n)` gives the n-th request's further members."""

    def __init__(self, address, clients, body=None, streamed="mixed", tokens=16, pause=0.0):
        self._address = address
        self._body = body or (lambda n: {})
        self._streamed = streamed
        self._tokens = tokens
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._count = 0
        self.outcomes = []
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self):
        while not self._stop.is_set():
            with self._lock:
                self._count += 1
                number = self._count
            streamed = number % 2 == 0 if self._streamed == "mixed" else self._streamed
            outcome = Outcome(time.monotonic(), streamed=streamed, request_id=f"load-{number}")
            # Each request differs, so that no answer comes from a cache.
            body = chat(f"What is number {number}?", max_tokens=self._tokens, temperature=1,
                        seed=number, **self._body(number))
            try:
                self._stream(outcome, body) if streamed else self._whole(outcome, body)
            except (StackError, ValueError) as error:
                outcome.error = str(error)
            outcome.ended = time.monotonic()
            with self._lock:
                self.outcomes.append(outcome)
            if self._pause:
                self._stop.wait(self._pause)

    def _stream(self, outcome, body):
        with contextlib.closing(EventStream(self._address, "/v1/chat/completions", {**body, "stream": True},
                                            {"x-request-id": outcome.request_id}, timeout=60)) as stream:
            outcome.status = stream.status
            outcome.backend = stream.header("x-penstock-backend")
            if stream.status != 200:
                outcome.error = stream.error()
                return
            for _ in stream.tokens():
                outcome.started = True

    def _whole(self, outcome, body):
        answer = request(self._address, "POST", "/v1/chat/completions", body,
                         {"x-request-id": outcome.request_id}, timeout=60)
        outcome.status = answer.status
        outcome.backend = answer.header("x-penstock-backend")
        outcome.started = answer.status == 200
        if answer.status != 200:
            outcome.error = answer.error()

    def done(self):
        with self._lock:
            return list(self.outcomes)

    def stop(self):
        """Lets every client finish its request; all outcomes."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        return self.done()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
