"""A real proxy whose policy file changes, and one that is told to end: what stays
in force, what is told, and that no request notices."""

import contextlib
import os
import signal
import subprocess
import threading
import time

from tests.support.fake_backend import FakeBackend
from tests.support.load import Load
from tests.support.stack import BINARIES, StackError, StackTest, chat, main, request, wait_until

POLICY = """\
version: v1
server:
  listeners: [{address: {listen}, debug_headers: true}]
  admin: {address: {admin}}
  workers: 2
%spools:
  - name: lexicon
    models: [%s]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
    load_balancing: {algorithm: round_robin}
"""


def policy(model="lexicon-5m", server=""):
    return POLICY % (server, model)


class ProxyTest(StackTest):
    def start(self, script=None, backends=1, text=None, **more):
        self.backends = [FakeBackend(script) for _ in range(backends)]
        for backend in self.backends:
            self.addCleanup(backend.close)
        self.backend = self.backends[0]
        self.proxy = self.stack(engines=0, policy=text or policy(), backends=[b.address for b in self.backends],
                                **more)
        return self.proxy

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            return log.read()

    def models(self):
        return [model["id"] for model in self.proxy.request("GET", "/v1/models").json()["data"]]

    def reloads(self, result):
        return self.proxy.metric("penstock_config_reloads_total", result=result)

    def ready(self):
        try:
            answer = request(self.proxy.admin_address, "GET", "/readyz")
        except StackError:
            return 0
        return answer.status


