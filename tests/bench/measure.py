"""What compare.py measures with: processes and their CPU time and memory, and loads.

CPU time is that of a proxy's whole process tree, user and system, from /proc: it does
not depend on how busy the other core is, as throughput and latency do.
"""

import contextlib
import os
import re
import socket
import subprocess
import time
import urllib.request

_TICKS = os.sysconf("SC_CLK_TCK")


def _tree(pid):
    found, todo = [], [pid]
    while todo:
        process = todo.pop()
        found.append(process)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{thread}/children", encoding="ascii") as children:
                    todo += [int(child) for child in children.read().split()]
    return found


def cpu_seconds(pid):
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pid):
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/status", encoding="ascii") as status:
            if match := re.search(r"VmRSS:\s+(\d+)", status.read()):
                total += int(match[1]) * 1024
    return total


@contextlib.contextmanager
def running(command, port=None):
    """A process for as long as the block; it has `port` open when the block begins."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            if port:
                _wait_for(process, command, port)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process, command, port):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{command[0]} ended with {process.returncode}: {' '.join(command)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"{command[0]} does not listen on {port}")


def answered(ports):
    """How many requests the origins of compare.py have answered."""
    total = 0
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=10) as answer:
            total += int(answer.read())
    return total


def wrk(url, seconds, connections, script=None):
    """Requests that were answered well. Fails where one was not."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    if script:
        command += ["-s", script]
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", said)[1])
    if trouble := re.search(r"(Socket errors|Non-2xx).*", said):
        print(f"    {url}: {trouble[0]}")
    return requests


def h2load(url, seconds, connections, streams):
    said = subprocess.run(["h2load", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0", url],
                          capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", said)
    if int(match[2]) + int(match[3]):
        print(f"    {url}: {match[0]}")
    return int(match[1])
