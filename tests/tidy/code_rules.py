"""Sizes, words and calls: what can be seen in one file."""

import os
import re

from tests.tidy import allow
from tests.tidy.tree import Finding

HEADER_LINES, SOURCE_LINES, FUNCTION_LINES = 200, 600, 70
# Aim at 100 columns; what is a little longer is not worth a worse line.
CPP_COLUMNS, OTHER_COLUMNS = 110, 120


def sizes(tree):
    for source in tree:
        if not (source.is_cpp or source.suffix in (".py", ".sh")):
            continue
        lines = source.lines()
        limit = allow.FILE_LINES.get(source.path, (HEADER_LINES if source.is_header else SOURCE_LINES, ""))[0]
        if len(lines) > limit:
            yield Finding(source.path, limit + 1, "size",
                          f"{len(lines)} lines, more than {limit}; is there a second room in it? Make it a file")
        for number, line in enumerate(lines, 1):
            columns = CPP_COLUMNS if source.is_cpp and '"' not in line else OTHER_COLUMNS
            if len(line) > columns:
                yield Finding(source.path, number, "size", f"{len(line)} columns; break the line at {columns}")
        if source.is_cpp:
            for first, count, name in source.functions():
                limit = allow.FUNCTION_LINES.get(f"{source.path}:{name}", (FUNCTION_LINES, ""))[0]
                if count > limit:
                    yield Finding(source.path, first, "size", f"{name} has {count} lines, more than {limit}; "
                                  "name its states or steps as functions")


def allowances(tree):
    """An entry of the allow-lists that nothing needs any more goes."""
    where = "tests/tidy/allow.py"
    for path in allow.FILE_LINES:
        source = tree.sources.get(path)
        if not source or len(source.lines()) <= (HEADER_LINES if source.is_header else SOURCE_LINES):
            yield Finding(where, 1, "allow", f"{path} needs no FILE_LINES any more; take it out")
    for key in allow.FUNCTION_LINES:
        path, _, name = key.partition(":")
        source = tree.sources.get(path)
        if not source or all(found != name or count <= FUNCTION_LINES for _, count, found in source.functions()):
            yield Finding(where, 1, "allow", f"{key} needs no FUNCTION_LINES any more; take it out")
    for path in [*allow.UNTESTED, *(path for _, path in allow.EXCUSED)]:
        if not tree.exists(path):
            yield Finding(where, 1, "allow", f"{path} does not exist; take it out")


# (pattern, what to write instead, where it is fine). One word per thing.
_WORDS = [
    (r"(?i)\w*(?<![a-z])up_?stream\w*", "backend (or client, if that is what it faces)", None),
    (r"(?i)\w*(?<![a-z])down_?stream\w*", "client (or backend, if that is what it faces)", None),
    (r"\b\w*(?:Manager|_manager|manager_)\w*|\bmanager\b", "what it does: a table, a pool, an owner of ...", None),
    (r"\b\w*(?:Helper|_helper|helper_)\w*|\bhelpers?\b", "what it does, or a plain function", None),
    (r"\b\w*Utils?\b|\b\w*_utils?\b|\butils?\b", "the name of the thing it knows about", None),
    (r"\b\w+Impl\b|\b\w+_impl\b", "the thing's own name (an Impl class inside a .cc is fine)", r"\.(cc|cu)$"),
]

