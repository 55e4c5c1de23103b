"""The openai Python SDK, unmodified, through the proxy to three real engines."""

import asyncio
import concurrent.futures
import itertools

from tests.support import sdk, stack
from tests.support.certificates import Authority

SIDE_BY_SIDE = 16
TURBINE = ("Turbine (noun): rotary engine in which the kinetic energy of a moving fluid is converted "
           "into mechanical energy by causing a bladed rotor to rotate.")
QUESTION = [{"role": "user", "content": "What is a turbine?"}]


class PythonSdkTest(sdk.SdkTest):
    @classmethod
    def setUpClass(cls):
        sdk.python_sdk()
        global openai
        import openai
        super().setUpClass()
        cls.client = cls.connect()
        cls.addClassCleanup(cls.client.close)

    wire = "HTTP/1.1"

    @classmethod
    def base(cls):
        """Where the proxy is, and how the SDK's own HTTP client is to be made."""
        return f"http://{cls.sdk.proxy_address}/v1", {}

    @classmethod
    def connect(cls, kind="", **options):
        url, transport = cls.base()
        client = getattr(openai, f"Default{kind}HttpxClient")(**transport)
        return getattr(openai, f"{kind}OpenAI")(**{"base_url": url, "api_key": "a-key", "max_retries": 0,
                                                   "timeout": 30, "http_client": client, **options})

    def ask(self, client=None, **more):
        return (client or self.client).chat.completions.create(
            **{"model": "lexicon-5m", "messages": QUESTION, "temperature": 0, **more})

    def crowd(self, count):
        """So many answers, SIDE_BY_SIDE of them at once. On one thread: over HTTP/2 the SDK's
        own HTTP client mixes up the streams that its threads open."""
        async def one(client, turn, seed):
            async with turn:
                return await self.ask(client, temperature=1, seed=seed, max_tokens=16)

        async def ask():
            turn = asyncio.Semaphore(SIDE_BY_SIDE)
            async with self.connect("Async") as client:
                return await asyncio.gather(*(one(client, turn, seed) for seed in range(count)))

        answers = asyncio.run(ask())
        self.assertEqual({answer.choices[0].finish_reason for answer in answers} - {"stop", "length"}, set())

    def refused(self, error, call):
        """The exception of `call`, which must be of class `error` and name the request."""
        with self.assertRaises(error) as raised:
            call()
        self.assertRegex(raised.exception.request_id or "", "^[0-9a-f]{32}$")
        return raised.exception


