"""Where things stand: third-party headers in their homes, includes that only go
down, a test for each source, no header that nothing includes."""

import os
import re

from tests.tidy import allow
from tests.tidy.tree import Finding

# header: the only places that may include it.
_HOMES = [
    (r"^uv\.h$", r"^proxy/net/"),
    (r"^llhttp\.h$", r"^proxy/http/h1_codec\.(cc|h)$|^tests/bench/"),
    (r"^nghttp2/", r"^proxy/http/h2_(codec\w*\.cc|memory\.h)$"),
    (r"^openssl/", r"^proxy/net/tls_\w+\.(cc|h)$|^tests/(support|proxy/net)/tls_\w+\.(cc|h)$"),
    (r"^yaml-cpp/", r"^config/yaml_tree\.cc$"),
    (r"^prometheus/", r"^proxy/admin/|^backend-engine/api/\w*metrics\w*\.(cc|h)$"),
    (r"^spdlog/", r"^proxy/base/log\.cc$"),
    (r"^CLI/", r"^proxy/\w+\.cc$|^backend-engine/(main|api/serve_options)\.cc$"),
    (r"^pcre2\.h$|^utf8proc\.h$", r"^backend-engine/text/"),
    (r"^xxhash\.h$", r"^proxy/(cache|base)/|^backend-engine/load/"),
    (r"^(cuda|cublas|nccl)[\w.]*$", r"^backend-engine/(kernels/cuda|parallel|exec)/|^tests/gpu/"),
    (r"^gtest/", r"^tests/"),
    (r"^gmock/", r"^$"),
]
# Headers that take seconds to compile stay out of ours.
_HEAVY = re.compile(r"^(nlohmann/json\.hpp|simdjson\.h|yaml-cpp/.*|spdlog/.*|CLI/.*)$")

# folder: the folders of ours that it may include from. Arrows only go down.
_BASE = ["proxy/base"]
_NET = [*_BASE, "proxy/net"]
_HTTP = [*_NET, "proxy/http"]
_FLEET = [*_HTTP, "config", "lb-policies", "proxy/backends"]
_REQUEST = [*_FLEET, "proxy/cache", "proxy/request"]
_COMPUTE = [f"backend-engine/{room}" for room in ("sched", "model", "parallel", "kernels", "exec")]
_DOWN = {
    "config": [*_BASE, "config"],
    "lb-policies": [*_BASE, "lb-policies"],
    "proxy/base": _BASE,
    "proxy/net": _NET,
    "proxy/http": _HTTP,
    "proxy/cache": [*_HTTP, "proxy/cache"],
    "proxy/backends": _FLEET,
    "proxy/request": _REQUEST,
    "proxy/admin": [*_REQUEST, "proxy/admin"],
    "proxy": [*_REQUEST, "proxy/admin", "proxy"],
    "backend-engine/sched": ["backend-engine/sched"],
    "backend-engine/kernels": ["backend-engine/kernels"],
    "backend-engine/parallel": ["backend-engine/parallel", "backend-engine/kernels", "backend-engine/sched"],
    "backend-engine/model": _COMPUTE,
    "backend-engine/exec": _COMPUTE,
    "backend-engine/load": [*_BASE, *_COMPUTE, "backend-engine/load"],
    "backend-engine/text": [*_BASE, "backend-engine/load", "backend-engine/text"],
    "backend-engine/api": [*_HTTP, *_COMPUTE, "backend-engine/text", "backend-engine/load", "backend-engine/api"],
    "backend-engine": [*_HTTP, *_COMPUTE, "backend-engine/text", "backend-engine/load", "backend-engine/api",
                       "backend-engine"],
}
_OURS = ("proxy/", "backend-engine/", "lb-policies/", "config/", "tests/")
# Compute takes plain structs and needs the C++ library alone.
_COMPUTE_FOREIGN = re.compile(r"^(absl|nlohmann|simdjson|fmt|spdlog|yaml-cpp|prometheus|openssl)(/|\.h$)")


