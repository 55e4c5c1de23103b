"""A client of HTTP/2 that sends the frames it is told to, allowed or not.

    with H2Raw(address) as client:
        client.headers(1, GET)
        answer = client.answer(1)          # status, headers, body, reset
"""

import socket
import struct
import time

from hpack import Decoder
from hyperframe.frame import (DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame,
                              SettingsFrame, WindowUpdateFrame)

from config.setup.local_stack import StackError, patient

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 5, 6, 7, 8, 9, 11
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "api"), (":path", "/x")]
POST = [(":method", "POST"), (":scheme", "http"), (":authority", "api"), (":path", "/x")]


def at(path, fields=tuple(GET), more=()):
    """`fields` with another path, and `more` behind them."""
    return [(name, path if name == ":path" else value) for name, value in fields] + list(more)


def frame(kind, flags, stream, payload=b"", length=None):
    """Any frame at all."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields):
    """Literals that are in no table: what names and values are, is what is sent."""
    def text(data):
        data = data.encode("latin-1") if isinstance(data, str) else data
        return number(0, 7, len(data)) + data
    return b"".join(b"\x00" + text(name) + text(value) for name, value in fields)


def number(first, prefix, value):
    """An integer of HPACK with `prefix` bits below `first`."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes(out + [value])


class Heard:
    """What one stream has brought."""

    def __init__(self):
        self.headers, self.body, self.trailers = {}, b"", {}
        self.ended, self.reset = False, None

    @property
    def status(self):
        return int(self.headers.get(":status", 0))


class H2Raw:
    def __init__(self, address, settings=None, greet=True, timeout=20):
        host, port = address.rsplit(":", 1)
        self._patience = patient(timeout)
        self.socket = socket.create_connection((host, int(port)), self._patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data, self._decoder, self._open_windows = b"", Decoder(), not settings or 4 not in settings
        self.streams, self.goaway, self.closed, self.frames = {}, None, False, []
        if greet:
            self.send(PREFACE + SettingsFrame(settings=settings or {}).serialize())

    def send(self, data):
        """False: the other side has gone."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def headers(self, stream, fields, end=True):
        whole = block(fields)
        pieces = [whole[i:i + 16384] for i in range(0, max(1, len(whole)), 16384)]
        return self.send(b"".join(
            frame(CONTINUATION if i else HEADERS,
                  (END_STREAM if end and not i else 0) | (END_HEADERS if i == len(pieces) - 1 else 0), stream, piece)
            for i, piece in enumerate(pieces)))

    def data(self, stream, data, end=False):
        return self.send(frame(DATA, END_STREAM if end else 0, stream, data))

    def reset(self, stream, code=CANCEL):
        return self.send(RstStreamFrame(stream, error_code=code).serialize())

    def window(self, stream, more):
        return self.send(WindowUpdateFrame(stream, window_increment=more).serialize())

    def of(self, stream):
        return self.streams.setdefault(stream, Heard())

    def answer(self, stream):
        """Waits for the end of a stream's answer, or its reset."""
        heard = self.of(stream)
        self.until(lambda: heard.ended or heard.reset is not None, f"the answer of stream {stream}")
        return heard

    def until(self, condition, what):
        end = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > end or not self.read():
                raise StackError(f"did not come: {what}; last frames {self.frames[-5:]}, "
                                 f"goaway {self.goaway}, closed {self.closed}")

    def until_closed(self):
        """The code of the GOAWAY that the connection ended with; None: it had none."""
        end = time.monotonic() + self._patience
        while self.read():
            if time.monotonic() > end:
                raise StackError("the connection stays open")
        return self.goaway

    def ping(self):
        """Everything that was sent so far has been dealt with."""
        self.send(PingFrame(opaque_data=b"penstock").serialize())
        before = self.frames.count("PingFrame ack")
        self.until(lambda: self.frames.count("PingFrame ack") > before, "the answer to a PING")

    def read(self, wait=None):
        """Takes what comes next; False: the connection has ended (or `wait` seconds passed)."""
        self.socket.settimeout(self._patience if wait is None else wait)
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        except (TimeoutError, BlockingIOError):
            if wait is None:
                raise
            return False
        finally:
            self.socket.settimeout(self._patience)
        if not data:
            self.closed = True
            return False
        self._data += data
        while len(self._data) >= 9:
            head, length = Frame.parse_frame_header(memoryview(self._data[:9]))
            if len(self._data) < 9 + length:
                break
            head.parse_body(memoryview(self._data[9:9 + length]))
            self._data = self._data[9 + length:]
            self._take(head)
        return True

    def _take(self, one):
        self.frames.append(type(one).__name__ + (" ack" if "ACK" in one.flags else ""))
        heard = self.of(one.stream_id)
        if isinstance(one, SettingsFrame) and "ACK" not in one.flags:
            self.send(SettingsFrame(flags=["ACK"]).serialize())
        elif isinstance(one, GoAwayFrame):
            self.goaway, self.last_stream = one.error_code, one.last_stream_id
        elif isinstance(one, RstStreamFrame):
            heard.reset = one.error_code
        elif isinstance(one, HeadersFrame):
            fields = dict(self._decoder.decode(one.data))
            if ":status" in fields:
                heard.headers = fields
            else:
                heard.trailers = fields
        elif isinstance(one, DataFrame):
            heard.body += one.data
            if self._open_windows and one.flow_controlled_length:
                self.window(0, one.flow_controlled_length)
                if "END_STREAM" not in one.flags:
                    self.window(one.stream_id, one.flow_controlled_length)
        if "END_STREAM" in one.flags:
            heard.ended = True

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
