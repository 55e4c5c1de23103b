"""What ./run does once everything is built: three engines and the proxy, one
question through them, what happened on the way, and where to look next.

usage: quickstart.py [--before-build] [--once | --ask QUESTION]

--before-build only says whether the ports are free (0), taken (1), or held by
another ./run of this folder that can be asked (3).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import local_stack  # noqa: E402
from local_stack import ROOT, EventStream, StackError, chat, request  # noqa: E402

PROXY, ADMIN = "127.0.0.1:8080", "127.0.0.1:9901"
ENGINES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
QUESTION = "What is a turbine?"
RIGHT = ("Turbine (noun): rotary engine in which the kinetic energy of a moving fluid is converted "
         "into mechanical energy by causing a bladed rotor to rotate.")
RUN_DIR = os.path.join(ROOT, ".run")
POLICY = os.path.join(RUN_DIR, "policy.yaml")
RUNNING = os.path.join(RUN_DIR, "pid")  # Of the ./run that is up, if one is.
EXIT_CAN_BE_ASKED = 3


class Stopped(Exception):
    """Somebody wants us to end: Ctrl-C, SIGTERM or a closed terminal."""


def progress(text):
    print(f"penstock: {text}", file=sys.stderr, flush=True)


# --- another ./run of this folder ----------------------------------------------


def running_pid():
    """The process id of the ./run of this folder that is up, or None."""
    try:
        with open(RUNNING, encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return pid if "quickstart.py" in file.read() else None
    except (OSError, ValueError):
        return None


def require_free_ports():
    for address in [PROXY, ADMIN, *ENGINES]:
        port = int(address.rsplit(":", 1)[1])
        if local_stack.port_is_free(port):
            continue
        other = running_pid()
        if other:
            raise StackError(f"port {port} is in use by the ./run that is up in this folder (process {other}); "
                             "stop it with Ctrl-C there, or ask it: ./run --ask 'What is a river?'")
        holder = local_stack.port_holder(port) or "another program"
        raise StackError(f"port {port} is in use by {holder}; stop it and run this again")


def before_build(options):
    if options.ask is not None and running_pid():
        return EXIT_CAN_BE_ASKED
    require_free_ports()
    return 0


# --- the stack -----------------------------------------------------------------


def start(processes):
    """Starts everything, appending to `processes` so that the caller can stop it."""
    os.makedirs(RUN_DIR, exist_ok=True)
    shutil.copyfile(os.path.join(ROOT, "config/quickstart.yaml"), POLICY)
    binaries = os.path.join(ROOT, "build/bin")
    begun = time.monotonic()
    for address in ENGINES:
        log = os.path.join(RUN_DIR, f"engine-{address.rsplit(':', 1)[1]}.log")
        processes.append(local_stack.engine_process(binaries, address, log))
    for address, engine in zip(ENGINES, processes):
        local_stack.wait_ready(engine, address, "/health")
    proxy = local_stack.proxy_process(binaries, POLICY, os.path.join(RUN_DIR, "proxy.log"))
    processes.insert(0, proxy)  # First to stop, so that nothing is sent to an engine that leaves.
    local_stack.wait_ready(proxy, ADMIN, "/readyz")
    local_stack.wait_for_reports(proxy, ADMIN)
    for process in processes:
        process.require_alive()
    progress(f"3 engines ({', '.join(ENGINES)}; tensor parallel 2, CPU) and the proxy are ready "
             f"after {time.monotonic() - begun:.1f} s")


def ask(body, show):
    """Asks through the proxy; `show` gets each piece. Returns (answer, headers, seconds)."""
    begun = time.monotonic()
    with EventStream(PROXY, "/v1/chat/completions", body) as stream:
        if stream.status != 200:
            raise StackError(f"the proxy answered {stream.error()}")
        pieces = []
        for piece in stream.tokens():
            pieces.append(piece)
            show(piece)
        return "".join(pieces), stream.headers, time.monotonic() - begun


# --- what happened ---------------------------------------------------------------


def table(rows):
    """Rows of equal length as aligned lines; the first is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]


