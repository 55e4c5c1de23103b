"""Certificates for integration tests, made by the openssl program when they run.

    authority = Authority(folder)
    pair = authority.issue("chat", "chat.example", "127.0.0.1")
    pair.cert, pair.key          # Paths.
"""

import os
import ssl
import subprocess

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, text=True)


class Pair:
    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    def server_context(self, client_ca=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder, self.name = folder, name
        self.cert, self._key = os.path.join(folder, f"{name}.crt"), os.path.join(folder, f"{name}.key")
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.cert, "-days", "30",
                 "-subj", f"/CN=Test {name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, name, *names, days=30):
        """days: how long it is good for; -1: it has expired."""
        pair = Pair(os.path.join(self.folder, f"{name}.crt"), os.path.join(self.folder, f"{name}.key"))
        request, extensions = (os.path.join(self.folder, f"{name}.{end}") for end in ("csr", "ext"))
        alternatives = ",".join(f"{'IP' if n.replace('.', '').isdigit() else 'DNS'}:{n}" for n in names or [name])
        with open(extensions, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={alternatives}\n")
        _openssl("req", "-new", *_KEY, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial",
                 "-out", pair.cert, "-days", str(days), "-extfile", extensions)
        return pair

    def client_context(self, pair=None):
        context = ssl.create_default_context(cafile=self.cert)
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        return context
