"""A backend that speaks HTTP/2 by prior knowledge, and leaves, refuses and limits as
it is told. It answers each request that it takes in with the request's own body,
or with `body`.

    with Http2Backend(goaway_after=20) as backend:
        ...
        backend.taken         # the bodies of the requests that it took in

Needs the package h2 (`sdk.python_package("http2", sdk.HTTP2)`).
"""

import contextlib
import socket
import threading

REFUSED_STREAM = 0x7


class Http2Backend:
    """goaway_after: a connection is left once it has seen so many requests; the last
    few of them are passed over. refuse_every: each n-th request is refused. streams:
    how many a connection may carry at once."""

    def __init__(self, goaway_after=0, refuse_every=0, streams=100, body=None):
        self.goaway_after, self.refuse_every, self.streams = goaway_after, refuse_every, streams
        self.body = body
        self.taken, self.refused, self.passed_over, self.connections = [], 0, 0, 0
        self.lock = threading.Lock()
        self._seen = 0
        self._sockets = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def turn(self):
        """Counts a request; true if it is one to be refused."""
        with self.lock:
            self._seen += 1
            return bool(self.refuse_every) and self._seen % self.refuse_every == 0

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # Closed: the test is over.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), contextlib.closing(connection):
            _Connection(self, connection).run()


class _Connection:
    def __init__(self, backend, stream):
        import h2.config
        import h2.connection
        import h2.settings
        self.backend, self.stream = backend, stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: backend.streams})
        self.bodies, self.paths = {}, {}
        self.requests, self.last, self.open = 0, None, set()

    def run(self):
        self.h2.initiate_connection()
        self.send()
        while not self.over():
            data = self.stream.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                self.on(event)
            self.send()

    def over(self):
        return self.last is not None and not self.open

    def send(self):
        data = self.h2.data_to_send()
        if data:
            self.stream.sendall(data)

    def on(self, event):
        import h2.events
        import h2.exceptions
        if isinstance(event, h2.events.RequestReceived):
            self.begin(event.stream_id, dict(event.headers)[b":path"].decode())
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.open:
                self.bodies[event.stream_id] += event.data
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self.open:
            with contextlib.suppress(h2.exceptions.ProtocolError):  # Reset by the same bytes.
                self.answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.open.discard(event.stream_id)

    def begin(self, stream_id, path):
        health = path == "/health"
        if self.last is not None:
            with self.backend.lock:
                self.backend.passed_over += 1
            return
        if not health and self.backend.turn():
            with self.backend.lock:
                self.backend.refused += 1
            self.h2.reset_stream(stream_id, REFUSED_STREAM)
            return
        self.open.add(stream_id)
        self.bodies[stream_id], self.paths[stream_id] = b"", path
        self.requests += not health
        if self.backend.goaway_after and self.requests >= self.backend.goaway_after:
            self.leave(stream_id)

    def leave(self, last):
        from hyperframe.frame import GoAwayFrame
        self.last = last
        self.send()
        self.stream.sendall(GoAwayFrame(0, last_stream_id=last).serialize())

    def answer(self, stream_id):
        self.open.discard(stream_id)
        body = self.bodies.pop(stream_id)
        if self.paths[stream_id] != "/health":
            with self.backend.lock:
                self.backend.taken.append(body)
        self.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/json")])
        self.h2.send_data(stream_id, body if self.backend.body is None else self.backend.body, end_stream=True)