def tell_decision(request_id):
    """Which backend took the request, and the terms of every candidate's score."""
    answer = request(ADMIN, "GET", f"/decisions/{request_id}")
    if answer.status != 200:
        print(f"why that backend: the proxy does not say ({answer.error()})")
        return
    decision = answer.json()["decisions"][-1]  # The try that was answered.
    rows = [["backend", "score", "latency", "queue", "load reported", "signal"]]
    for candidate in decision["candidates"]:
        signal_ = candidate["signal"]
        rows.append([candidate["backend"] + (" *" if candidate["chosen"] else ""),
                     f"{candidate['score']:.3f}", f"{candidate['terms']['latency']:.3f}",
                     f"{candidate['terms']['queue']:.3f}", f"{candidate['reported_total']:g}",
                     signal_["rung"] + ("" if signal_["age_s"] is None else f", {signal_['age_s'] * 1000:.0f} ms old")])
    print(f"taken by {decision['chosen']}, the lowest score of {decision['candidate_count']} "
          f"({decision['algorithm']}: 0.6 * latency + 0.4 * queue)")
    print("\n".join(table(rows)))


def tell_cache(first_seconds):
    _, headers, seconds = ask(chat(QUESTION, stream=True), lambda piece: None)
    print(f"asked again: {headers.get('Cache-Status', 'no Cache-Status header')}"
          f"  ({seconds * 1000:.1f} ms, the first time {first_seconds * 1000:.0f} ms)")


def tell_addresses(engine):
    print(f"""
API       http://{PROXY}/v1/chat/completions  and  /v1/models
metrics   http://{ADMIN}/metrics
admin     http://{ADMIN}/backends  /decisions/REQUEST-ID  /cache  /config
policy    .run/policy.yaml  (edit and save it: the proxy reloads it, or says what is wrong)
logs      .run/*.log

try next
  curl -N {PROXY}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{json.dumps(chat("What is a river?", stream=True))}'
  curl -s {ADMIN}/backends
  kill -9 {engine.pid}    # {engine.name}; and ask again: the other two go on""")


def tour(processes):
    """Asks the question, tells what happened. Returns whether the answer was right."""
    print(f"\n{QUESTION}\n  ", end="", flush=True)
    answer, headers, seconds = ask(chat(QUESTION, stream=True),
                                   lambda piece: print(piece, end="", flush=True))
    print("\n")
    tell_decision(headers.get("x-request-id", ""))
    tell_cache(seconds)
    tell_addresses(processes[-1])
    if answer != RIGHT:
        progress(f"error: that answer is wrong; it should be: {RIGHT}")
    return answer == RIGHT


def answer_alone(question):
    """Prints the answer once it is whole, and nothing else."""
    body = chat(question, stream=True)
    # Greedy is this model's default; only a temperature in the request lets the
    # cache answer, and this is to come from an engine.
    del body["temperature"]
    print(ask(body, lambda piece: None)[0], flush=True)
    return True


def stay(processes):
    print("\nCtrl-C stops everything.", flush=True)
    alive = list(processes)
    while True:
        time.sleep(0.5)
        for process in [process for process in alive if process.ended() is not None]:
            alive.remove(process)
            if process is processes[0]:
                raise StackError(f"{process.obituary()}; the engines are stopped too")
            progress(process.obituary())


def serve(options):
    def stop(number, _):
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    require_free_ports()
    processes = []
    try:
        start(processes)
        with open(RUNNING, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        right = tour(processes) if options.ask is None else answer_alone(options.ask)
        if not options.once:
            stay(processes)
        return 0 if right else 1
    except Stopped as stopped:
        progress(f"{stopped}: stopping everything")
        return 1 if options.once else 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        local_stack.stop_all(processes)
        if running_pid() == os.getpid():
            os.remove(RUNNING)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--before-build", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--ask")
    options = parser.parse_args()
    options.once = options.once or options.ask is not None
    try:
        if options.before_build:
            return before_build(options)
        if options.ask is not None and running_pid():
            return 0 if answer_alone(options.ask) else 1
        return serve(options)
    except StackError as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 1


if __name__ == "__main__":
    sys.exit(main())
