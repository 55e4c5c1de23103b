"""The openai Python SDK, unmodified, through the proxy to three real engines."""

import asyncio
import concurrent.futures
import itertools

from tests.support import sdk, stack

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

    @classmethod
    def connect(cls, **options):
        return openai.OpenAI(**{"base_url": f"http://{cls.sdk.proxy_address}/v1", "api_key": "a-key",
                                "max_retries": 0, "timeout": 30, **options})

    def ask(self, client=None, **more):
        return (client or self.client).chat.completions.create(
            **{"model": "lexicon-5m", "messages": QUESTION, "temperature": 0, **more})

    def refused(self, error, call):
        """The exception of `call`, which must be of class `error` and name the request."""
        with self.assertRaises(error) as raised:
            call()
        self.assertRegex(raised.exception.request_id or "", "^[0-9a-f]{32}$")
        return raised.exception


class AnswersTest(PythonSdkTest):
    def test_a_chat_is_answered(self):
        answer = self.ask()
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
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as crowd:
            answers = list(crowd.map(lambda seed: self.ask(temperature=1, seed=seed, max_tokens=16), range(64)))
        self.assertEqual({answer.choices[0].finish_reason for answer in answers} - {"stop", "length"}, set())
        for address in self.sdk.engine_addresses[:3]:
            self.assertGreater(self.sdk.metric("penstock_backend_requests_total", pool="lexicon",
                                               backend=address), 0, address)

    def test_an_asynchronous_client_is_answered(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=self.client.base_url, api_key="a-key") as client:
                stream = await client.chat.completions.create(
                    model="lexicon-5m", messages=QUESTION, temperature=0, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        self.assertEqual(asyncio.run(ask()), TURBINE)


class ErrorsTest(PythonSdkTest):
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

    def test_the_sdk_comes_back_by_itself_once_there_is_room(self):
        with self.connect(max_retries=4) as client, concurrent.futures.ThreadPoolExecutor(1) as other:
            with self.ask(model="slow-emulated", stream=True, max_tokens=400) as stream:
                next(stream)
                before = self.sdk.metric("penstock_http_requests_total", pool="slow", code="429")
                answer = other.submit(self.ask, client, model="slow-emulated", max_tokens=1)
                stack.wait_until(lambda: self.sdk.metric("penstock_http_requests_total", pool="slow", code="429") >
                                 before, "it was turned away")
            self.assertEqual(answer.result().usage.completion_tokens, 1)

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
            with self.assertRaises(openai.APITimeoutError):
                self.ask(client, model="slow-emulated", max_tokens=400)
        self.sdk.wait_idle(3, "the engine has dropped the request of a client that gave up")
        # The only place of that pool is free again.
        self.assertEqual(self.ask(model="slow-emulated", max_tokens=1).usage.completion_tokens, 1)


class Http2Test(PythonSdkTest):
    """The SDK over HTTP/2 by prior knowledge: its httpx with Debian's h2."""

    @classmethod
    def connect(cls, **options):
        return super().connect(http_client=openai.DefaultHttpxClient(http1=False, http2=True), **options)

    def test_a_chat_is_answered_over_http2(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model="lexicon-5m", messages=QUESTION, temperature=0)
        self.assertEqual(raw.http_response.http_version, "HTTP/2")
        self.assertEqual(raw.parse().choices[0].message.content, TURBINE)

    def test_a_stream_tells_the_same_answer(self):
        for seed in range(2):
            with self.ask(stream=True, seed=seed) as stream:
                self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in stream), TURBINE)

    def test_a_crowd_shares_one_connection(self):
        before = self.sdk.metric("penstock_client_connections_total")
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as crowd:
            answers = list(crowd.map(lambda seed: self.ask(temperature=1, seed=seed, max_tokens=16), range(48)))
        self.assertEqual({answer.choices[0].finish_reason for answer in answers} - {"stop", "length"}, set())
        self.assertLessEqual(self.sdk.metric("penstock_client_connections_total") - before, 1)

    def test_errors_are_told_as_over_http1(self):
        self.refused(openai.NotFoundError, lambda: self.ask(model="nobody-s"))
        self.refused(openai.AuthenticationError, lambda: self.ask(model="guarded"))

    def test_a_stream_that_breaks_off_is_an_error(self):
        with self.assertRaises(openai.APIError):
            with self.ask(model="broken", stream=True) as stream:
                list(stream)


if __name__ == "__main__":
    stack.main()
