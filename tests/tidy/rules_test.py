"""The tidy rules see what they should, and nothing else."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tests.tidy import code_rules, doc_rules, layout_rules  # noqa: E402
from tests.tidy.tree import ROOT, Source  # noqa: E402


class SmallTree:
    """A few files that exist only here."""

    root = ROOT

    def __init__(self, **files):
        self.sources = {path: Source(path, text) for path, text in files.items()}

    def __iter__(self):
        return iter(self.sources.values())

    def cpp(self):
        return [source for source in self if source.is_cpp]

    def docs(self):
        return [source for source in self if source.suffix == ".md"]

    def text(self, path):
        return self.sources[path].text if path in self.sources else None

    def exists(self, path):
        return path in self.sources

    def code_folders(self):
        return sorted({source.folder for source in self.cpp()})


def findings(rule, **files):
    return [(finding.path, finding.line) for finding in rule(SmallTree(**files))]


class FunctionsTest(unittest.TestCase):
    def sizes(self, text):
        return [(name, count) for _, count, name in Source("a.cc", text).functions()]

    def test_measures_each_function_from_its_signature_to_its_brace(self):
        self.assertEqual(self.sizes("int A(int x) {\n  return x;\n}\n\nvoid B() {}\n"), [("A", 3), ("B", 1)])

    def test_counts_lambdas_and_blocks_to_the_function_around_them(self):
        self.assertEqual(self.sizes("void A() {\n  auto f = [](int x) {\n    if (x) {\n    }\n  };\n}\n"), [("A", 6)])

    def test_sees_methods_and_constructors_with_braced_members(self):
        text = "class A {\n  A(int x) : x_{x}, y_(0) {\n    Go();\n  }\n  int B() const { return x_; }\n};\n"
        self.assertEqual(self.sizes(text), [("A", 3), ("B", 1)])

    def test_takes_no_table_struct_or_namespace_for_a_function(self):
        self.assertEqual(self.sizes("namespace n {\nint t[] = {F(1), 2};\nstruct S {\n  int x = f(2);\n};\n}\n"), [])


class WordsTest(unittest.TestCase):
    def test_finds_a_banned_call_and_a_banned_word_in_code(self):
        text = "// A.\nint t = time_;\nauto x = std::regex(a);\nUpstreamHost* h;\n"
        self.assertEqual(findings(code_rules.words_and_calls, **{"proxy/a.cc": text}),
                         [("proxy/a.cc", 4), ("proxy/a.cc", 3)])

    def test_leaves_comments_and_strings_alone(self):
        text = '// No std::regex here, 10\'000 times.\nauto s = "std::regex";\nint n = 10\'000;\n'
        self.assertEqual(findings(code_rules.words_and_calls, **{"proxy/a.cc": text}), [])

    def test_wants_a_reason_with_a_thing_left_to_do(self):
        mark = "TO" + "DO"
        text = f"// {mark}: later\n// {mark}(needs libuv 1.45 for the metric)\n"
        self.assertEqual(findings(code_rules.prose, **{"proxy/a.cc": text}), [("proxy/a.cc", 1)])


class LayoutTest(unittest.TestCase):
    def test_refuses_an_include_that_goes_up(self):
        files = {"proxy/net/a.cc": '#include "proxy/http/b.h"\n', "proxy/http/b.h": "#pragma once\n"}
        self.assertEqual(findings(layout_rules.direction, **files), [("proxy/net/a.cc", 1)])
        files = {"proxy/http/a.cc": '#include "proxy/net/b.h"\n', "proxy/net/b.h": "#pragma once\n"}
        self.assertEqual(findings(layout_rules.direction, **files), [])

    def test_refuses_a_foreign_header_outside_its_home(self):
        self.assertEqual(findings(layout_rules.third_party, **{"proxy/request/a.cc": "#include <uv.h>\n"}),
                         [("proxy/request/a.cc", 1)])
        self.assertEqual(findings(layout_rules.third_party, **{"proxy/net/a.cc": "#include <uv.h>\n"}), [])

    def test_wants_a_test_for_each_source(self):
        self.assertEqual(findings(layout_rules.tested, **{"proxy/net/a.cc": ""}), [("proxy/net/a.cc", 1)])
        self.assertEqual(findings(layout_rules.tested, **{"proxy/net/a.cc": "", "tests/proxy/net/a_test.cc": ""}), [])

    def test_takes_what_a_tested_file_of_the_folder_includes_for_tested(self):
        files = {"proxy/net/a.cc": '#include "proxy/net/b.h"\n', "proxy/net/b.cc": "", "proxy/net/b.h": "",
                 "tests/proxy/net/a_test.cc": ""}
        self.assertEqual(findings(layout_rules.tested, **files), [])


class DocsTest(unittest.TestCase):
    def test_compares_metrics_both_ways(self):
        files = {"proxy/admin/metrics.cc": 'Add("penstock_a_total");\nAdd("penstock_b_total");\n',
                 "docs/metrics.md": "| metric |\n|---|\n| `penstock_a_total` |\n| `penstock_c_total` |\n"}
        self.assertEqual(findings(doc_rules.metrics, **files),
                         [("proxy/admin/metrics.cc", 2), ("docs/metrics.md", 4)])

    def test_follows_links_and_their_anchors(self):
        files = {"docs/a.md": "# A\n\n[b](b.md) [c](c.md) [d](b.md#two-words) [e](b.md#three)\n",
                 "docs/b.md": "# B\n\n## Two words\n"}
        self.assertEqual(findings(doc_rules.titles_and_links, **files), [("docs/a.md", 3), ("docs/a.md", 3)])

    def test_wants_every_folder_on_the_page_and_every_path_of_it_in_the_tree(self):
        files = {"proxy/net/loop.cc": "", "proxy/http/sse.cc": "",
                 "docs/architecture.md": "`proxy/net`: wires, see `proxy/net/loop.cc` and `proxy/net/gone.cc`\n"}
        lines = [finding.text for finding in doc_rules.architecture(SmallTree(**files))]
        self.assertIn("say what proxy/http is for", lines)
        self.assertTrue(any("proxy/net/gone.cc does not exist" in line for line in lines), lines)
        self.assertFalse(any("loop.cc" in line for line in lines), lines)

    def test_a_row_of_errors_that_differs_from_the_table_is_told_on_both_sides(self):
        table = 'constexpr std::string_view kClient = "client_error";\n{400, kClient, "bad", "word", false},\n'
        files = {"proxy/http/error_reply.cc": table}
        right, wrong = "| `bad` | 400 | client_error | when |\n", "| `bad` | 401 | client_error | when |\n"
        self.assertEqual(findings(doc_rules.errors, **files, **{"docs/errors.md": right}), [])
        self.assertEqual(findings(doc_rules.errors, **files, **{"docs/errors.md": wrong}),
                         [("proxy/http/error_reply.cc", 1), ("docs/errors.md", 1)])


if __name__ == "__main__":
    unittest.main()