class ReloadTest(ProxyTest):
    def test_a_changed_file_and_a_signal_are_taken(self):
        self.start()
        self.assertEqual((self.reloads("accepted"), self.reloads("rejected")), (0, 0))
        self.proxy.write_policy(policy("second"))
        wait_until(lambda: self.models() == ["second"], "the file is seen to change", 10)
        # Written in place, and then told; the same contents again are no harm.
        with open(self.proxy.policy_file, encoding="utf-8") as file:
            text = file.read()
        with open(self.proxy.policy_file, "w", encoding="utf-8") as file:
            file.write(text.replace("second", "third"))
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: self.models() == ["third"], "the signal is heard", 10)
        self.assertEqual(self.reloads("rejected"), 0)
        self.assertEqual(self.proxy.metric("penstock_config_last_reload_successful"), 1)
        self.assertIn("is in force", self.log())
        self.assertEqual(self.proxy.chat("hello?", ).status, 404)

    def test_a_swapped_symbolic_link_is_a_change(self):
        # As Kubernetes mounts a ConfigMap: policy.yaml -> ..data/policy.yaml, ..data -> a folder.
        self.start(start=False)
        stack = self.proxy
        folders = [os.path.join(stack.folder, name) for name in ("..one", "..two")]
        with open(stack.policy_file, encoding="utf-8") as file:
            text = file.read()
        for folder, model in zip(folders, ("first", "second")):
            os.mkdir(folder)
            with open(os.path.join(folder, "policy.yaml"), "w", encoding="utf-8") as file:
                file.write(text.replace("lexicon-5m", model))
        data = os.path.join(stack.folder, "..data")
        os.symlink(folders[0], data)
        os.unlink(stack.policy_file)
        os.symlink("..data/policy.yaml", stack.policy_file)
        stack.start()
        self.assertEqual(self.models(), ["first"])
        os.symlink(folders[1], data + ".new")
        os.rename(data + ".new", data)
        wait_until(lambda: self.models() == ["second"], "the link is seen to change", 10)

    def test_a_bad_file_keeps_the_last_good_one(self):
        self.start()
        bad = [policy() + "unknown: 1\n", "", "version: v1\npools: [", policy().replace("v1", "v9"),
               policy("second") + "    weight: 3\n", "\0\xff\n",
               policy("second").replace("- name: lexicon", "- name: ''")]
        for count, text in enumerate(bad, 1):
            self.proxy.write_policy(text)
            self.proxy.proxy.send(signal.SIGHUP)
            wait_until(lambda: self.reloads("rejected") >= count, f"file {count} is refused", 10)
        self.assertEqual(self.models(), ["lexicon-5m"])
        self.assertEqual(self.proxy.chat("hello?").status, 200)
        self.assertEqual(self.proxy.metric("penstock_config_last_reload_successful"), 0)
        self.assertRegex(self.log(), "policy reload .* rejected, the last good policy stays: .*policy.yaml:1[0-9]:1: "
                                     "unknown")
        # Several mistakes stand in one line of the log, one behind the other.
        self.proxy.write_policy(policy().replace("backends:", "backend:"))
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: 'unknown field "backend"' in self.log(), "two mistakes are told", 10)
        self.assertRegex(self.log(), r'has no "backends", which is required; [^\n]*unknown field "backend"; '
                                     r'did you mean "backends"\?\n')
        os.unlink(self.proxy.policy_file)
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: "rejected, the last good policy stays" in self.log().splitlines()[-1]
                   and "policy.yaml" in self.log().splitlines()[-1], "a missing file is refused", 10)
        # It is seen to be well again without being told.
        self.proxy.write_policy(policy("second"))
        wait_until(lambda: self.models() == ["second"], "a good file is taken", 10)
        self.assertEqual(self.proxy.metric("penstock_config_last_reload_successful"), 1)

    def test_a_file_that_is_gone_is_told_and_forgiven_when_it_is_back(self):
        self.start()
        aside = self.proxy.policy_file + ".aside"
        for signals in (False, True):
            os.rename(self.proxy.policy_file, aside)
            if signals:
                self.proxy.proxy.send(signal.SIGHUP)
            wait_until(lambda: self.proxy.metric("penstock_config_last_reload_successful") == 0, "it is missed", 10)
            self.assertEqual(self.proxy.chat("hello?").status, 200)
            os.rename(aside, self.proxy.policy_file)
            wait_until(lambda: self.proxy.metric("penstock_config_last_reload_successful") == 1, "it is back", 10)
        self.assertIn("the file cannot be read any more", self.log())

    def test_a_listener_moves_to_every_address_of_its_port(self):
        self.start()
        port = self.proxy.proxy_address.rpartition(":")[2]
        self.proxy.write_policy(policy().replace("{address: {listen}", f"{{address: '0.0.0.0:{port}'"))
        wait_until(lambda: f"listener public on http://0.0.0.0:{port}" in self.log(), "it has moved", 10)
        self.assertEqual(self.proxy.chat("hello?").status, 200)
        self.assertEqual(self.reloads("rejected"), 0)

    def test_a_reload_tells_its_warnings_and_no_old_news(self):
        self.start()
        name = self.backend.address
        for word in ("open", "auto"):
            self.proxy.admin(f"/backends/lexicon/{name}/breaker/{word}", method="POST")
        wait_until(lambda: self.log().count(": breaker ") == 2, "both are told", 10)
        self.proxy.write_policy(policy().replace("health_check: {enabled: false}", "health_check: {interval: 3s}") +
                                "caches: [{name: unused}]\n")
        wait_until(lambda: "generation 2 is in force" in self.log(), "it is taken", 10)
        self.assertRegex(self.log(), r"policy.*yaml:\d+:\d+: warning: caches\[0\].*")
        time.sleep(0.5)  # Two looks at each breaker.
        self.assertEqual(self.log().count(": breaker "), 2, self.log())

    def test_reloads_under_load_lose_nothing(self):
        def answer(request):
            if b'"stream": true' in request.body:
                request.begin_events()
                for token in "abcd":
                    request.token(token)
                    time.sleep(0.01)
                request.end_events()
            else:
                request.answer(200, {"choices": []})
        self.start(answer, backends=3)
        every = list(self.proxy.backends)
        with Load(self.proxy.proxy_address, clients=8) as load:
            wait_until(lambda: len(load.done()) > 20, "load is under way")
            for turn in range(12):
                # Backends leave and come back, weights and algorithms change.
                self.proxy.backends = every if turn % 3 == 0 else every[:1 + turn % 2]
                text = policy().replace("round_robin", ("least_request", "weighted_score", "random")[turn % 3])
                self.proxy.write_policy(text)
                if turn % 2:
                    self.proxy.proxy.send(signal.SIGHUP)
                accepted = self.reloads("accepted")
                wait_until(lambda: self.reloads("accepted") > accepted or self.reloads("accepted") > turn, "taken", 10)
                time.sleep(0.1)
        outcomes = load.stop()
        self.assertEqual([outcome.error for outcome in outcomes if outcome.error], [])
        self.assertGreater(len(outcomes), 50)
        self.assertEqual(self.reloads("rejected"), 0)
        wait_until(lambda: self.proxy.metric("penstock_http_requests_active") == 0, "all are told apart")

    def test_a_stream_outlives_the_reload_that_takes_its_backend_away(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def answer(request):
            request.begin_events()
            request.token("one")
            go_on.wait(20)
            request.token("two")
            request.end_events()
        self.start(answer)
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            other = FakeBackend()
            self.addCleanup(other.close)
            self.proxy.backends = [other.address]
            self.proxy.write_policy(policy("second"))
            wait_until(lambda: self.models() == ["second"], "the new policy is in force", 10)
            go_on.set()
            self.assertEqual(list(tokens), ["two"])


class DrainTest(ProxyTest):
    def stalling(self):
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)

        def answer(request):
            request.begin_events()
            request.token("one")
            self.go_on.wait(30)
            request.token("two")
            request.end_events()
        return answer

    def test_streams_finish_and_nothing_new_is_taken(self):
        self.start(self.stalling())
        self.assertEqual(self.ready(), 200)
        with contextlib.closing(self.proxy.stream("hello?")) as stream, self.proxy.raw() as idle:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            idle.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            self.assertEqual(idle.read_answer().status, 200)
            self.proxy.proxy.send(signal.SIGTERM)
            wait_until(lambda: self.ready() == 503, "it is not ready any more", 10)
            self.assertEqual(request(self.proxy.admin_address, "GET", "/livez").status, 200)
            self.assertEqual(idle.read_to_end(), b"")
            with self.assertRaises(OSError):
                self.proxy.raw().read_until(b"x")
            self.assertIsNone(self.proxy.proxy.ended())
            self.go_on.set()
            self.assertEqual(list(tokens), ["two"])
        self.assertEqual(self.proxy.proxy.wait(10), 0)

    def test_a_stream_beyond_the_limit_is_cut(self):
        self.start(self.stalling(), text=policy(server="  timeouts: {drain: 100ms, drain_streams: 300ms}\n"))
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            self.proxy.proxy.send(signal.SIGTERM)
            with self.assertRaises(StackError):
                list(tokens)
        self.assertEqual(self.proxy.proxy.wait(10), 0)
        self.assertIn("1 requests are cut", self.log())

    def test_whole_answers_have_less_time_than_streams(self):
        stalling = self.stalling()
        self.start(lambda request: stalling(request) if b"true" in request.body else request.hang(),
                   text=policy(server="  timeouts: {drain: 300ms, drain_streams: 30s}\n"))
        with contextlib.closing(self.proxy.stream("hello?")) as stream, self.proxy.raw() as whole:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            whole.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: len(self.backend.requests) == 2, "both are in progress")
            self.proxy.proxy.send(signal.SIGTERM)
            answer = whole.read_answer()
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "draining"))
            self.assertIsNone(self.proxy.proxy.ended())
            self.go_on.set()
            self.assertEqual(list(tokens), ["two"])
        self.assertEqual(self.proxy.proxy.wait(10), 0)

    def test_a_second_signal_ends_it_at_once(self):
        self.start(self.stalling())
        with contextlib.closing(self.proxy.stream("hello?")) as stream:
            self.assertEqual(next(stream.tokens()), "one")
            self.proxy.proxy.send(signal.SIGTERM)
            wait_until(lambda: self.ready() == 503, "it drains", 10)
            self.proxy.proxy.send(signal.SIGTERM)
            self.assertEqual(self.proxy.proxy.wait(10), 0)

    def test_load_that_ends_with_the_proxy_is_answered_or_refused_never_dropped(self):
        self.start(lambda request: (time.sleep(0.02), request.answer(200, {"choices": []})))
        with Load(self.proxy.proxy_address, clients=8, streamed=False) as load:
            wait_until(lambda: len(load.done()) > 20, "load is under way")
            self.proxy.proxy.send(signal.SIGTERM)
            self.assertEqual(self.proxy.proxy.wait(10), 0)
            time.sleep(0.1)
        # Each came on a connection of its own: it was accepted and answered, or it was not.
        errors = {outcome.error for outcome in load.stop() if outcome.error}
        self.assertEqual([error for error in errors if "refused" not in error and "reset" not in error], [])


