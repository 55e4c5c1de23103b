"""Documents that say what the code says: policies, metrics, fields, folders,
hops; one title each, links that lead somewhere."""

import os
import re

from tests.tidy.tree import Finding

_ARCHITECTURE = "docs/architecture.md"
_LIVES = {"docs/life-of-a-request.md": ["proxy", "lb-policies"],
          "docs/life-of-a-token.md": ["backend-engine", "proxy"]}


def _rows(text):
    """(line, first cell) of every table row, without marks."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\|\s*`?([^|`]+?)`?\s*\|", line)
        if match and not re.match(r"^[-: ]+$", match[1]):
            yield number, match[1]


def _required(tree, path):
    """The text of a document that must be there, with a finding where it is not."""
    text = tree.text(path)
    return text or "", [] if text is not None else [Finding(path, 1, "docs", "write this page")]


def policies(tree):
    text, findings = _required(tree, "docs/lb-policies.md")
    yield from findings
    definitions = tree.sources["lb-policies/policies.def"]
    rows = {cell for _, cell in _rows(text)}
    for line, match in definitions.find(r"(?m)^POLICY\(\s*(\w+)", definitions.text):
        if text and match[1] not in rows:
            yield Finding(definitions.path, line, "docs", f"give {match[1]} a row in docs/lb-policies.md")


def metrics(tree):
    """Every metric of the code has a row, every row a metric in the code."""
    text, findings = _required(tree, "docs/metrics.md")
    yield from findings
    found = {}
    for source in tree.cpp():
        if source.path.startswith(("proxy/", "backend-engine/")):
            for line, match in source.find(r'"(penstock_[a-z0-9_]+)["{ ]', source.no_comments):
                found.setdefault(match[1], (source.path, line))
    named = {}
    for line, cell in _rows(text):
        for name in re.findall(r"penstock_[a-z0-9_]+", cell):
            named[name] = line
    for name, (path, line) in sorted(found.items()):
        if text and name not in named:
            yield Finding(path, line, "docs", f"give {name} a row in docs/metrics.md")
    for name, line in sorted(named.items()):
        if name not in found:
            yield Finding("docs/metrics.md", line, "docs", f"{name} is not in the code; take the row out")


def fields(tree):
    """Every row of the field table is in the commented example and in the reference."""
    text, findings = _required(tree, "docs/policy-file.md")
    yield from findings
    table = tree.sources["config/fields.cc"]
    example = tree.text("config/example.yaml") or ""
    for line, match in table.find(r'(?:<&[\w:]+>|List|Section|Choice)[\w<>&:, ]*\("([a-z0-9_]+)"', table.no_comments):
        key = match[1]
        if not re.search(rf"(?<![\w]){key}(?![\w])", example):
            yield Finding(table.path, line, "docs", f"give '{key}' a line in config/example.yaml")
        if text and not re.search(rf"(?<![\w]){key}(?![\w])", text):
            yield Finding(table.path, line, "docs", f"give '{key}' a row in docs/policy-file.md "
                          "(build/bin/penstock schema --markdown prints it)")


def errors(tree):
    """The rows of docs/errors.md are those of the table of error answers, in its order."""
    text, findings = _required(tree, "docs/errors.md")
    yield from findings
    table = tree.sources["proxy/http/error_reply.cc"]
    code = [(match[1], match[3], match[2]) for _, match in table.find(
        r'\{(\d{3}), (k\w+), "(\w+)", "', table.no_comments)]
    types = dict(match.groups() for _, match in table.find(
        r'string_view (k\w+) = "(\w+)";', table.no_comments))
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d{3}) \| (\w+) \|", text)
    wanted = [(word, status, types.get(kind, kind)) for status, word, kind in code]
    for row in [row for row in wanted if text and row not in rows]:
        yield Finding(table.path, 1, "docs", f"give docs/errors.md the row | `{row[0]}` | {row[1]} | {row[2]} |")
    for row in [row for row in rows if row not in wanted]:
        yield Finding("docs/errors.md", 1, "docs", f"{row[0]} with {row[1]} is not in {table.path}; take the row out")


def architecture(tree):
    """Every folder stands on the page, and everything on the page exists."""
    text, findings = _required(tree, _ARCHITECTURE)
    yield from findings
    for folder in tree.code_folders() if text else []:
        if not re.search(rf"(?<![\w/-]){re.escape(folder)}(?![\w-])", text):
            yield Finding(_ARCHITECTURE, 1, "docs", f"say what {folder} is for")
    yield from _paths_exist(tree, _ARCHITECTURE, text, ["proxy", "backend-engine"])
    # A row of a life begins with its number; the first file that it names is the hop.
    for path in _LIVES:
        for number, line in enumerate((tree.text(path) or "").splitlines(), 1):
            hop = re.match(r"\| *\d+ *\|.*?([\w-]+/[\w.-]+\.cc)", line)
            if hop and text and hop[1] not in text:
                yield Finding(path, number, "docs", f"put the hop {hop[1]} on {_ARCHITECTURE}")


def lives(tree):
    """Every hop names a file that exists, and no folder on the way is left out."""
    for path, rooms in _LIVES.items():
        text, findings = _required(tree, path)
        yield from findings
        yield from _paths_exist(tree, path, text, rooms)
    request = tree.text("docs/life-of-a-request.md") or ""
    for folder in tree.code_folders() if request else []:
        if folder.startswith("proxy/") and folder not in ("proxy/base", "proxy/admin"):
            if f"{folder}/" not in request and f"{folder.removeprefix('proxy/')}/" not in request:
                yield Finding("docs/life-of-a-request.md", 1, "docs", f"no hop is in {folder}; name the one that is")


def _paths_exist(tree, path, text, rooms):
    """Paths in backquotes or table cells, from the root or from one of `rooms`."""
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"(?<![\w/.:-])((?:[\w.-]+/)*[\w-]+\.(?:cc|cu|h|def|py|yaml|sh))(?![\w])", line):
            if "/" not in name and not any(
                    os.path.basename(source.path) == name for source in tree):
                yield Finding(path, number, "docs", f"{name} does not exist")
            elif "/" in name and not any(tree.exists(os.path.join(room, name)) for room in ["", *rooms]):
                yield Finding(path, number, "docs", f"{name} does not exist")
        for name in re.findall(r"`((?:proxy|backend-engine|lb-policies|config|tests|docs)(?:/[\w.-]+)*/?)`", line):
            if not tree.exists(name.rstrip("/")):
                yield Finding(path, number, "docs", f"{name} does not exist")


def titles_and_links(tree):
    for source in tree.docs():
        # Code blocks hold no titles and no links.
        text = re.sub(r"(?ms)^```.*?^```", lambda match: re.sub(r"[^\n]", " ", match[0]), source.text)
        titles = [line for line, match in source.find(r"(?m)^# \S", text)]
        if len(titles) != 1:
            yield Finding(source.path, titles[1] if titles else 1, "docs", f"one '# Title' a page, not {len(titles)}")
        for line, match in source.find(r"\]\(([^)\s]+)\)", text):
            link, _, anchor = match[1].partition("#")
            if re.match(r"^[a-z]+:", link):
                continue
            target = os.path.normpath(os.path.join(source.folder, link)) if link else source.path
            if not tree.exists(target):
                yield Finding(source.path, line, "docs", f"the link to {match[1]} leads nowhere")
            elif anchor and target in tree.sources and anchor not in _anchors(tree.sources[target].text):
                yield Finding(source.path, line, "docs", f"there is no heading #{anchor} in {target}")


def _anchors(text):
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"(?m)^#+ +(.+)$", text)}


def hardening(tree):
    """Every test that the page names exists, and every row names one."""
    path = "docs/hardening.md"
    text, findings = _required(tree, path)
    yield from findings
    suites = {f"{match[1]}.{match[2]}" for source in tree.cpp() if source.is_test
              for _, match in source.find(r"\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)")}
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 4 or cells[0] in ("row", "---"):
            continue
        names = re.findall(r"`([^`]+)`", cells[3])
        if not names:
            yield Finding(path, number, "docs", f"name the test of {cells[0]}")
        for name in names:
            script, _, method = name.partition(": ")
            found = tree.text(f"tests/integration/{script}") if method else None
            if name not in suites and f"def {method}(" not in (found or ""):
                yield Finding(path, number, "docs", f"there is no test {name}")


RULES = [policies, metrics, fields, errors, architecture, lives, hardening, titles_and_links]
