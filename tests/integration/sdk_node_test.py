"""The openai Node SDK, unmodified, through the proxy to three real engines; the
sentences are in sdk_node.mjs, run by Node's own test runner."""

import os
import subprocess

from tests.support import sdk, stack

SCRIPT = os.path.join(stack.ROOT, "tests/integration/sdk_node.mjs")
SECONDS = 300


class NodeSdkTest(sdk.SdkTest):
    @classmethod
    def setUpClass(cls):
        cls.node, cls.folder = sdk.node_sdk()
        super().setUpClass()

    def check(self, proxy, **variables):
        # Imported by its file, since the script does not live where npm installs.
        openai = os.path.join(self.folder, "node_modules/openai/index.mjs")
        hung_before = self.sdk.hung.requests
        ended = subprocess.run(
            [self.node, "--test", "--test-reporter=spec", SCRIPT], capture_output=True, text=True,
            timeout=SECONDS, check=False, env={
                **os.environ, "OPENAI": f"file://{openai}", "PROXY": proxy,
                "ENGINES": ",".join(self.sdk.engine_addresses), **variables})
        print(ended.stdout, flush=True)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(self.sdk.hung.requests - hung_before, 1, "the SDK asked the backend that hangs again")

    def test_every_sentence_of_the_script_is_true(self):
        self.check(f"http://{self.sdk.proxy_address}")


class NodeSdkOverHttpsTest(NodeSdkTest):
    def test_every_sentence_of_the_script_is_true(self):
        self.check(f"https://{self.sdk.secure_address}", NODE_EXTRA_CA_CERTS=self.sdk.authority.cert)
        self.assertGreater(self.sdk.metric("penstock_tls_handshakes_total", listener="secure", result="full"), 0)


if __name__ == "__main__":
    stack.main()
