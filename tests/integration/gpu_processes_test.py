"""One engine over GPUs of several processes: real processes on the loopback, each with
emulated GPUs, that meet, answer, lose one another and end."""

import json
import os
import shutil
import signal
import socket
import tempfile
import unittest

from config.setup import local_stack
from tests.support import stack
from tests.support.stack import MODEL, EventStream, StackError, chat, patient, request, wait_until

ENGINE = os.path.join(stack.BINARIES, "penstock-engine-emulated-gpu")
COMPLETIONS = "/v1/chat/completions"
# A lost process is named within 5 s of silence; the rest is for a slow machine.
NOTICED_SECONDS = 20

with open(os.path.join(MODEL, "golden.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)["answers"]


class ProcessesTest(unittest.TestCase):
    def setUp(self):
        if not os.path.exists(ENGINE):
            self.skipTest("a build with CUDA has no emulated GPUs")
        self.folder = tempfile.mkdtemp(prefix="penstock-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.processes = []
        self.addCleanup(self._stop)
        port, api = stack.free_ports(2)
        self.meeting, self.api = f"127.0.0.1:{port}", f"127.0.0.1:{api}"

    def _stop(self):
        outcome = self._outcome.result
        failed = any(test is self for test, _ in outcome.errors + outcome.failures)
        for process in self.processes:
            process.send(signal.SIGCONT)
            process.kill()
            with open(process.log, encoding="utf-8", errors="replace") as log:
                said = log.read()
            if failed:
                print(f"--- {process.name}\n{said}", flush=True)
            self.assertNotIn("Sanitizer: ", said)

    def start(self, index, ranks=2, nnodes=2, listen=None, timeout=120, more=()):
        group = ["--nnodes", str(nnodes), "--node-rank", str(index), "--dist-init-addr", self.meeting]
        process = local_stack.Process(
            f"process {index}",
            [ENGINE, "serve", "--model", MODEL, "--listen", listen or self.api, "--device", "cuda",
             "--tensor-parallel", str(ranks), "--step-tokens", "64", "--max-running", "2",
             "--kv-blocks", "64", "--dist-timeout", str(timeout), *(group if nnodes > 1 else []), *more],
            os.path.join(self.folder, f"process-{len(self.processes)}.log"))
        self.processes.append(process)
        return process

    def start_all(self, ranks=2, more=()):
        second, first = self.start(1, ranks, more=more), self.start(0, ranks, more=more)
        local_stack.wait_ready(first, self.api, "/health")
        self.wait_for_line(second, "ready: ranks")
        return first, second

    def wait_for_line(self, process, text):
        def said():
            with open(process.log, encoding="utf-8", errors="replace") as log:
                return text in log.read()
        wait_until(said, f"{text!r} of {process.name}, which said last: {process.last_words()}", 60)

    def wait_for_end(self, process, status):
        process.wait(patient(NOTICED_SECONDS))
        self.assertEqual(process.ended(), status, process.last_words())

    def answer(self, case, api=None, **body):
        answer = request(api or self.api, "POST", COMPLETIONS, chat(case["question"], temperature=0, **body),
                         timeout=120)
        self.assertEqual(answer.status, 200, answer.error())
        return answer.json()["choices"][0]["message"]["content"]

    def state(self):
        return request(self.api, "GET", "/load").json()["state"]


class AnswersTest(ProcessesTest):
    def check_golden(self, ranks):
        self.start_all(ranks)
        for case in GOLDEN[:2]:
            text = self.answer(case, max_tokens=8)
            self.assertGreater(len(text), 8)
            self.assertTrue(case["answer"].startswith(text), f"{text!r} is not how {case['answer']!r} begins")
        self.assertEqual(request(self.api, "GET", "/load").json()["state"], "ready")

    def test_two_processes_of_one_rank_give_the_golden_answers(self):
        self.check_golden(2)

    def test_two_processes_of_two_ranks_give_the_golden_answers(self):
        self.check_golden(4)

    def test_two_processes_answer_as_one_does(self):
        self.start_all(2)
        other = f"127.0.0.1:{stack.free_ports(1)[0]}"
        alone = self.start(0, ranks=1, nnodes=1, listen=other)
        local_stack.wait_ready(alone, other, "/health")
        for case in GOLDEN[2:4]:
            self.assertEqual(self.answer(case, max_tokens=12), self.answer(case, api=other, max_tokens=12))


class LossTest(ProcessesTest):
    def require_failed(self, first, reason):
        wait_until(lambda: self.state() == "failed", "process 0 says that it has failed", NOTICED_SECONDS)
        health = request(self.api, "GET", "/health")
        self.assertEqual(health.status, 503)
        answer = request(self.api, "POST", COMPLETIONS, chat("What is a turbine?"), timeout=30)
        self.assertGreaterEqual(answer.status, 500)
        self.wait_for_line(first, reason)
        first.send(signal.SIGTERM)  # And it still ends when it is told to.
        self.wait_for_end(first, 0)

    def test_an_idle_engine_fails_when_a_process_is_killed(self):
        first, second = self.start_all()
        second.kill()
        self.require_failed(first, "process 1 has ended")

    def test_an_idle_engine_fails_when_a_process_hangs(self):
        first, second = self.start_all()
        second.send(signal.SIGSTOP)
        self.require_failed(first, "process 1 has been silent for more than 5 s")

    def test_an_answer_in_progress_ends_with_an_error_when_a_process_is_killed(self):
        first, second = self.start_all()
        stream = EventStream(self.api, COMPLETIONS,
                             chat("What is a turbine?", stream=True, temperature=0, ignore_eos=True, max_tokens=400),
                             None, 60)
        self.addCleanup(stream.close)
        events = iter(stream)
        next(events)
        second.kill()
        rest = []
        with self.assertRaises(StackError):  # An answer that is not whole is cut, too.
            for event in events:
                rest.append(event)
        self.assertFalse(stream.done)
        self.assertIn("process 1 has ended", json.loads(rest[-1])["error"]["message"])
        self.require_failed(first, "process 1 has ended")

    def test_the_others_end_with_a_line_and_status_1_when_the_first_is_killed(self):
        first, second = self.start_all()
        first.kill()
        self.wait_for_end(second, 1)
        self.assertEqual(second.last_words(), "penstock-engine: process 0 has ended")

    def test_all_stop_with_status_0_when_all_are_told_to(self):
        first, second = self.start_all()
        second.send(signal.SIGTERM)
        self.wait_for_line(second, "stopping when process 0 has, or in 30 s")
        self.assertIsNone(second.ended())
        self.answer(GOLDEN[0], max_tokens=2)  # Until the first has stopped, too, the ranks are there.
        first.send(signal.SIGTERM)
        self.wait_for_end(first, 0)
        self.wait_for_end(second, 0)


class MeetingTest(ProcessesTest):
    def test_strangers_at_the_meeting_are_turned_away_with_a_word(self):
        first = self.start(0)
        self.wait_for_line(first, "for processes 1")
        host, port = self.meeting.split(":")
        with socket.create_connection((host, int(port)), patient(10)) as stranger:
            stranger.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 5000)
            said = b""
            while part := stranger.recv(4096):
                said += part
        self.assertIn(b"processes of one engine meet here", said)
        self.wait_for_line(first, "was turned away: it does not speak as a process of this group does")
        self.start(1)
        local_stack.wait_ready(first, self.api, "/health")
        # Once all have met, nobody else is listened to.
        with self.assertRaises(OSError):
            socket.create_connection((host, int(port)), patient(2)).close()

    def test_processes_that_are_not_alike_are_both_told_so(self):
        second, first = self.start(1, more=["--block-tokens", "32"]), self.start(0)
        for process in (first, second):
            self.wait_for_end(process, 1)
            self.assertIn("block tokens 32", process.last_words())
            self.assertIn("block tokens 16", process.last_words())

    def test_another_program_at_the_address_is_named(self):
        with socket.create_server(tuple(self.meeting.split(":"))[:1] + (int(self.meeting.split(":")[1]),)) as server:
            second = self.start(1)
            server.settimeout(patient(30))
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self.wait_for_end(second, 1)
            connection.close()
        self.assertIn("is another program, or another version of penstock-engine", second.last_words())

    def test_a_process_that_nobody_joins_says_who_is_missing(self):
        first = self.start(0, timeout=1)
        self.wait_for_end(first, 1)
        self.assertIn("within 1 s; missing: 1", first.last_words())


if __name__ == "__main__":
    stack.main()
