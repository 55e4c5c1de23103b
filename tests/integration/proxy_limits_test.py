"""Where a real proxy sends a request, with whose key, under which name; and the
clear answer that stands beyond each of its limits."""

import contextlib
import json
import os
import resource

from tests.support.fake_backend import FakeBackend
from tests.support.stack import StackTest, chat, main, patient, wait_until


class RouteTest(StackTest):
    POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 1
defaults: {health_check: {enabled: false}, load_reports: {push: false}}
pools:
  - {name: one, models: [{name: small, aliases: [tiny]}], backends: {backends}}
  - {name: two, models: [large], backends: ["%(two)s"], auth: {mode: replace, key: "${TEST_KEY:-let-me-in}"}}
  - {name: three, models: [secret], backends: ["%(two)s"], auth: {mode: require, keys_file: keys}}
"""

    def setUp(self):
        self.two = FakeBackend()
        self.addCleanup(self.two.close)
        self.backend = FakeBackend()
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=self.POLICY.replace("%(two)s", self.two.address),
                                backends=[self.backend.address], start=False)
        with open(os.path.join(self.proxy.folder, "keys"), "w", encoding="ascii") as keys:
            keys.write("# who may\nalpha\nbeta\n")
        self.proxy.start()

    def ask(self, model, headers=None):
        return self.proxy.request("POST", "/v1/chat/completions", {"model": model, "messages": []}, headers=headers)

    def test_models_and_aliases_find_their_pool(self):
        for model, backend, name in (("small", self.backend, "small"), ("tiny", self.backend, "small"),
                                     ("large", self.two, "large")):
            before = len(backend.requests)
            self.assertEqual(self.ask(model).status, 200)
            self.assertEqual(len(backend.requests), before + 1)
            self.assertEqual(backend.requests[-1].json()["model"], name)

    def test_an_alias_is_forwarded_as_the_models_own_name_and_all_else_as_it_came(self):
        body = b'{ "temperature" : 1.50,\n "model":\t"tiny" , "messages": [ ] }'
        answer = self.proxy.request("POST", "/v1/chat/completions", body)
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.backend.requests[-1].body, body.replace(b"tiny", b"small"))
        self.assertEqual(self.proxy.request("GET", "/v1/models/tiny").json()["id"], "tiny")

    def test_an_unknown_model_is_404_in_the_shape_of_openai(self):
        answer = self.ask("large-2")
        error = answer.json()["error"]
        self.assertEqual((answer.status, error["code"], error["param"], error["type"]),
                         (404, "model_not_found", "model", "invalid_request_error"))
        self.assertIn("large-2", error["message"])
        self.assertEqual(self.ask("x" * 100_000).status, 404)
        self.assertEqual(self.ask("a\r\nset-cookie: b").header("set-cookie"), "")

    def test_models_of_all_pools_are_listed(self):
        listed = self.proxy.request("GET", "/v1/models").json()
        self.assertEqual(listed["object"], "list")
        self.assertLessEqual({"small", "large", "secret"}, {model["id"] for model in listed["data"]})
        self.assertEqual(self.proxy.request("GET", "/v1/models/large").json()["id"], "large")
        self.assertEqual(self.proxy.request("GET", "/v1/models/none").status, 404)

    def test_authorization_is_passed_replaced_or_required(self):
        self.ask("small", {"authorization": "Bearer mine"})
        self.assertEqual(self.backend.requests[-1].headers["authorization"], "Bearer mine")
        self.ask("large", {"authorization": "Bearer mine"})
        self.assertEqual(self.two.requests[-1].head.lower().count(b"authorization"), 1)
        self.assertEqual(self.two.requests[-1].headers["authorization"], "Bearer let-me-in")
        before = len(self.two.requests)
        for key in ("", "Bearer", "Bearer ", "Bearer gamma", "bearer  alpha ", "Basic alpha", "Bearer alphaalpha"):
            answer = self.ask("secret", {"authorization": key} if key else None)
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (401, "invalid_api_key"), key)
        self.assertEqual(len(self.two.requests), before)
        self.assertEqual(self.ask("secret", {"authorization": "Bearer beta"}).status, 200)

    def test_everything_else_goes_to_the_first_pool(self):
        for method, path in (("GET", "/anything?x=1"), ("DELETE", "/v1/files/7"), ("PUT", "/a%20b")):
            self.assertEqual(self.proxy.request(method, path).status, 200)
            self.assertEqual((self.backend.requests[-1].method, self.backend.requests[-1].path), (method, path))

    def test_request_ids_are_echoed_made_and_never_trusted(self):
        answer = self.proxy.request("GET", "/a", headers={"x-request-id": "mine-1"})
        self.assertEqual(answer.header("x-request-id"), "mine-1")
        self.assertEqual(self.backend.requests[-1].headers["x-request-id"], "mine-1")
        made = {self.proxy.request("GET", "/a").header("x-request-id") for _ in range(5)}
        self.assertEqual(len(made), 5)
        for bad in ("a b", "x" * 500, "\"quoted\""):
            answer = self.proxy.request("GET", "/a", headers={"x-request-id": bad})
            self.assertRegex(answer.header("x-request-id"), "^[0-9a-f]{32}$")
            self.assertEqual(self.backend.requests[-1].headers["x-request-id"], answer.header("x-request-id"))


class LimitTest(StackTest):
    POLICY = """\
