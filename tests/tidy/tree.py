"""The files of the project, and C++ seen as comments, strings, code and functions."""

import os
import re
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SKIPPED_FOLDERS = re.compile(r"^(build|build-.*|\.git|\.cuda|\.venv|\.run|node_modules|__pycache__|models|corpus)$")
_CPP = (".cc", ".h", ".cu", ".cuh", ".def")
# A comment, a raw string, a string or a character: whichever begins first. A
# quote between digits (10'000) begins none.
_NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    text: str  # What to write instead.

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


@dataclass
class Source:
    """One file. `code`: with comments and the insides of strings as spaces, so
    that lines and columns stay; `no_comments`: with comments alone as spaces."""

    path: str
    text: str
    code: str = field(init=False)
    no_comments: str = field(init=False)

    def __post_init__(self):
        self.code = self.no_comments = self.text
        if self.is_cpp:
            self.code = _NOT_CODE.sub(self._without_inside, self.text)
            self.no_comments = _NOT_CODE.sub(
                lambda match: _blank(match[0]) if match[0].startswith("/") else match[0], self.text)
        elif self.suffix in (".py", ".sh", ""):
            self.code = self.no_comments = re.sub(r"(?m)(^|\s)#.*$", lambda match: _blank(match[0]), self.text)

    @staticmethod
    def _without_inside(match):
        text = match[0]
        return _blank(text) if text.startswith("/") else text[0] + _blank(text[1:-1]) + text[-1]

    @property
    def suffix(self):
        return os.path.splitext(self.path)[1]

    @property
    def is_cpp(self):
        return self.suffix in _CPP

    @property
    def is_header(self):
        return self.suffix in (".h", ".cuh")

    @property
    def folder(self):
        return os.path.dirname(self.path)

    @property
    def stem(self):
        return os.path.splitext(os.path.basename(self.path))[0]

    @property
    def is_test(self):
        return self.path.startswith("tests/")

    def lines(self):
        return self.text.splitlines()

    def includes(self):
        """(line, "header") of every #include."""
        for match in re.finditer(r'(?m)^[ \t]*#[ \t]*include[ \t]+[<"]([^>"]+)[>"]', self.no_comments):
            yield self.line_of(match.start(1)), match[1]

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def find(self, pattern, text=None):
        """(line, match) of a pattern in `text`, or in the code."""
        for match in re.finditer(pattern, self.code if text is None else text):
            yield self.line_of(match.start()), match

    def functions(self):
        """(first line, line count, signature) of every function with a body."""
        return list(_functions(self.code))


_NO_FUNCTION = re.compile(r"(^|\s)(namespace|class|struct|union|enum|extern)\b|[=(,]\s*$")
_CONTROL = re.compile(r"^\s*(if|for|while|switch|do|else|try|catch)\b")
_MEMBER_INIT = re.compile(r"\)\s*(noexcept\s*)?:[^:].*[\w>]$", re.DOTALL)


def _functions(code):
    """Walks the braces. A body that opens behind a parameter list, in a
    namespace or a class, is a function's; a lambda belongs to its function."""
    code = re.sub(r"(?m)^[ \t]*#.*(?:\\\n.*)*$", lambda match: _blank(match[0]), code)
    open_scopes = []  # (kind, offset of the statement)
    start = 0
    for match in re.finditer(r"[{};]", code):
        at, mark = match.start(), match[0]
        in_function = any(kind == "function" for kind, _ in open_scopes)
        if mark == ";":
            start = at + 1
        elif mark == "{":
            statement = code[start:at]
            if _MEMBER_INIT.search(statement.rstrip()) and not in_function:
                open_scopes.append(("init", start))
                continue
            is_function = ("(" in statement and not in_function and not _NO_FUNCTION.search(statement)
                           and not _CONTROL.match(statement))
            open_scopes.append(("function" if is_function else "other", start))
            start = at + 1
        elif open_scopes:
            kind, begun = open_scopes.pop()
            if kind == "init":
                start = begun  # The statement goes on.
                continue
            start = at + 1
            if kind == "function":
                begun += len(code[begun:at]) - len(code[begun:at].lstrip())
                first = code.count("\n", 0, begun) + 1
                signature = code[begun:code.index("{", begun)].split("(")[0].split()
                yield first, code.count("\n", begun, at) + 1, signature[-1] if signature else "?"


class Tree:
    """Every text file of the project, by its path from the root."""

    def __init__(self, root=ROOT):
        self.root = root
        self.sources = {}
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not _SKIPPED_FOLDERS.match(name))
            for name in sorted(set(names) - {".git"}):  # A file, where this is one of several working trees.
                path = os.path.relpath(os.path.join(folder, name), root)
                try:
                    with open(os.path.join(root, path), encoding="utf-8") as file:
                        self.sources[path] = Source(path, file.read())
                except UnicodeDecodeError:
                    pass  # A binary.

    def __iter__(self):
        return iter(self.sources.values())

    def cpp(self):
        return [source for source in self if source.is_cpp]

    def docs(self):
        return [source for source in self if source.suffix == ".md"]

    def text(self, path):
        """The text of a file, or None where it is not there."""
        return self.sources[path].text if path in self.sources else None

    def exists(self, path):
        return os.path.exists(os.path.join(self.root, path))

    def code_folders(self):
        """Folders below the four rooms that hold C++."""
        return sorted({source.folder for source in self.cpp()
                       if source.path.split("/")[0] in ("proxy", "backend-engine", "lb-policies", "config")})
