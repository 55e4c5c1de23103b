"""./run as a newcomer types it: the tour, --once, --ask with engines alive and
killed, busy ports, and one line for what cannot work. All of it in a network
namespace of its own, so that nobody else's ports 8080 and 9901 matter."""

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

from config.setup.local_stack import ROOT
from tests.support.stack import BINARIES, EXIT_SKIPPED, MODEL, main, patient, request, wait_until

QUICKSTART = ["/usr/bin/python3", "config/setup/quickstart.py"]
PROXY, ADMIN = "127.0.0.1:8080", "127.0.0.1:9901"
PORTS = (8080, 9901, 9001, 9002, 9003)
INSIDE = "PENSTOCK_TEST_NAMESPACE"


def enter_namespace():
    """Starts this script again with a loopback device of its own, and nothing else."""
    if INSIDE in os.environ:
        siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
        with socket.socket() as sock:
            flags = struct.unpack("16sh", fcntl.ioctl(sock, siocgifflags, struct.pack("16sh", b"lo", 0)))[1]
            fcntl.ioctl(sock, siocsifflags, struct.pack("16sh", b"lo", flags | iff_up))
        return
    words = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode != 0:
        print("skipped: this machine gives out no network namespaces")
        sys.exit(EXIT_SKIPPED)
    os.execvpe(words[0], [*words, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def golden():
    with open(os.path.join(MODEL, "golden.json"), encoding="utf-8") as file:
        return {case["question"]: case["answer"] for case in json.load(file)["answers"]}


def taken_ports():
    def taken(port):
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0
    return [port for port in PORTS if taken(port)]


class RunTest(unittest.TestCase):
    def setUp(self):
        # A folder like a clone, with programs that were built already.
        folder = tempfile.TemporaryDirectory(prefix="penstock-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        for name in ("run", "config", "backend-engine"):
            os.symlink(os.path.join(ROOT, name), os.path.join(self.folder, name))
        os.mkdir(os.path.join(self.folder, "build"))
        os.symlink(BINARIES, os.path.join(self.folder, "build/bin"))

    def call(self, *words, **more):
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False,
                              timeout=patient(60), env={**os.environ, **more})

    def ask(self, question):
        return self.call(*QUICKSTART, f"--ask={question}")

    def require_one_line(self, ended, pattern):
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertRegex(ended.stderr, f"^penstock: error: {pattern}\n$")


class OnceTest(RunTest):
    def test_tells_the_answer_the_choice_and_the_cache_and_leaves_nothing_behind(self):
        ended = self.call(*QUICKSTART, "--once")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        question = "What is a turbine?"
        self.assertIn(f"{question}\n  {golden()[question]}\n", ended.stdout)
        chosen = re.search(r"taken by (\S+), the lowest score of 3 \(weighted_score: "
                           r"0\.6 \* latency \+ 0\.4 \* queue\)", ended.stdout)
        self.assertTrue(chosen, ended.stdout)
        rows = re.findall(r"^  (\S+)( \*)? +(\d\.\d{3}) +\d\.\d{3} +\d\.\d{3} ", ended.stdout, re.MULTILINE)
        self.assertEqual(len(rows), 3, ended.stdout)
        self.assertEqual([(name, score) for name, mark, score in rows if mark],
                         [(chosen[1], min(score for _, _, score in rows))])
        self.assertRegex(ended.stdout, r"asked again: .*\bhit\b")
        for address in (f"http://{PROXY}/v1/chat/completions", f"http://{ADMIN}/metrics", "/decisions/"):
            self.assertIn(address, ended.stdout)
        self.assertEqual(taken_ports(), [])

    def test_a_question_is_answered_alone(self):
        question, answer = list(golden().items())[-1]
        ended = self.ask(question)
        self.assertEqual((ended.returncode, ended.stdout), (0, answer + "\n"), ended.stderr)
        self.assertEqual(taken_ports(), [])


class UpTest(RunTest):
    def setUp(self):
        super().setUp()
        path = os.path.join(self.folder, "out")
        with open(path, "w", encoding="utf-8") as out:
            self.up = subprocess.Popen(QUICKSTART, cwd=self.folder, stdout=out, stderr=out)
        self.addCleanup(self.end)

        def said():
            with open(path, encoding="utf-8") as file:
                return file.read()
        self.said = said
        wait_until(lambda: "Ctrl-C stops everything." in said(), "it is up")

    def end(self):
        self.up.send_signal(signal.SIGINT)
        return self.up.wait(patient(30))

    def engines(self):
        """Port of each engine -> its process id."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                    words = file.read().split("\0")
                if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
                    continue
            except OSError:
                continue
            if words[0].endswith("/penstock-engine"):
                found[int(words[words.index("--listen") + 1].rsplit(":", 1)[1])] = int(pid)
        return found

    def test_answers_others_until_its_engines_are_gone(self):
        for question, answer in list(golden().items())[:6]:
            asked = self.ask(question)
            self.assertEqual((asked.returncode, asked.stdout, asked.stderr), (0, answer + "\n", ""))
        engines = self.engines()
        self.assertEqual(sorted(engines), [9001, 9002, 9003])
        os.kill(engines[9002], signal.SIGKILL)
        wait_until(lambda: "signal SIGKILL" in self.said(), "it is told")
        self.assertEqual(self.ask("What is a river?").returncode, 0)
        for port in (9001, 9003):
            os.kill(engines[port], signal.SIGKILL)
        self.require_one_line(self.ask("What is a river?"), "the proxy answered 50[23].*")
        self.assertEqual(self.end(), 0)
        self.assertEqual(taken_ports(), [])

    def test_a_policy_that_is_wrong_is_told_and_the_last_good_one_serves(self):
        policy = os.path.join(self.folder, ".run/policy.yaml")
        with open(policy, encoding="utf-8") as file:
            text = file.read()
        with open(policy, "w", encoding="utf-8") as file:
            file.write(text.replace("models:", "modls:"))

        def log():
            with open(os.path.join(self.folder, ".run/proxy.log"), encoding="utf-8") as file:
                return file.read()
        wait_until(lambda: "did you mean" in log(), "the typo is told")
        self.assertRegex(log(), r"policy\.yaml:\d+:\d+: .*modls.*did you mean.*models")
        self.assertEqual(self.ask("What is a river?").returncode, 0)
        metrics = request(ADMIN, "GET", "/metrics").body.decode().splitlines()
        self.assertIn("penstock_config_last_reload_successful 0", metrics)

    def test_a_second_one_says_who_is_up(self):
        for words in (("./run",), ("./run", "--once"), (*QUICKSTART, "--once")):
            self.require_one_line(self.call(*words), r"port \d+ is in use by the \./run that is up in this folder "
                                  rf"\(process {self.up.pid}\); stop it with Ctrl-C there, or ask it: .*")
        self.assertIsNone(self.up.poll())


class CannotTest(RunTest):
    def test_a_busy_port_is_one_line_with_its_holder(self):
        for port in PORTS:
            with socket.create_server(("127.0.0.1", port)):
                self.require_one_line(self.call("./run", "--once"), rf"port {port} is in use by .*"
                                      rf"\(process {os.getpid()}\); stop it and run this again")

    def test_a_missing_compiler_is_one_line(self):
        self.require_one_line(self.call("./run", "--once", CXX="/no/compiler"),
                              "'/no/compiler' is not on PATH; .*apt-get install .*unset CXX.*")

    def test_what_it_does_not_know_is_one_line(self):
        self.require_one_line(self.call("./run", "--onse"), "run: unknown option '--onse'; known are .*")
        self.require_one_line(self.call("./run", "--ask"), r"run: --ask needs a question: \./run --ask .*")


if __name__ == "__main__":
    enter_namespace()
    main()
