"""Policy files that turn bad while a real proxy is down, or because of a file that
they name: it starts with what was good before, loudly, and mends itself when the
files are mended."""

import contextlib
import os
import signal
import threading
import time

from tests.support.certificates import Authority
from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, free_ports, main, wait_until

POLICY = """\
version: v1
server:
  listeners:
    - {address: {listen}}
%s  admin: {address: {admin}}
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
%s"""
BAD = "version: v1\npools: []\n"


class ServeTest(StackTest):
    def start(self, listener="", pool="", more=()):
        self.backend = FakeBackend(lambda request: request.answer(200, {"choices": []}))
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=POLICY % (listener, pool), backends=[self.backend.address],
                                start=False)
        self.copy = os.path.join(self.proxy.folder, "last-good.yaml")
        self.more = more
        self.again()
        return self.proxy

    def again(self, wait=True):
        return self.proxy.start_proxy(wait=wait, more=self.more)

    def log(self):
        with open(self.proxy.proxy.log, encoding="utf-8") as log:
            return log.read()

    def good(self):
        return self.proxy.metric("penstock_config_last_reload_successful") == 1

    def end(self):
        self.proxy.proxy.send(signal.SIGTERM)
        wait_until(lambda: self.proxy.proxy.ended() is not None, "it ends")


class LastGoodTest(ServeTest):
    def refused(self):
        """It does not start: the reason."""
        process = self.again(wait=False)
        wait_until(lambda: process.ended() is not None, "it ends")
        self.assertEqual(process.ended(), 1)
        self.proxy._started.remove(process)
        return self.log()

    def with_copy(self):
        self.start()
        self.end()
        self.more = ("--last-good", self.copy)
        self.again()
        with open(self.copy, encoding="utf-8") as copy, open(self.proxy.policy_file, encoding="utf-8") as file:
            self.assertEqual(copy.read(), file.read())
        self.assertEqual(os.stat(self.copy).st_mode & 0o777, 0o600)

    def test_a_start_with_a_bad_file_serves_the_last_good_one_until_it_is_mended(self):
        self.with_copy()
        self.end()
        for bad in (BAD, "", "\x00", None):
            with self.subTest(bad=bad):
                if bad is None:
                    os.remove(self.proxy.policy_file)
                else:
                    self.proxy.write_policy(bad)
                self.again()
                self.assertEqual(self.proxy.chat("hello?").status, 200)
                self.assertFalse(self.good())
                self.assertIn("error the policy file cannot be served, and the last good copy", self.log())
                self.proxy.write_policy(POLICY % ("", "    queue: {max: 7}\n"))
                wait_until(self.good, "it is mended")
                with open(self.copy, encoding="utf-8") as copy:
                    self.assertIn("max: 7", copy.read())
                self.end()

    def test_a_bad_file_never_becomes_the_copy(self):
        self.with_copy()
        self.proxy.write_policy(BAD)
        wait_until(lambda: not self.good(), "it is refused")
        with open(self.copy, encoding="utf-8") as copy:
            self.assertIn("lexicon-5m", copy.read())

    def test_without_being_asked_or_without_a_good_copy_it_does_not_start(self):
        self.start()
        self.end()
        self.proxy.write_policy(BAD)
        self.assertIn("pools", self.refused())
        self.more = ("--last-good", self.copy)
        self.assertIn("pools", self.refused())          # There is no copy.
        with open(self.copy, "w", encoding="utf-8") as copy:
            copy.write(BAD)
        self.assertIn("pools", self.refused())


class NamedFileTest(ServeTest):
    def setUp(self):
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)

    def test_a_file_refused_for_a_certificate_is_read_again_when_that_one_changes(self):
        self.start()
        authority = Authority(self.proxy.folder)
        pair, other = authority.issue("one"), authority.issue("two")
        with open(pair.key, encoding="ascii") as key:
            right = key.read()
        with open(other.key, encoding="ascii") as key, open(pair.key, "w", encoding="ascii") as file:
            file.write(key.read())       # A key that is another one's.
        address = f"127.0.0.1:{free_ports(1)[0]}"
        self.proxy.write_policy(POLICY % (
            f"    - {{name: tls, address: '{address}', tls: {{certificates: [{{cert_file: {pair.cert}, "
            f"key_file: {pair.key}}}]}}}}\n", ""))
        wait_until(lambda: not self.good(), "it is refused")
        with open(pair.key + ".new", "w", encoding="ascii") as file:
            file.write(right)
        os.replace(pair.key + ".new", pair.key)
        wait_until(self.good, "it is read again")
        self.assertIn("a file that it names changed", self.log())

    def test_so_is_one_refused_for_a_file_of_keys(self):
        self.start()
        keys = os.path.join(self.proxy.folder, "keys")
        self.proxy.write_policy(POLICY % ("", "    auth: {mode: require, keys_file: keys}\n"))
        wait_until(lambda: not self.good(), "it is refused")
        with open(keys, "w", encoding="ascii") as file:
            file.write("# none yet\nsecret\n")
        wait_until(self.good, "it is read again")
        self.assertEqual(self.proxy.chat("hello?").status, 401)
        answer = self.proxy.chat("hello?", headers={"authorization": "Bearer secret"})
        self.assertEqual(answer.status, 200)

    def test_a_file_that_is_gone_is_not_read_again_for_what_it_named(self):
        self.start()
        keys = os.path.join(self.proxy.folder, "keys")
        with open(keys, "w", encoding="ascii") as file:
            file.write("one\n")
        self.proxy.write_policy(POLICY % ("", "    auth: {mode: require, keys_file: keys}\n"))
        wait_until(lambda: self.proxy.chat("hello?").status == 401, "it is in force")
        os.unlink(self.proxy.policy_file)
        self.proxy.proxy.send(signal.SIGHUP)
        wait_until(lambda: not self.good(), "it is missed")
        with open(keys, "w", encoding="ascii") as file:
            file.write("another\n")
        time.sleep(2.5)   # It would be looked at each second.
        self.assertNotIn("a file that it names changed", self.log())

    def test_a_key_that_is_taken_back_ends_no_stream_and_begins_none(self):
        self.start()
        keys = os.path.join(self.proxy.folder, "keys")
        with open(keys, "w", encoding="ascii") as file:
            file.write("old\n")

        def script(request):
            if b'"stream": true' not in request.body:
                return request.answer(200, {"choices": []})
            request.begin_events()
            request.token("one")
            self.go_on.wait(30)
            request.token("two")
            request.end_events()
        self.proxy.write_policy(POLICY % ("", "    auth: {mode: require, keys_file: keys}\n"))
        wait_until(lambda: self.proxy.chat("hello?").status == 401, "a key is required")
        self.backend.script = script
        with contextlib.closing(self.proxy.stream("hello?", headers={"authorization": "Bearer old"})) as stream:
            tokens = stream.tokens()
            self.assertEqual(next(tokens), "one")
            with open(keys, "w", encoding="ascii") as file:
                file.write("new\n")         # The file alone: nobody tells the proxy.
            wait_until(lambda: self.proxy.chat("hello?", headers={"authorization": "Bearer old"}).status == 401,
                       "the old key is none any more", 10)
            self.assertEqual(self.proxy.chat("hello?", headers={"authorization": "Bearer new"}).status, 200)
            self.go_on.set()
            self.assertEqual(list(tokens), ["two"])


if __name__ == "__main__":
    main()
