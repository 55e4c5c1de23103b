"""Servers that others made, as backends: nginx and Node, each on four ports.

    nginx = Nginx(folder, pair)        # pair: a certificate with its key
    nginx.addresses                    # {"http1": "127.0.0.1:4711", "http2", "https1", "https2"}

Both answer GET /x/small and /x/big, and POST /x/echo (nginx with OWN alone); Node also
/x/trailers and /x/events, and changes to WebSocket in name: it sends back what it gets.
"""

import json
import os
import shutil
import subprocess

from tests.support import sdk
from tests.support.stack import ROOT, free_ports, wait_until

SMALL, BIG, OWN = b"small\n", b"0123456789abcdef" * 62_500, b"taken\n"
WIRES = ("http1", "http2", "https1", "https2")   # Of both; http2 is prior knowledge.

_NGINX = """\
daemon off; worker_processes 1; {user} pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type text/plain; client_max_body_size 10m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 50;   # Then it leaves a connection: GOAWAY on HTTP/2.
  ssl_certificate {cert}; ssl_certificate_key {key};
  server {{
    listen 127.0.0.1:{http1}; listen 127.0.0.1:{http2} http2;
    listen 127.0.0.1:{https2} ssl http2;
    {rules}
  }}
  server {{ listen 127.0.0.1:{https1} ssl; {rules} }}
}}
"""
_RULES = """
    root {folder}/files;
    location = /health {{ return 200; }}
    location ~ /echo$ {{ return 200 "taken\\n"; }}
    location / {{ rewrite ^/[^/]+(/.*)$ $1 break; }}
"""


def nginx_program():
    """nginx of this machine, else the one of Debian's package, unpacked and not installed:
    nothing is started, and nothing of the machine changes."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found:
        return found
    folder = os.path.join(ROOT, "build/nginx")
    program = os.path.join(folder, "usr/sbin/nginx")
    if not os.path.exists(program):
        os.makedirs(folder, exist_ok=True)
        sdk.fetch("sh", "-c", 'cd "$0" && apt-get download nginx && dpkg-deb -x nginx_*.deb .', folder)
    return program


class _Server:
    def __init__(self, *argv, **more):
        self._process = subprocess.Popen(argv, **more)

    def close(self):
        self._process.terminate()
        self._process.wait(20)


class Nginx(_Server):
    name, words = "nginx", ("small", "big", "echo")

    def __init__(self, folder, pair):
        folder = os.path.join(folder, "nginx")
        files = os.path.join(folder, "files")
        os.makedirs(files)
        for name, text in (("small", SMALL), ("big", BIG)):
            with open(os.path.join(files, name), "wb") as file:
                file.write(text)
        ports = dict(zip(WIRES, free_ports(len(WIRES))))
        config = os.path.join(folder, "nginx.conf")
        with open(config, "w", encoding="utf-8") as file:
            # Started as root, its worker would be nobody, who may not read our files.
            file.write(_NGINX.format(folder=folder, cert=pair.cert, key=pair.key, **ports,
                                     user="user root;" if os.geteuid() == 0 else "",
                                     rules=_RULES.format(folder=folder)))
        super().__init__(nginx_program(), "-p", folder, "-c", config, "-e", os.path.join(folder, "error.log"))
        self.addresses = {wire: f"127.0.0.1:{port}" for wire, port in ports.items()}
        wait_until(lambda: os.path.exists(os.path.join(folder, "pid")), "nginx listens")


class Node(_Server):
    name, words = "node", ("small", "big", "echo", "trailers", "events")

    def __init__(self, pair):
        script = os.path.join(ROOT, "tests/support/real_backend.mjs")
        super().__init__(os.path.join(sdk.node_programs(), "node"), script, pair.cert, pair.key,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self._process.stdout.readline())
        self.addresses = {wire: f"127.0.0.1:{port}" for wire, port in ports.items()}

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
