#!/usr/bin/env python3
"""The expected texts of tests/backend-engine/text/templates/cases.json are what
Jinja itself renders, in the environment that Hugging Face renders chat
templates in. The C++ test beside them checks that ours are equal.

    tests/integration/chat_template_test.py --write     makes cases.json anew
"""
import copy
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "backend-engine/text/templates"
CASES = FOLDER / "cases.json"


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: {"%d %b %Y": "14 Nov 2023", "%Y-%m-%d": "2023-11-14"}[form]
    return env


def render(template, variables):
    """The text, or None where the template fails."""
    try:
        return environment().from_string(template).render(**copy.deepcopy(variables))
    except Exception:  # Whatever Python raises is a template that fails.
        return None


def conversations():
    user = {"role": "user", "content": "  What is a turbine? "}
    system = {"role": "system", "content": "Speak plainly.\n"}
    answer = {"role": "assistant", "content": "<think>\nhm, water\n</think>\n\nA machine."}
    more = {"role": "user", "content": "Größe? 漢字 \"quotes\" & <tags> 'x' \\ \n\ttab"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "id": "1", "function": {
        "name": "weather", "arguments": {"city": "Zürich", "days": 3, "exact": True, "scale": 1.50, "at": None}}}]}
    two = {"role": "assistant", "content": "Let me see.", "tool_calls": [
        {"type": "function", "function": {"name": "a", "arguments": "{\"x\": 1}"}},
        {"type": "function", "function": {"name": "b", "arguments": {}}}]}
    got = {"role": "tool", "content": "{\"temp\": 3.0}"}
    parts = {"role": "tool", "content": {"list": [1, 2.5, 1e22, -0.0001], "empty": {}, "none": []}}
    return {
        "question": [user], "system": [system, user], "turns": [system, user, answer, more],
        "systems": [system, user, system, {"role": "user", "content": "!not me!"}],
        "call": [user, call, got, answer], "calls": [system, user, two, got, got, more],
        "open call": [user, call, got], "parts": [user, call, parts], "none": [],
        "stranger": [user, {"role": "robot", "content": "x"}], "no content": [{"role": "user"}]}


def tools():
    return [
        {"type": "function", "function": {"name": "weather", "description": "Tells the weather.\nAnywhere.",
         "parameters": {"type": "object", "required": ["city"], "properties": {
             "city": {"type": "string", "description": "a \"city\" <b>"}, "days": {"type": "integer", "maximum": 14},
             "unit": {"enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": ["string", "null"]}}}}}},
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]


def cases():
    """(name, template, variables): every template of the folder over the conversations, then one-liners."""
    for path in sorted(FOLDER.glob("*.jinja")):
        for name, messages in conversations().items():
            for extra in ({"tools": None, "add_generation_prompt": True},
                          {"tools": tools(), "add_generation_prompt": False, "thinking": False},
                          {"tools": tools(), "place": "top", "own_tools": ["python", "weather"], "today": "1 May",
                           "add_generation_prompt": True}):
                variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **extra}
                yield f"{path.name}: {name}", "@" + path.name, variables
    variables = json.loads((FOLDER / "variables.json").read_text())
    for number, line in enumerate((FOLDER / "lines.txt").read_text().splitlines(), 1):
        if line and not line.startswith("##"):
            yield f"lines.txt:{number}", line.replace("⏎", "\n").replace("␍", "\r"), variables


def source(template):
    return (FOLDER / template[1:]).read_text() if template.startswith("@") else template


def main():
    made = [{"name": name, "template": template, "expected": render(source(template), variables),
             **({} if name.startswith("lines.txt") else {"variables": variables})}
            for name, template, variables in cases()]
    text = json.dumps(made, ensure_ascii=False, indent=0) + "\n"
    if "--write" in sys.argv:
        CASES.write_text(text)
        return 0
    known = json.loads(CASES.read_text())
    wrong = [new["name"] for new, old in zip(made, known) if new != old]
    if wrong or len(made) != len(known):
        print(f"{CASES}: {len(made)} cases made, {len(known)} kept; differ: {wrong[:10]}; "
              "run tests/integration/chat_template_test.py --write")
        return 1
    print(f"{len(made)} cases are what Jinja {jinja2.__version__} renders, "
          f"{sum(case['expected'] is None for case in made)} of them failures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