version: v1
server:
  listeners: [{address: {listen}}]
  admin: {address: {admin}}
  workers: 2
%spools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {backends}
    health_check: {enabled: false}
    load_reports: {push: false}
"""

    def start(self, script=None, server=""):
        self.backend = FakeBackend(script)
        self.addCleanup(self.backend.close)
        self.proxy = self.stack(engines=0, policy=self.POLICY % server, backends=[self.backend.address])

    def test_bodies(self):
        self.start(server="  limits: {request_body: 2KiB, json_depth: 8}\n")
        big = json.dumps(chat("x" * 4000)).encode()
        with self.proxy.raw() as connection:
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(big))
            answer = connection.read_answer()
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (413, "request_too_large"))
        with self.proxy.raw() as connection:
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                            b"%x\r\n%s\r\n0\r\n\r\n" % (len(big), big))
            self.assertEqual(connection.read_answer().status, 413)
            self.assertEqual(connection.read_to_end(), b"")
        cases = {b"": "", b"null": "object", b"[]": "object", b"{": "JSON", b"{} {}": "JSON",
                 b'{"model":"lexicon-5m","model":"b"}': "model",
                 b'{"model":"lexicon-5m","a":{"b":1,"b":2}}': "b",
                 b'{"model":"lexicon-5m","a":' + b"[" * 9 + b"]" * 9 + b"}": "nested",
                 b'{"model":"lexicon-5m","a":"\xff"}': "", b'{"model":7}': "model", b"{}": "model",
                 b'{"model":"lexicon-5m","stream":"yes"}': "stream", b'{"model":"lexicon-5m","a":01}': "JSON",
                 b'{"model":"lexicon-5m","temperature":NaN}': "JSON"}
        for body, word in cases.items():
            answer = self.proxy.request("POST", "/v1/chat/completions", body)
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (400, "invalid_request_error"), body)
            self.assertIn(word, answer.json()["error"]["message"], body)
        self.assertEqual(self.backend.requests, [])

    def test_connections(self):
        self.start(server="  limits: {connections: 4}\n")
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                connection = stack.enter_context(self.proxy.raw())
                connection.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
                self.assertEqual(connection.read_answer().status, 200)
            with self.proxy.raw() as fifth:
                self.assertEqual(fifth.read_to_end(), b"")
            self.assertEqual(self.proxy.metric("penstock_client_connections_refused_total"), 1)
        wait_until(lambda: self.proxy.metric("penstock_client_connections") == 0, "they are gone")
        self.assertEqual(self.proxy.request("GET", "/a").status, 200)

    def test_descriptors(self):
        if patient(1) > 1:
            self.skipTest("a sanitizer needs descriptors for its own checks")
        self.start()
        process, client = self.proxy.proxy.pid, self.proxy.raw()
        self.addCleanup(client.close)
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        self.assertEqual(client.read_answer().status, 200)
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (3, limits[1]))
        client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = client.read_answer()
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "overloaded"))
        waiting = self.proxy.raw()  # Not accepted yet.
        self.addCleanup(waiting.close)
        waiting.send(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n")
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        self.assertEqual(waiting.read_answer().status, 200)
        backend = self.proxy.admin("/backends")["pools"][0]["backends"][0]
        self.assertEqual(backend["breaker"]["transitions"], [])
        self.assertIsNone(backend["ttft_s"])

    def test_requests(self):
        self.start(lambda request: request.hang(), server="  limits: {requests: 2}\n")
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(self.proxy.raw()).send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: len(self.backend.requests) == 2, "both are there")
            answer = self.proxy.request("GET", "/a")
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "overloaded"))
            self.assertGreaterEqual(int(answer.header("retry-after")), 1)


if __name__ == "__main__":
    main()
