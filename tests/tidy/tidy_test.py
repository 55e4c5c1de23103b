"""The rules of the house that a program can check, over the whole tree.

    python3 tests/tidy/tidy_test.py

prints file:line: rule: what to write instead, and exits 1 if there is anything
to say. What may break a rule stands in allow.py with its reason.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tests.tidy import allow, code_rules, doc_rules, layout_rules  # noqa: E402
from tests.tidy.tree import Tree  # noqa: E402

RULES = [*code_rules.RULES, *layout_rules.RULES, *doc_rules.RULES]


def main():
    tree = Tree()
    findings = {finding for rule in RULES for finding in rule(tree)
                if (finding.rule, finding.path) not in allow.EXCUSED}
    for finding in sorted(findings, key=lambda finding: (finding.path, finding.line, finding.rule, finding.text)):
        print(finding)
    print(f"tidy: {len(tree.sources)} files, {len(findings)} to mend")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
