"""Clients and a backend that show what a change in the middle costs: connections that
are kept from request to request, and streams that last for seconds."""

import contextlib
import http.client
import json
import threading
import time

from config.setup.local_stack import EventStream, StackError, chat, patient


def lasting_answer(request):
    """A stream takes two seconds and a half, every other answer a moment."""
    if b'"stream": true' not in request.body:
        time.sleep(0.005)
        return request.answer(200, {"choices": []})
    request.begin_events()
    for number in range(50):
        request.token(f"{number} ")
        time.sleep(0.05)
    request.end_events()


_WHOLE = "".join(f"{number} " for number in range(50))


class LastingClients:
    """Clients of two kinds that go on until stop(): on kept connections, and with long
    streams. end_on_refusal: a new connection that is refused ends a client, and is no error."""

    def __init__(self, address, kept, streaming, end_on_refusal=False):
        self.address = address
        self._end_on_refusal = end_on_refusal
        self.errors = []
        self.kept = self.streams = self.connections = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(work,), daemon=True)
                         for work, count in ((self._keep, kept), (self._watch, streaming)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, work):
        try:
            work()
        except (OSError, http.client.HTTPException, StackError, ValueError, AssertionError) as error:
            self.errors.append(repr(error))

    def _connected(self, connect):
        """What connect() returns; None: refused, and that is an end."""
        try:
            return connect()
        except (OSError, StackError) as error:
            if self._end_on_refusal and ("refused" in str(error) or "reset" in str(error)):
                return None
            raise

    def _keep(self):
        host, port = self.address.rsplit(":", 1)
        body = json.dumps(chat("hello?")).encode()
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(host, int(port), timeout=patient(20))
            if self._connected(lambda: connection.connect() or True) is None:
                return
            self.connections += 1
            while not self._stop.is_set():
                connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
                self.kept += 1
                if response.will_close:
                    break
                time.sleep(0.01)
            connection.close()

    def _watch(self):
        while not self._stop.is_set():
            opened = self._connected(lambda: EventStream(self.address, "/v1/chat/completions",
                                                         chat("hello?", stream=True), timeout=30))
            if opened is None:
                return
            with contextlib.closing(opened) as stream:
                if stream.status != 200:
                    raise ValueError(stream.error())
                said = "".join(stream.tokens())
            if said != _WHOLE:
                raise ValueError(f"not whole: {said!r}")
            self.streams += 1

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(patient(30))