class AnswersTest(PythonSdkTest):
    def test_a_chat_is_answered(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model="lexicon-5m", messages=QUESTION, temperature=0)
        self.assertEqual(raw.http_response.http_version, self.wire)
        answer = raw.parse()
        self.assertEqual(answer.choices[0].message.content, TURBINE)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertEqual(answer.model, "lexicon-5m")
        self.assertRegex(answer._request_id, "^[0-9a-f]{32}$")

    def test_a_stream_tells_the_same_answer_and_its_usage_last(self):
        # The first comes from an engine, the second out of the cache.
        for _ in range(2):
            with self.ask(stream=True, stream_options={"include_usage": True}) as stream:
                chunks = list(stream)
            self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]), TURBINE)
            self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
            self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
            self.assertEqual((chunks[-1].choices, chunks[-1].usage), ([], self.ask().usage))

    def test_the_same_question_again_comes_out_of_the_cache(self):
        ask = self.client.chat.completions.with_raw_response.create
        body = {"model": "lexicon-5m", "messages": QUESTION, "temperature": 0, "max_tokens": 7}
        first, second = ask(**body), ask(**body)
        self.assertNotIn("hit", first.headers["cache-status"])
        self.assertIn("penstock; hit", second.headers["cache-status"])
        self.assertEqual(first.parse(), second.parse())

    def test_a_completion_is_answered(self):
        answer = self.client.completions.create(model="lexicon-5m", prompt="A turbine is", max_tokens=5, logprobs=2)
        self.assertEqual((answer.object, answer.usage.completion_tokens), ("text_completion", 5))
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(len(answer.choices[0].logprobs.tokens), 5)

    def test_models_are_listed_over_all_pools(self):
        names = {model.id for model in self.client.models.list()}
        self.assertLessEqual({"broken", "gone", "guarded", "hung", "lexicon-5m", "slow-emulated"}, names)
        self.assertEqual(self.client.models.retrieve("lexicon-5m").object, "model")

    def test_a_crowd_is_answered_by_all_engines(self):
        self.crowd(64)
        for address in self.sdk.engine_addresses[:3]:
            self.assertGreater(self.sdk.metric("penstock_backend_requests_total", pool="lexicon",
                                               backend=address), 0, address)

    def test_an_asynchronous_client_is_answered(self):
        async def ask():
            async with self.connect("Async") as client:
                stream = await client.chat.completions.create(
                    model="lexicon-5m", messages=QUESTION, temperature=0, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        self.assertEqual(asyncio.run(ask()), TURBINE)


class ErrorsTest(PythonSdkTest):
    def setUp(self):
        super().setUp()
        self.sdk.wait_idle(3, "the requests of the test before are over")

    def test_an_unknown_model_is_not_found(self):
        for call in (lambda: self.ask(model="gpt-0"), lambda: self.client.models.retrieve("gpt-0")):
            error = self.refused(openai.NotFoundError, call)
            self.assertEqual((error.status_code, error.code, error.type),
                             (404, "model_not_found", "invalid_request_error"))
            self.assertIn('"gpt-0"', error.message)

    def test_a_wrong_field_is_a_bad_request_that_names_it(self):
        error = self.refused(openai.BadRequestError, lambda: self.ask(temperature=9))
        self.assertEqual((error.status_code, error.param, error.type), (400, "temperature", "invalid_request_error"))
        error = self.refused(openai.BadRequestError, lambda: self.ask(max_tokens=100000))
        self.assertEqual((error.param, error.code), ("max_tokens", "context_length_exceeded"))

    def test_a_wrong_key_is_an_authentication_error(self):
        error = self.refused(openai.AuthenticationError, lambda: self.ask(model="guarded"))
        self.assertEqual((error.status_code, error.code), (401, "invalid_api_key"))
        # With the right one the engine is asked, and has no such model.
        with self.connect(api_key="the-right-key") as client:
            self.refused(openai.NotFoundError, lambda: self.ask(client, model="guarded"))

    def test_a_full_pool_is_a_rate_limit_error_that_says_when_to_come_back(self):
        with self.ask(model="slow-emulated", stream=True, max_tokens=400) as stream:
            next(stream)
            error = self.refused(openai.RateLimitError, lambda: self.ask(model="slow-emulated"))
        self.assertEqual((error.status_code, error.code, error.type), (429, "queue_full", "rate_limit_error"))
        self.assertGreaterEqual(int(error.response.headers["retry-after"]), 1)

    def test_no_healthy_backend_is_an_internal_server_error(self):
        error = self.refused(openai.InternalServerError, lambda: self.ask(model="gone"))
        self.assertEqual((error.status_code, error.type), (503, "server_error"), error)
        self.assertIn("retry-after", error.response.headers)

    def test_a_stream_that_its_backend_dropped_is_an_error_after_the_text_that_came(self):
        with self.ask(model="broken", stream=True) as stream:
            self.assertEqual(next(stream).choices[0].delta.content, "Tur")
            with self.assertRaises(openai.APIError) as raised:
                next(stream)
        self.assertRegex(raised.exception.code, "^backend_(reset|bad_answer)$")

    def test_a_backend_that_hangs_is_given_up_and_the_sdk_does_not_repeat_it(self):
        before = self.sdk.hung.requests
        with self.connect(max_retries=2) as client:
            error = self.refused(openai.InternalServerError, lambda: self.ask(client, model="hung", stream=True))
        self.assertEqual((error.status_code, error.code), (504, "backend_first_token_timeout"))
        self.assertEqual(self.sdk.hung.requests - before, 1)


class LeavingTest(PythonSdkTest):
    def test_the_sdk_comes_back_by_itself_once_there_is_room(self):
        with self.connect(max_retries=4) as client, concurrent.futures.ThreadPoolExecutor(1) as other:
            with self.ask(model="slow-emulated", stream=True, max_tokens=400) as stream:
                next(stream)
                before = self.sdk.metric("penstock_http_requests_total", pool="slow", code="429")
                answer = other.submit(self.ask, client, model="slow-emulated", max_tokens=1)
                stack.wait_until(lambda: self.sdk.metric("penstock_http_requests_total", pool="slow", code="429") >
                                 before, "it was turned away")
            self.assertEqual(answer.result().usage.completion_tokens, 1)

    def test_closing_a_stream_frees_the_blocks_of_its_engine(self):
        stream = self.ask(model="slow-emulated", stream=True, max_tokens=400)
        next(stream)
        self.assertEqual(stack.request(self.sdk.engine_addresses[3], "GET", "/load").json()["running"], 1)
        stream.close()
        self.sdk.wait_idle(3, "the engine has dropped the request of a client that left")

    def test_leaving_in_the_middle_leaves_no_engine_with_work(self):
        for question in ("river", "lamp", "horse", "engine"):
            messages = [{"role": "user", "content": f"What is a {question}?"}]
            with self.ask(messages=messages, stream=True, temperature=1, seed=1) as stream:
                list(itertools.islice(stream, 2))
        for index in range(3):
            self.sdk.wait_idle(index, "the engine has dropped the requests of clients that left")

    def test_the_timeout_of_a_client_ends_its_request_everywhere(self):
        with self.connect(timeout=0.5) as client:
            # It told the proxy of its timeout, which may answer in the moment in which it passes.
            with self.assertRaises((openai.APITimeoutError, openai.InternalServerError)):
                self.ask(client, model="slow-emulated", max_tokens=400)
        self.sdk.wait_idle(3, "the engine has dropped the request of a client that gave up")
        # The only place of that pool is free again.
        self.assertEqual(self.ask(model="slow-emulated", max_tokens=1).usage.completion_tokens, 1)


# The same sentences again where the bytes look different. Those of leaving are for
# HTTP/1 alone: over HTTP/2 the SDK's own HTTP client does not say that it has left.


class OverHttps:
    @classmethod
    def base(cls):
        return f"https://{cls.sdk.secure_address}/v1", {"verify": cls.sdk.authority.client_context()}


class OverHttp2:
    """HTTP/2 by prior knowledge, with Debian's h2."""
    wire = "HTTP/2"

    @classmethod
    def base(cls):
        return f"http://{cls.sdk.proxy_address}/v1", {"http1": False, "http2": True}


class OverHttpsAndHttp2:
    """HTTP/2 by ALPN."""
    wire = "HTTP/2"

    @classmethod
    def base(cls):
        return f"https://{cls.sdk.secure_address}/v1", {"verify": cls.sdk.authority.client_context(), "http2": True}


class HttpsAnswersTest(OverHttps, AnswersTest):
    def test_somebody_else_s_certificate_is_not_taken_for_ours(self):
        stranger = Authority(self.sdk.folder, "stranger")
        with self.connect(http_client=openai.DefaultHttpxClient(verify=stranger.client_context())) as client:
            with self.assertRaises(openai.APIConnectionError):
                self.ask(client)


class HttpsLeavingTest(OverHttps, LeavingTest):
    pass


class Http2AnswersTest(OverHttp2, AnswersTest):
    def test_a_crowd_shares_one_connection(self):
        before = self.sdk.metric("penstock_client_connections_total")
        self.crowd(48)
        self.assertEqual(self.sdk.metric("penstock_client_connections_total") - before, 1)


class Http2ErrorsTest(OverHttp2, ErrorsTest):
    pass


class Https2AnswersTest(OverHttpsAndHttp2, AnswersTest):
    pass


class Https2ErrorsTest(OverHttpsAndHttp2, ErrorsTest):
    pass


if __name__ == "__main__":
    stack.main()
