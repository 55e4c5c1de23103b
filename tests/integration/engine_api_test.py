"""The engine as its clients meet it: the real binary, the embedded model, real sockets."""

import concurrent.futures
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from tests.support import stack
from tests.support.stack import MODEL, EventStream, StackError, StackTest, chat, request, wait_until

COMPLETIONS = "/v1/chat/completions"
ENGINE = os.path.join(stack.BINARIES, "penstock-engine")

with open(os.path.join(MODEL, "golden.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)["answers"]

# Slow enough to be met in the middle of an answer: about 10 ms a token and 24 more to come.
SLOW = {"device": "emulated", "more": ["--timing", "v100", "--speed", "0.5"]}


@contextlib.contextmanager
def slow_reader(address, body):
    """A client that has asked and read nothing of its answer but the first byte."""
    host, port = address.rsplit(":", 1)
    body = json.dumps(body).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(120)
        client.connect((host, int(port)))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                       b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        yield client, client.recv(1)


class EngineTest(StackTest):
    def engine(self, **options):
        """The address of a running engine."""
        self.engines = self.stack(engines=[options], start=False)
        self.engines.start_engine(0)
        self.address = self.engines.engine_addresses[0]
        return self.address

    def ask(self, question, timeout=60, **body):
        answer = request(self.address, "POST", COMPLETIONS, chat(question, **body), timeout=timeout)
        self.assertEqual(answer.status, 200, answer.error())
        return answer.json()

    def load(self):
        return request(self.address, "GET", "/load").json()


class AnswersTest(EngineTest):
    def check_golden(self, ranks):
        self.engine(ranks=ranks)

        def answer(case):
            return self.ask(case["question"])["choices"][0]

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            for case, choice in zip(GOLDEN, clients.map(answer, GOLDEN)):
                self.assertEqual(choice["message"]["content"], case["answer"], case["question"])
                self.assertEqual(choice["finish_reason"], case["finish_reason"], case["question"])

    def test_one_rank_gives_the_golden_answers(self):
        self.check_golden(1)

    def test_two_ranks_give_the_golden_answers(self):
        self.check_golden(2)

    def test_four_ranks_give_the_golden_answers(self):
        self.check_golden(4)

    def test_a_stream_says_the_same_as_a_whole_answer(self):
        self.engine()
        for case in GOLDEN[:8]:
            body = chat(case["question"], stream=True, stream_options={"include_usage": True})
            with EventStream(self.address, COMPLETIONS, body) as stream:
                events = [json.loads(event) for event in stream if event != "[DONE]"]
            self.assertTrue(stream.done)
            text = "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])
            self.assertEqual(text, case["answer"])
            self.assertEqual(events[-1]["choices"], [])
            self.assertEqual(events[-1]["usage"], self.ask(case["question"])["usage"])

    def test_the_tokens_of_a_prompt_and_its_logprobs_can_be_had(self):
        self.engine()
        case = GOLDEN[0]
        answer = request(self.address, "POST", "/v1/completions", {
            "model": "lexicon-5m", "prompt": case["prompt_ids"], "max_tokens": 3, "logprobs": 2, "temperature": 0})
        choice = answer.json()["choices"][0]
        self.assertTrue(case["answer"].startswith(choice["text"]), choice["text"])
        self.assertEqual(choice["finish_reason"], "length")
        for best, top in zip(choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]):
            self.assertEqual(len(top), 2)
            self.assertAlmostEqual(best, max(top.values()), places=4)

    def test_a_stop_string_ends_the_answer_before_it(self):
        self.engine()
        choice = self.ask("What is a turbine?", stop=["kinetic energy"])["choices"][0]
        self.assertEqual(choice["message"]["content"], "Turbine (noun): rotary engine in which the ")
        self.assertEqual(choice["finish_reason"], "stop")

    def test_a_stop_token_of_the_request_ends_the_answer_and_min_tokens_puts_ends_off(self):
        self.engine()
        usual = self.ask("What is a turbine?", logprobs=True)
        length = usual["usage"]["completion_tokens"]
        asked = {"model": "lexicon-5m", "prompt": GOLDEN[0]["prompt_ids"], "temperature": 0, "max_tokens": 60}
        ids = GOLDEN[0]["answer_ids"]
        stop = next(token for at, token in enumerate(ids) if at > 3 and token not in ids[:at])
        answer = request(self.address, "POST", "/v1/completions", {**asked, "stop_token_ids": [stop]}).json()
        self.assertEqual(answer["usage"]["completion_tokens"], ids.index(stop) + 1)
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        late = self.ask("What is a turbine?", min_tokens=length + 5, max_tokens=length + 40)
        self.assertGreater(late["usage"]["completion_tokens"], length + 5)
        self.assertTrue(late["choices"][0]["message"]["content"].startswith(usual["choices"][0]["message"]["content"]))
        refused = request(self.address, "POST", COMPLETIONS, chat("What?", min_tokens=9, max_tokens=8))
        self.assertEqual((refused.status, refused.json()["error"]["param"]), (400, "min_tokens"))

    def test_a_seed_repeats_an_answer(self):
        self.engine()
        asked = [self.ask("What is a river?", temperature=2, seed=seed)["choices"][0]["message"]["content"]
                 for seed in (5, 5, 6, 7, 8)]
        self.assertEqual(asked[0], asked[1])
        self.assertGreater(len(set(asked)), 1)


class SlowReaderTest(EngineTest):
    def long_engine(self):
        """An engine whose answers may be longer than what the system takes for a client that does not read."""
        folder = tempfile.mkdtemp(prefix="penstock-test-")
        self.addCleanup(shutil.rmtree, folder)
        model = os.path.join(folder, "lexicon-5m")
        shutil.copytree(MODEL, model)
        with open(os.path.join(model, "config.json"), encoding="utf-8") as config:
            changed = {**json.load(config), "max_position_embeddings": 1 << 16}
        with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as config:
            json.dump(changed, config)
        return self.engine(device="emulated", model=model, more=["--timing", "instant"])

    def read_late(self, more):
        """All that is sent to a client that first reads when the engine has nothing left to do."""
        body = chat("What is a turbine?", stream=True, **more)
        with slow_reader(self.address, body) as (client, answer):
            wait_until(lambda: self.load()["running"] == 0, "the engine is done", 120)
            with contextlib.suppress(ConnectionResetError):
                while part := client.recv(1 << 20):
                    answer += part
        return answer

    def metric(self, line):
        return line in request(self.address, "GET", "/metrics").body.decode()

    def test_a_reader_that_falls_behind_gets_the_whole_answer_in_fewer_events(self):
        self.long_engine()
        answer = self.read_late({"n": 4, "max_tokens": 9000, "stream_options": {"include_usage": True}})
        self.assertIn(b'"completion_tokens":36000', answer)
        self.assertRegex(answer[-2000:], rb"data: \[DONE\]\n\n\r\n0\r\nendpoint-load-metrics: [^\r]+\r\n\r\n$")
        self.assertLess(answer.count(b"data: "), 36000)
        self.assertTrue(self.metric('finish_reason="length"} 4\n'))

    def test_a_reader_too_slow_for_its_logprobs_is_counted_and_the_log_says_so(self):
        self.long_engine()
        answer = self.read_late({"n": 8, "max_tokens": 9000, "logprobs": True, "top_logprobs": 20})
        self.assertNotIn(b"[DONE]", answer)
        # Some may have come to their end before it was seen.
        wait_until(lambda: not self.metric('finish_reason="slow_client"} 0\n'), "they are counted")
        self.assertIn("its client reads too slowly", self.engines.logs())


class LoadTest(EngineTest):
    def test_a_client_that_leaves_frees_its_blocks(self):
        self.engine(**SLOW)
        stream = EventStream(self.address, COMPLETIONS, chat("What is a turbine?", stream=True, max_tokens=400))
        next(iter(stream))
        self.assertGreater(self.load()["kv_blocks_used"], 0)
        stream.close()
        load = wait_until(lambda: (load := self.load())["running"] == 0 and load, "the sequence is gone")
        self.assertEqual((load["kv_blocks_used"], load["waiting"]), (0, 0))

    def test_a_full_queue_says_when_to_come_back(self):
        slow = ["--max-running", "1", "--queue", "1", "--timing", "v100", "--speed", "0.5"]
        self.engine(device="emulated", more=slow)
        body = chat("What is a turbine?", max_tokens=400, stream=True)
        running = EventStream(self.address, COMPLETIONS, body)
        next(iter(running))
        with concurrent.futures.ThreadPoolExecutor(3) as clients:
            asked = [clients.submit(request, self.address, "POST", COMPLETIONS,
                                    chat("What is a river?", max_tokens=1)) for _ in range(3)]
            done, _ = concurrent.futures.wait(asked, return_when=concurrent.futures.FIRST_COMPLETED)
            refused = done.pop().result()
            running.close()
            answers = [future.result() for future in asked]
        self.assertEqual(refused.status, 429, refused.error())
        self.assertEqual(refused.json()["error"]["code"], "queue_full")
        self.assertGreaterEqual(int(refused.header("retry-after")), 1)
        self.assertIn(200, [answer.status for answer in answers])

    def test_the_pushed_stream_tells_of_work_and_of_its_end(self):
        # An answer that is over within the 20 ms between two lines is told by none of them.
        self.engine(**SLOW)
        with stack.RawConnection(self.address) as watch:
            watch.send(b"GET /load?watch=1 HTTP/1.1\r\nhost: engine\r\n\r\n")
            self.assertIn(b"application/x-ndjson", watch.read_until(b"\r\n\r\n"))
            self.assertIn(b'"running":0', watch.read_until(b"}\n"))
            self.ask("What is a turbine?", max_tokens=8)
            watch.read_until(b'"running":1')
            watch.read_until(b'"running":0')
            self.engines.engines[0].send(signal.SIGTERM)
            watch.read_until(b'"state":"draining"')
            watch.read_until(b"0\r\n\r\n")

    def test_an_emulated_engine_says_so_wherever_it_names_itself(self):
        self.engine(device="emulated", more=["--timing", "instant"])
        health = request(self.address, "GET", "/health").json()
        self.assertTrue(health["emulated"])
        self.assertIn("emulated", health["device"])
        self.assertEqual(self.load()["model"], "lexicon-5m-emulated")
        models = request(self.address, "GET", "/v1/models").json()["data"]
        self.assertEqual([model["id"] for model in models], ["lexicon-5m-emulated"])
        self.assertEqual(self.ask("What is a turbine?", max_tokens=2)["model"], "lexicon-5m-emulated")

    def test_a_longer_queue_comes_with_as_many_connections(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        self.engine(device="emulated", more=["--timing", "instant", "--queue", "1500"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        host, port = self.address.rsplit(":", 1)
        with contextlib.ExitStack() as clients:
            for _ in range(1100):
                clients.enter_context(socket.create_connection((host, int(port)), timeout=30))
            self.assertEqual(self.load()["state"], "ready")

    def test_a_length_is_promised_only_where_the_cache_holds_it(self):
        self.engine(more=["--kv-blocks", "4"])
        model = request(self.address, "GET", "/v1/models").json()["data"][0]
        self.assertEqual(model["max_model_len"], 65)
        answer = self.ask("What is a turbine?")
        self.assertLessEqual(answer["usage"]["total_tokens"], 65)

    def test_metrics_can_have_the_names_of_vllm(self):
        self.engine(device="emulated", more=["--timing", "instant", "--metrics-compat", "vllm"])
        text = request(self.address, "GET", "/metrics").body.decode()
        for name in ("vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{",
                     'vllm:cache_config_info{engine="0",model_name="lexicon-5m-emulated",block_size="16"'):
            self.assertIn(name, text)


class ProcessTest(EngineTest):
    def test_sigterm_finishes_what_runs_and_takes_nothing_new(self):
        self.engine(**SLOW)
        body = chat("What is a turbine?", stream=True, max_tokens=60)
        with EventStream(self.address, COMPLETIONS, body) as stream:
            tokens = stream.tokens()
            next(tokens)
            engine = self.engines.engines[0]
            engine.send(signal.SIGTERM)
            wait_until(lambda: self.load()["state"] == "draining", "it drains")
            refused = request(self.address, "POST", COMPLETIONS, chat("What is a river?"))
            self.assertEqual(refused.status, 503)
            self.assertEqual(refused.json()["error"]["code"], "draining")
            self.assertEqual(refused.header("connection"), "close")
            self.assertEqual(request(self.address, "GET", "/health").status, 503)
            self.assertGreater(len(list(tokens)), 10)
        self.assertEqual(engine.wait(10), 0)

    def test_sigterm_waits_until_a_slow_reader_has_its_answer(self):
        self.engine()
        # Some megabytes of JSON, more than the system takes for a client that does not read.
        body = chat("What is a turbine?", max_tokens=400, n=8, ignore_eos=True, logprobs=True, top_logprobs=20)
        with slow_reader(self.address, body) as (client, answer):
            engine = self.engines.engines[0]
            engine.send(signal.SIGTERM)
            wait_until(lambda: self.load()["state"] == "draining", "it drains")
            refused = request(self.address, "POST", COMPLETIONS, chat("What is a river?"))
            self.assertEqual(refused.status, 503)
            self.assertEqual(refused.json()["error"]["code"], "draining")
            self.assertEqual(refused.header("connection"), "close")
            self.assertEqual(request(self.address, "GET", "/health").status, 503)
            self.assertGreater(len(list(tokens)), 10)
        self.assertEqual(engine.wait(10), 0)

    def test_sigterm_waits_until_a_slow_reader_has_its_answer(self):
        self.engine()
        # Some megabytes of JSON, more than the system takes for a client that does not read.
        body = json.dumps(chat("What is a turbine?", max_tokens=400, n=8, ignore_eos=True,
                               logprobs=True, top_logprobs=20)).encode()
        host, port = self.address.rsplit(":", 1)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(120)
            client.connect((host, int(port)))
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                           b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            answer = client.recv(1)
            engine = self.engines.engines[0]
            engine.send(signal.SIGTERM)
            wait_until(lambda: self.load()["state"] == "draining", "it drains")
            # Longer than lies between a last answer and the exit, or the end of its connection.
            time.sleep(1.5)
            while part := client.recv(1 << 16):
                answer += part
        head, _, text = answer.partition(b"\r\n\r\n")
        self.assertIn(b" 200 ", head)
        self.assertGreater(len(text), 2 << 20)
        self.assertEqual(len(json.loads(text)["choices"]), 8)
        self.assertEqual(engine.wait(10), 0)

    def test_readers_of_its_load_that_come_one_behind_the_other_all_get_an_end(self):
        self.engine(device="emulated", more=["--timing", "instant"])
        with stack.RawConnection(self.address) as client:
            client.send(b"GET /load?watch=1 HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
            lines = client.read_until(b"}\n")
            self.engines.engines[0].send(signal.SIGTERM)
            lines += client.read_to_end()
        self.assertEqual(lines.count(b"\r\n0\r\n\r\n"), 3, lines)
        self.assertEqual(self.engines.engines[0].wait(10), 0)

    def test_asked_to_end_again_and_again_it_ends_well(self):
        self.engine(device="emulated", more=["--timing", "instant"])
        engine = self.engines.engines[0]
        while engine.ended() is None:
            engine.send(signal.SIGTERM)
        self.assertEqual(engine.ended(), 0)

    def test_what_does_not_end_in_time_is_cut_and_never_ends_cleanly(self):
        self.engine(device="emulated", more=["--timing", "v100", "--speed", "0.2", "--drain-seconds", "1"])
        body = chat("What is a turbine?", stream=True, max_tokens=400)
        with EventStream(self.address, COMPLETIONS, body) as stream:
            tokens = stream.tokens()
            next(tokens)
            self.engines.engines[0].send(signal.SIGTERM)
            with self.assertRaises(StackError):
                list(tokens)
        self.assertEqual(self.engines.engines[0].wait(10), 0)

    def run_engine(self, *arguments, **more):
        return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, timeout=30, check=False, **more)

    def test_what_cannot_work_is_one_line_and_status_1(self):
        self.engine(device="emulated")
        for arguments, words in (
                (["--model", "/nonexistent"], "/nonexistent: no such folder"),
                (["--model", MODEL, "--listen", self.address], "the port is in use"),
                (["--model", MODEL, "--listen", "somewhere"], "not an address"),
                (["--model", MODEL, "--listen", "127.0.0.1:0", "--tensor-parallel", "3"], "choose a divisor of 4")):
            ended = self.run_engine("serve", *arguments)
            self.assertEqual(ended.returncode, 1, ended.stderr)
            self.assertIn(words, ended.stderr)
            self.assertEqual(len(ended.stderr.strip().splitlines()), 1, ended.stderr)

    def test_memory_that_is_not_there_is_one_line_that_names_the_options(self):
        if stack.patient(1) > 1:
            self.skipTest("a sanitizer's shadow takes more address space than is left")

        def little_memory():
            resource.setrlimit(resource.RLIMIT_AS, (320 << 20, 320 << 20))

        for options, words in (
                (["--device", "cpu", "--step-tokens", "131072"], "lower --step-tokens"),
                (["--device", "cpu", "--kv-bytes", "4GiB", "--max-running", "10000"], "lower --kv-bytes"),
                (["--device", "emulated", "--kv-blocks", "16777216"], "lower --kv-blocks")):
            ended = self.run_engine("serve", "--model", MODEL, "--listen", "127.0.0.1:0", *options,
                                    "--log-level", "error", preexec_fn=little_memory)
            self.assertEqual(ended.returncode, 1, ended.stderr)
            self.assertIn(words, ended.stderr)
            self.assertEqual(len(ended.stderr.strip().splitlines()), 1, ended.stderr)

    def test_a_wrong_command_line_is_status_2(self):
        for arguments in ([], ["serve"], ["serve", "--model", MODEL, "--device", "abacus"],
                          ["serve", "--model", MODEL, "--speed", "0"], ["sing"]):
            self.assertEqual(self.run_engine(*arguments).returncode, 2, arguments)
        self.assertEqual(self.run_engine("--version").returncode, 0)
        self.assertEqual(self.run_engine("serve", "--help").returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
