"""The openai Python SDK, unmodified, over HTTPS to a real engine."""

import json
import os

from tests.support import sdk
from tests.support.certificates import Authority
from tests.support.stack import Stack, StackTest, main

QUESTION = [{"role": "user", "content": "What is a river?"}]


class SdkOverTlsTest(StackTest):
    def test_whole_and_streamed_answers_are_the_same(self):
        sdk.python_sdk()
        import httpx
        import openai
        stack = self.stack(start=False)
        authority = Authority(stack.folder)
        pair = authority.issue("proxy", "127.0.0.1")
        tls = json.dumps({"certificates": [{"cert_file": os.path.basename(pair.cert),
                                            "key_file": os.path.basename(pair.key)}]})
        listener = "debug_headers: true"
        stack.write_policy(Stack.DEFAULT_POLICY.replace(listener, f"{listener}\n      tls: {tls}"))
        stack.start()
        with openai.OpenAI(base_url=f"https://{stack.proxy_address}/v1", api_key="a-key", max_retries=0,
                           http_client=httpx.Client(verify=authority.client_context())) as client:
            ask = {"model": "lexicon-5m", "messages": QUESTION, "temperature": 0}
            whole = client.chat.completions.create(**ask).choices[0].message.content
            self.assertIn("River", whole)
            with client.chat.completions.create(**ask, stream=True) as stream:
                self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in stream), whole)


if __name__ == "__main__":
    main()
