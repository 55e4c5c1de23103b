"""A backend that does what a test says, byte by byte: slow, hanging, hostile, gone.

    def script(request):
        request.begin_events()
        request.event({"choices": [{"delta": {"content": "hi"}}]})
        request.hang()

    with FakeBackend(script) as backend:
        ...
        backend.requests      # those that arrived, health checks and load polls aside

Each connection is a thread; a script that returns without an answer, or raises,
ends its connection. GET /health is answered by `healthy`, GET /load with what `load()`
returns as bytes, or with 404.
"""

import contextlib
import json
import socket
import struct
import threading

_HEAD_MAX = 1 << 20


class Gone(Exception):
    """The other side closed the connection."""


class Request:
    """One request as it arrived, and the hands to answer it."""

    def __init__(self, backend, connection, number, reader):
        self.backend = backend
        self.connection = connection      # Number of the connection, from 1.
        self.number = number              # Number of the request on it, from 1.
        self._socket = reader.socket
        self._reader = reader
        self.head = reader.until(b"\r\n\r\n", _HEAD_MAX)
        lines = self.head.decode("latin-1").split("\r\n")
        self.method, self.path, self.version = lines[0].split(" ", 2)
        self.headers = {}
        for line in filter(None, lines[1:]):
            name, value = line.split(":", 1)
            self.headers.setdefault(name.lower(), value.strip())
        self.body = b""
        self._chunked = False
        self.close = False                # After the answer.

    def read_body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._reader.until(b"\r\n"), 16):
                self.body += self._reader.exactly(size)
                self._reader.exactly(2)
            while self._reader.until(b"\r\n") != b"\r\n":
                pass
        else:
            self.body = self._reader.exactly(int(self.headers.get("content-length", 0)))
        return self.body

    def json(self):
        return json.loads(self.body)

    def send(self, data):
        self._socket.sendall(data)

    def exactly(self, size):
        """So many bytes that follow the request."""
        return self._reader.exactly(size)

    def answer(self, status=200, body=b"{}", headers=(), reason="Said"):
        """A whole answer with its length."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        fields = {"content-type": "application/json", "content-length": str(len(body)), **dict(headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode("latin-1") + body)

    def begin_events(self, headers=()):
        lines = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
        self.send(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                  f"transfer-encoding: chunked\r\n{lines}\r\n".encode())
        self._chunked = True

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, data):
        """One event; `data`: text, or what becomes JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.chunk(f"data: {text}\n\n".encode())

    def token(self, text):
        self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def end_events(self, finish="stop"):
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        self.event("[DONE]")
        self.send(b"0\r\n\r\n")

    def stream(self, *tokens):
        self.begin_events()
        for token in tokens:
            self.token(token)
        self.end_events()

    def hang(self, seconds=60):
        """Says nothing more until the client leaves or the backend is closed."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass
        raise Gone

    def reset(self):
        """Ends the connection with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


class _Reader:
    def __init__(self, sock):
        self.socket = sock
        self._data = b""

    def _more(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise Gone
        self._data += data

    def until(self, mark, limit=1 << 16):
        while mark not in self._data:
            if len(self._data) > limit:
                raise Gone
            self._more()
        at = self._data.index(mark) + len(mark)
        found, self._data = self._data[:at], self._data[at:]
        return found

    def exactly(self, size):
        pieces, missing = [], size
        while missing > 0:
            if not self._data:
                self._more()
            piece, self._data = self._data[:missing], self._data[missing:]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


class FakeBackend:
    def __init__(self, script=None, host="127.0.0.1", port=0, tls=None, before_tls=b""):
        """tls: an ssl.SSLContext to speak with. before_tls: said in plain, before the handshake."""
        self._tls, self._before_tls = tls, before_tls
        self.script = script or (lambda request: request.answer())
        self.read_bodies = True
        self.healthy = True
        self.load = None
        self.requests = []
        self.connections = 0
        self.gone = threading.Event()     # A client left an answer that hung.
        self._open = set()
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=256)
        self.port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
                self.connections += 1
                number = self.connections
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, connection):
        number = 0
        with contextlib.suppress(OSError, Gone), sock:
            plain = sock
            if self._before_tls:
                sock.sendall(self._before_tls)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.add(sock)
                    self._open.discard(plain)
            reader = _Reader(sock)
            while True:
                number += 1
                self._one(Request(self, connection, number, reader))
        with self._lock:
            self._open.discard(sock)
            self._open.discard(plain)

    def _one(self, request):
        if request.path.startswith("/health"):
            request.answer(200 if self.healthy else 500)
            return
        if request.path.startswith("/load"):
            if self.load and "watch" not in request.path:
                request.answer(200, self.load())
            else:
                request.answer(404)
            return
        if self.read_bodies:
            request.read_body()
        with self._lock:
            self.requests.append(request)
        try:
            self.script(request)
        except Gone:
            self.gone.set()
            raise
        if request.close:
            raise Gone

    def close(self):
        """Nothing listens here any more, and every connection is gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
