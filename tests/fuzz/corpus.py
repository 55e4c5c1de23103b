"""Corpora of fuzz targets: tests/fuzz/corpus/NAME.txt, an input a line, escaped so that
a line is readable text; libFuzzer works on folders of such inputs.

    \\n \\r \\t \\\\ and \\xHH; blanks at the end of a line are \\x20.
"""

import hashlib
import os
import re

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
BYTES_MAX = 192 * 1024       # Of one file.
INPUTS_MAX = 500
_NAMES = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", ord("\\"): "\\\\"}
_BACK = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}


def path_of(name):
    return os.path.join(FOLDER, f"{name}.txt")


def escape(data):
    text = "".join(_NAMES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7f else f"\\x{byte:02x}") for byte in data)
    return re.sub(r" $", r"\\x20", text)


def unescape(line):
    return b"".join(_BACK.get(match[1]) or bytes([int(match[2], 16)]) if match[0].startswith("\\")
                    else match[0].encode("ascii")
                    for match in re.finditer(r"\\(?:([nrt\\])|x([0-9a-f]{2}))|[^\\]+", line))


def inputs(name):
    if not os.path.exists(path_of(name)):
        return []
    with open(path_of(name), encoding="ascii") as file:
        return [unescape(line) for line in file.read().split("\n")[:-1]]


def unpack(name, folder):
    for data in inputs(name):
        with open(os.path.join(folder, hashlib.sha1(data).hexdigest()), "wb") as file:
            file.write(data)


def write(name, pieces):
    os.makedirs(FOLDER, exist_ok=True)
    with open(path_of(name), "w", encoding="ascii") as file:
        file.writelines(escape(data) + "\n" for data in pieces)


def pack(name, folder):
    """The inputs of a folder, the short ones first, up to the limits; what stood in the
    corpus before and is still wanted goes before new ones."""
    found = []
    for entry in os.listdir(folder):
        with open(os.path.join(folder, entry), "rb") as file:
            found.append(file.read())
    before = set(inputs(name))
    chosen, size = [], 0
    for data in sorted(found, key=lambda data: (data not in before, len(data), data)):
        size += len(escape(data)) + 1
        if size > BYTES_MAX or len(chosen) == INPUTS_MAX:
            break
        chosen.append(data)
    write(name, sorted(chosen, key=lambda data: (len(data), data)))