class StartTest(ProxyTest):
    def second(self, text):
        path = os.path.join(self.proxy.folder, "second.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return subprocess.run([os.path.join(BINARIES, "penstock"), "serve", "-c", path], capture_output=True,
                              text=True, timeout=20)

    def test_a_busy_port_is_one_clear_line(self):
        self.start()
        with open(self.proxy.policy_file, encoding="utf-8") as file:
            text = file.read()
        for free, busy in ((self.proxy.admin_address, self.proxy.proxy_address),
                           (self.proxy.proxy_address, self.proxy.admin_address)):
            result = self.second(text.replace(free, "127.0.0.1:0"))
            self.assertNotEqual(result.returncode, 0)
            lines = [line for line in (result.stdout + result.stderr).splitlines() if " info " not in line]
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(busy, lines[0])
            self.assertIn("in use", lines[0])
        # The first one has noticed nothing.
        self.assertEqual(self.proxy.chat("hello?").status, 200)

    def test_it_needs_no_standard_streams(self):
        self.start()
        self.proxy.proxy.stop()
        binary = os.path.join(BINARIES, "penstock")
        with subprocess.Popen(["sh", "-c", 'exec "$0" serve -c "$1" <&- >&- 2>&-', binary,
                               self.proxy.policy_file]) as process:
            try:
                wait_until(lambda: self.ready() == 200, "it is ready")
                self.assertEqual(self.proxy.chat("hello?").status, 200)
            finally:
                process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(10), 0)

    def test_a_bad_policy_file_is_no_start(self):
        self.start()
        result = self.second("version: v1\npools:\n  - name: a\n    backend: [x]\n")
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stdout + result.stderr,
                         r'second.yaml:4:5: pools\[0\]: .*"backend"; did you mean "backends"')


if __name__ == "__main__":
    main()
