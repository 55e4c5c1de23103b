#!/usr/bin/env python3
"""What a proxied request costs: ours beside nginx, HAProxy, nghttpx and Envoy, in one run.

Every proxy has one worker and stands in front of the same two origins; each takes the
same load in turn, round by round, and what is compared is its own CPU time per request
(per event for streams). Ratios of one run mean something on a noisy machine, single
figures do not. `relay` copies bytes and is the floor for HTTP/1.

    tests/bench/compare.py [--secs 5] [--rounds 3] [--only h1-200,sse] [--peers penstock,nginx] [--json FILE]

Needs nginx, haproxy, wrk, nghttp2-client, nghttp2-server and nghttp2-proxy of Debian;
Envoy comes from PyPI. The release build with -DPENSTOCK_BENCHMARKS=ON makes the rest.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import tempfile

import crowd
import measure
import peers
from peers import H2_ORIGINS, ORIGINS, Case

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EVENTS = 100
BIG_PROMPT = json.dumps({"model": "any", "temperature": 0.7, "stream": True,
                         "messages": [{"role": "user", "content": "a word " * 32000}]}).encode()
# A stream takes a proxy two open files, towards the client and towards the origin.
STREAMS = min(10_000, peers.CONNECTIONS - 100)
IDLE = min(10_000, peers.CONNECTIONS - 100)   # Ours keeps a descriptor for the backend of each.

def wrk(path, connections=64, scheme="http", script=None):
    return lambda port, secs, folder: measure.wrk(f"{scheme}://127.0.0.1:{port}{path}", secs, connections,
                                                  script and os.path.join(folder, script))


def h2load(path, scheme="http"):
    return lambda port, secs, _: measure.h2load(f"{scheme}://127.0.0.1:{port}{path}", secs, 8, 8)


def wrk_events(port, secs, folder):
    return EVENTS * wrk(f"/events/{EVENTS}/2")(port, secs, folder)


# name: front, back, unit, load(port, secs, folder) -> how many units were served.
CASES = {
    "h1-200": ("h1", "h1", "request", wrk("/bytes/200")),
    "h1-16k": ("h1", "h1", "request", wrk("/bytes/16384")),
    "h2-h1": ("h2", "h1", "request", h2load("/bytes/200")),
    "h2-h2": ("h2", "h2", "request", h2load("/small")),
    "tls-h1": ("tls", "h1", "request", wrk("/bytes/200", scheme="https")),
    "tls-h2": ("h2tls", "h1", "request", h2load("/bytes/200", scheme="https")),
    "sse": ("h1", "h1", "event", wrk_events),
    "body-220k": ("h1", "h1", "request", wrk("/v1/chat/completions", 150, script="post.lua")),
}
SPECIAL = ("streams-10k", "h2-streams-10k", "idle-10k", "first-token-220k")


@contextlib.contextmanager
def origins(folder):
    binary = os.path.join(ROOT, "build/bin/origin")
    if not os.path.exists(binary):
        raise SystemExit("build/bin/origin is missing: "
                         "cmake --preset release -DPENSTOCK_TESTS=ON -DPENSTOCK_BENCHMARKS=ON "
                         "&& ninja -C build origin relay")
    with open(os.path.join(folder, "small"), "w", encoding="ascii") as file:
        file.write("x" * 200)
    with open(os.path.join(folder, "post.lua"), "w", encoding="ascii") as file:
        file.write(f"wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\n"
                   f"wrk.body = [==[{BIG_PROMPT.decode()}]==]\n")
    with contextlib.ExitStack() as stack:
        for port in ORIGINS:
            stack.enter_context(measure.running([binary, str(port)], port))
        for port in H2_ORIGINS:
            stack.enter_context(measure.running(["nghttpd", "--no-tls", "-d", folder, str(port)], port))
        yield


def run_case(name, proxies, secs, rounds, folder):
    """peer -> the median of CPU microseconds a unit."""
    front, back, unit, load = CASES[name]
    case, found = Case(front, back, folder), {}
    with contextlib.ExitStack() as stack:
        started = {}
        for peer in proxies:
            if command := peer.command(case):
                started[peer] = stack.enter_context(measure.running(command, peer.port))
        for _ in range(rounds):
            for peer, process in started.items():
                load(peer.port, 1, folder)
                reached, before = measure.answered(ORIGINS), measure.cpu_seconds(process.pid)
                served = load(peer.port, secs, folder)
                used, reached = measure.cpu_seconds(process.pid) - before, measure.answered(ORIGINS) - reached
                if back == "h1" and reached * (EVENTS if unit == "event" else 1) < served:
                    raise SystemExit(f"{name}: {peer.name} answered {served}, the origins {reached}")
                found.setdefault(peer.name, []).append(1e6 * used / max(served, 1))
    return {peer: statistics.median(values) for peer, values in found.items()}


def run_special(name, proxies, folder):
    """peer -> a figure; its unit is in the name of the row."""
    case, found = Case("h2" if name.startswith("h2") else "h1", "h1", folder), {}
    for peer in proxies:
        command = peer.command(case)
        if command is None or peer.name == "relay":
            continue
        with measure.running(command, peer.port) as process:
            if not case.h2:
                crowd.idle(peer.port, 50, lambda: None)   # Whatever is made on first use is made.
            before = measure.resident_bytes(process.pid)
            grown = lambda: measure.resident_bytes(process.pid) - before   # noqa: E731, read at once.
            if name == "streams-10k":
                lost, peak = crowd.streams(peer.port, STREAMS, 20, 3000, grown)
                found[peer.name] = peak / 1024 / STREAMS
                if lost:
                    print(f"    {name}: {peer.name} did not give {len(lost)} streams whole, the first: {lost[0]}")
            elif name == "h2-streams-10k":
                lost, peak = crowd.h2_streams(peer.port, ORIGINS[0], 10_000, 20, 1500, grown)
                found[peer.name] = peak / 1024 / 10_000
                if lost:
                    print(f"    {name}: {peer.name} gave {lost[0]}")
            elif name == "idle-10k":
                found[peer.name] = crowd.idle(peer.port, IDLE, grown) / 1024 / IDLE
            else:
                direct = statistics.median(crowd.first_bytes(ORIGINS[0], BIG_PROMPT, 100))
                found[peer.name] = 1e6 * (statistics.median(crowd.first_bytes(peer.port, BIG_PROMPT, 100)) - direct)
    return found


UNITS = {"streams-10k": "KiB a stream", "h2-streams-10k": "KiB a stream", "idle-10k": "KiB a connection",
         "first-token-220k": "us added, median"}


def show(name, unit, found):
    ours = found.get("penstock")
    print(f"{name} ({unit})")
    for peer, value in sorted(found.items(), key=lambda item: item[1]):
        ratio = f"{ours / value:6.2f} of it are ours" if ours and peer != "penstock" and value > 0 else ""
        print(f"  {peer:10} {value:10.2f}  {ratio}")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penstock", default=os.path.join(ROOT, "build/bin/penstock"))
    parser.add_argument("--secs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of cases, separated by commas")
    parser.add_argument("--peers", help="names of proxies, separated by commas")
    parser.add_argument("--json", help="a file for the figures")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [*CASES, *SPECIAL]
    for name in wanted:
        if name not in CASES and name not in SPECIAL:
            parser.error(f"no case {name!r}; there are {', '.join([*CASES, *SPECIAL])}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    proxies = [peers.Penstock(options.penstock), peers.Nginx(), peers.HAProxy(), peers.Nghttpx(),
               peers.Envoy(os.path.join(ROOT, ".venv/envoy")), peers.Relay(os.path.join(ROOT, "build/bin/relay"))]
    if options.peers:
        proxies = [peer for peer in proxies if peer.name in options.peers.split(",")]
    figures = {}
    with tempfile.TemporaryDirectory(prefix="penstock-compare-") as folder:
        os.chmod(folder, 0o755)   # nginx's worker reads the certificate as somebody else.
        peers.make_certificate(folder)
        os.chmod(os.path.join(folder, "key.pem"), 0o644)
        with origins(folder):
            for name in wanted:
                if name in CASES:
                    figures[name] = run_case(name, proxies, options.secs, options.rounds, folder)
                    show(name, f"CPU us a {CASES[name][2]}", figures[name])
                else:
                    figures[name] = run_special(name, proxies, folder)
                    show(name, UNITS[name], figures[name])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
