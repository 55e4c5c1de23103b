"""Very many connections at once, for compare.py: streams that must lose no byte, and
connections that do nothing but are there."""

import asyncio
import re
import socket
import subprocess
import time
import urllib.request


async def _stream(port, events, gap_ms, lost):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    try:
        writer.write(f"GET /events/{events}/{gap_ms} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):   # Shed, for example: told, and nothing lost.
            lost.append(head.split(b"\r\n")[0])
            return
        # The proxy may frame the chunks anew, but never the events.
        text = b""
        while not text.endswith(b"0\r\n\r\n"):
            data = await asyncio.wait_for(reader.read(65536), 120)
            if not data:
                break
            text += data
        whole = all(b"token %d\"" % number in text for number in range(events)) and b"[DONE]" in text
        if not whole:
            lost.append(len(text))
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
        lost.append(repr(error))
    finally:
        writer.close()


async def _streams(port, count, events, gap_ms, at_peak):
    lost, tasks = [], []
    for number in range(count):
        tasks.append(asyncio.create_task(_stream(port, events, gap_ms, lost)))
        if number % 100 == 99:
            await asyncio.sleep(0.02)   # A backlog is no subject of this.
    await asyncio.sleep(2)
    peak = at_peak()
    await asyncio.gather(*tasks)
    return lost, peak


def streams(port, count, events, gap_ms, at_peak):
    """`count` event streams side by side. Returns what was lost (empty: nothing), and
    what `at_peak()` said while all of them ran."""
    return asyncio.run(_streams(port, count, events, gap_ms, at_peak))


def h2_streams(port, origin, count, events, gap_ms, at_peak):
    """The same over HTTP/2, 100 streams a connection, so that the proxy's open files are those
    towards its origins. Returns what was lost and the peak, as streams() does."""
    path = f"/events/{events}/{gap_ms}"
    with urllib.request.urlopen(f"http://127.0.0.1:{origin}/events/{events}/0") as one:
        size = len(one.read())
    h2load = subprocess.Popen(["h2load", f"-n{count}", f"-c{count // 100}", "-m100", f"http://127.0.0.1:{port}{path}"],
                              stdout=subprocess.PIPE, text=True)
    time.sleep(events * gap_ms / 2000)
    peak = at_peak()
    said = h2load.communicate()[0]
    good = int(re.search(r"status codes: (\d+) 2xx", said)[1])
    data = int(re.search(r"\((\d+)\) data", said)[1])
    if (good, data) == (count, count * size):
        return [], peak
    return [f"{good} answers of {count}, {data} bytes of {count * size}"], peak


def idle(port, count, while_idle):
    """`count` connections that each got one answer and stay; returns while_idle()."""
    connections = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 10)
            connections.append(connection)
            connection.sendall(b"GET /bytes/2 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            got = b""
            while not got.endswith(b"\r\n\r\nxx"):
                data = connection.recv(4096)
                if not data:
                    raise SystemExit(f"port {port} closed connection {len(connections)}: {got!r}")
                got += data
        time.sleep(1)
        return while_idle()
    finally:
        for connection in connections:
            connection.close()


def first_bytes(port, body, count):
    """Seconds from a whole POST to the first event of its answer, one request at a time."""
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n").encode()
    taken = []
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begin = time.perf_counter()
            connection.sendall(head + body)
            got = b""
            while b"data: " not in got:
                data = connection.recv(65536)
                if not data:
                    raise SystemExit(f"port {port} closed the connection: {got!r}")
                got += data
            taken.append(time.perf_counter() - begin)
            while not got.endswith(b"0\r\n\r\n"):
                got += connection.recv(65536)
    return taken