_CLOCKS = "the time handed down (TimerQueue, MonoTime now); the loop and the engine alone read a clock"
_CALLS = [
    (r"\babsl::Now\(|\b(?:steady|system|high_resolution)_clock::now\b|\buv_(?:now|hrtime)\(|\bgettimeofday\("
     r"|\bclock_gettime\(", _CLOCKS,
     r"^proxy/net/loop\.cc$|^backend-engine/exec/(engine|device_watch)\.cc$|^tests/bench/|^tests/gpu/speed_\w+\.cc$"),
    (r"\bstd::random_device\b|(?<![\w:.>])s?rand\(", "the seed handed down; only a main.cc makes one",
     r"/main\.cc$|^backend-engine/api/serve\.cc$"),
    (r"(?<![\w:])(?:u|nano)?sleep\(|\bsleep_(?:for|until)\(",
     "a timer of the TimerQueue, or a condition to wait for", None),
    (r"(?<![\w])throw\b(?!\s*\()", "absl::Status for what the outside can cause, CHECK for our own promises",
     r"^tests/"),
    (r"\bstd::(?:cout|cerr|clog)\b|(?<![\w:])printf\(|\bstd::printf\(",
     "the log of proxy/base/log.h; only a main.cc writes to the terminal", r"/main\.cc$|/cli\.cc$|^tests/"),
    (r"\babsl::(?:Mutex|MutexLock)\b", "std::mutex: Debian's abseil is not built for TSan", None),
    (r"\babsl::string_view\b", "std::string_view, bridged by A() and S() of proxy/base/status.h",
     r"^proxy/base/status\.h$|^tests/"),
    (r"\bstd::regex\b", "RE2 or PCRE2: std::regex recurses on its input", r"^tests/"),
    (r"\bstd::endl\b", r"'\n'", None),
    (r"\bstd::format\b", "fmt::format: g++ 12 has no std::format", None),
    (r"(?<![\w:])(?:sprintf|strcpy|strcat|strtok|atoi|atol|atof|gets)\(",
     "fmt, std::string_view, std::from_chars", None),
    (r"(?<![\w:])assert\(", "CHECK of proxy/base/check.h, which stays in release builds", None),
    (r"\busing namespace (?!std::\w*literals)\w+", "the names that are needed", r"/main\.cc$"),
    (r"\bllhttp_set_lenient_\w+", "nothing: hostile framing is refused", None),
    (r"\bNOLINT\b(?!\()", "NOLINT(rule): why", None),
    (r"#\s*if(?:n?def)?\b.*\bTEST\b", "code that a test can call as it is", None),
    (r"\bgmock\b|\bMOCK_METHOD\b", "the real object on in-memory streams", None),
]


def words_and_calls(tree):
    for source in tree.cpp():
        for rule, table, text in (("word", _WORDS, source.code), ("call", _CALLS, source.code)):
            for pattern, instead, fine in table:
                if fine and re.search(fine, source.path):
                    continue
                for line, match in source.find(pattern, text):
                    yield Finding(source.path, line, rule, f"'{match[0].strip()}': write {instead}")


# Words that no comment, document or message may hold either.
_PROSE = [
    (r"\b(FI" + r"XME|X" + r"XX|HA" + r"CK)\b", "mend it, or a TODO with its reason"),
    (r"\bTO" + r"DO\b(?!\([^)]{8,}\))", "TODO(the reason in some words), or nothing"),
    (r"(?<![\w.-])/wo" + r"rk/", "a path from the project's root"),
    (r"(?i)\b(up|down)stream (server|backend|cluster|host|connection|service)s?\b", "backend, or client"),
]


def prose(tree):
    for source in tree:
        if source.path.startswith("tests/tidy/") or source.suffix in (".json", ".safetensors"):
            continue
        for pattern, instead in _PROSE:
            for line, match in source.find(pattern, source.text):
                yield Finding(source.path, line, "prose", f"'{match[0]}': write {instead}")


def forms(tree):
    """Headers begin with #pragma once; what is executable says by what; files end with a newline."""
    for source in tree:
        if source.is_header and "#pragma once" not in source.text:
            yield Finding(source.path, 1, "form", "write #pragma once below the comment at the top")
        if source.is_header and not source.is_test and not source.text.startswith("//"):
            yield Finding(source.path, 1, "form", "begin with a comment: what is it for, on which thread?")
        if source.suffix != ".json" and source.text and not source.text.endswith("\n"):
            yield Finding(source.path, len(source.lines()), "form", "end the file with a newline")
        if re.search(r"(?m)[ \t]+$", source.text) and source.suffix not in (".md", ".json"):
            line = next(n for n, text in enumerate(source.lines(), 1) if text != text.rstrip())
            yield Finding(source.path, line, "form", "no blanks at the end of a line")
        executable = os.access(os.path.join(tree.root, source.path), os.X_OK)
        if executable != source.text.startswith("#!"):
            yield Finding(source.path, 1, "form",
                          "chmod -x, or begin with #!" if executable else "chmod +x: it begins with #!")


RULES = [sizes, allowances, words_and_calls, prose, forms]