def _room(folder):
    """The row of _DOWN that a folder belongs to: itself, or the nearest one above."""
    while folder and folder not in _DOWN:
        folder = os.path.dirname(folder)
    return folder


def third_party(tree):
    for source in tree.cpp():
        for line, header in source.includes():
            for pattern, home in _HOMES:
                if re.search(pattern, header) and not re.search(home, source.path):
                    yield Finding(source.path, line, "home",
                                  f"<{header}> has its home in {home.strip('^$') or 'no file'}; call what is there")
            if source.is_header and _HEAVY.match(header) and not source.is_test:
                yield Finding(source.path, line, "home", f"<{header}> takes seconds to compile; include it in the .cc")
            if _room(source.folder) in _COMPUTE and _COMPUTE_FOREIGN.match(header):
                yield Finding(source.path, line, "home",
                              f"<{header}>: compute needs the C++ library alone; parse and report outside of it")


def direction(tree):
    for source in tree.cpp():
        room = _room(source.folder)
        for line, header in source.includes():
            if not header.startswith(_OURS):
                if "/" not in header and tree.exists(os.path.join(source.folder, header)):
                    yield Finding(source.path, line, "include",
                                  f'write #include "{source.folder}/{header}", from the root')
                continue
            if not tree.exists(header):
                yield Finding(source.path, line, "include", f"{header} does not exist")
            if source.is_test:
                continue
            if header.startswith("tests/"):
                yield Finding(source.path, line, "include", f"{header}: nothing outside tests/ includes from it")
            elif not room:
                yield Finding(source.path, line, "include",
                              f"{source.folder} is new; give it a row in _DOWN of tests/tidy/layout_rules.py")
            elif _room(os.path.dirname(header)) not in _DOWN[room]:
                yield Finding(source.path, line, "include",
                              f"{room} does not include from {os.path.dirname(header)}: arrows only go down")


def tested(tree):
    """Each source has x_test in its mirror below tests/, or a test that includes its
    header, or is a part of what has: a file of the same folder, included there, or
    behind a header that is. Without a header, a test of its folder may name it."""
    tests = [source for source in tree if source.is_test]
    headers = {header for test in tests if test.is_cpp for _, header in test.includes()}
    mirrored = {os.path.splitext(test.path)[0] for test in tests}
    sources = [source for source in tree.cpp() if not source.is_test]

    def reached(source, inside):
        base = os.path.splitext(source.path)[0]
        if f"{base}.h" in headers or f"tests/{base}_test" in mirrored:
            return True
        return not tree.exists(f"{base}.h") and (bool(inside & headers) or any(
            test.folder == f"tests/{source.folder}" and re.search(rf"\b{source.stem}\b", test.text)
            for test in tests))

    waiting, grown = sources, True
    while grown:
        grown, still = False, []
        for source in waiting:
            inside = {header for _, header in source.includes() if os.path.dirname(header) == source.folder}
            if reached(source, inside):
                grown, headers = True, headers | inside
            else:
                still.append(source)
        waiting = still
    for source in waiting:
        if (source.suffix in (".cc", ".cu") and source.stem not in ("main", "table")
                and not source.folder.startswith("backend-engine/kernels")  # Rows of kernels_test, checks of tests/gpu.
                and source.path not in allow.UNTESTED):
            base = os.path.splitext(source.path)[0]
            yield Finding(source.path, 1, "test", f"write tests/{base}_test.cc (or say why not in tests/tidy/allow.py)")


def included(tree):
    """A header that nothing includes is dead."""
    named = {header for source in tree.cpp() for _, header in source.includes()}
    for source in tree.cpp():
        if source.suffix in (".h", ".cuh", ".def") and source.path not in named:
            yield Finding(source.path, 1, "dead", "nothing includes it; use it or remove it")


RULES = [third_party, direction, tested, included]
