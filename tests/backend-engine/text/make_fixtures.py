#!/usr/bin/env python3
"""Makes fixtures/<name>/{tokenizer.json,cases.json}: what PyPI's `tokenizers`
says about small BPEs with the pre-tokenizers of published models. The fixtures
are committed, so that the tests need neither Python nor the package:

    python3 -m venv venv && venv/bin/pip install tokenizers
    venv/bin/python tests/backend-engine/text/make_fixtures.py
"""
import json
import pathlib
import random

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parents[2] / "backend-engine/models/lexicon-5m"

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "llama3": [WORDS + r"\p{N}{1,3}" + TAIL],
    "qwen2": [WORDS + r"\p{N}" + TAIL],
    "deepseek_v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
}

TEXTS = [
    "", " ", "  ", "a", "\n", "\r\n", " \n ", "\n\n\n", "\t\tx", "   leading", "trailing   ",
    "Hello, world! It's we'll I'D 'S 'ſ they'Ve", "don't DON'T", "1234567890 3.14159 1,000,000 x1y22z333",
    "٣٤٥ Ⅷ ½ ²³", "naïve café cafe\u0301 A\u030a Å \u1e9b\u0323", "straße ΑΣ ǅ ﬁ ﬂ",
    "日本語のテキスト、カタカナ。中文字符！한국어 띄어쓰기", "привет мир Ёлка", "שָׁלוֹם عَرَبِيّ हिन्दी ไทย",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 \U0001F1E9\U0001F1EA",
    "zero\u200bwidth\u200djoin\ufeffbom\u2060", "nbsp\u00a0 \u2003em\u3000ideo\u180emongol",
    "line\u2028sep\u2029par\x85nel\x0bvt\x0cff", "\x00\x01\x1f\x7f\x80\x9f", "\ufffd\ufffe\U0010ffff\U000e0001",
    "#include <stdio.h>\nint main(void) {\n\treturn 0; // done\n}\n", "for (int i=0;i<10;++i)  a[i] = b[i];\n\n\n  }",
    "https://example.org/a/b?c=d&e=%20#f", "!!!???...;;;---___", " !a !! a!b\n\n!\r\n", "'''\"\"\"```",
    "$\\int_0^1 x^2\\,dx = \\frac{1}{3}$", "a" * 300, " " * 300 + "x", "\n" * 200, "ab" * 200, "!" * 150, "1" * 100,
    "e\u0301\u0327\u0323" * 20, "\u0315\u0300\u05ae" * 30, "가각\u1100\u1161\u11a8", "ẞßſK\u212a\u2126",
    "<|begin|>text<|end|>", "a<|end|> b <|end|>\n", "<|en<|end|>d|>", "<|end|><|end|>", " <|end|> ",
    "word", "a word b", "awordb", "word!", "  [L]  [R]  x", "[L][R]", "tag tagged tag", "<tag>tag_tag</tag>",
    "N\u00f6rm No\u0308rm", "xN\u00f6rmx xNo\u0308rmx", "\U0001d54f\U00020000\U0002f800",
]


def corpus():
    golden = json.loads((MODEL / "golden.json").read_text())
    texts = [case["question"] + " " + case["answer"] for case in golden["answers"]]
    return texts + TEXTS


def random_texts(count):
    rng = random.Random(7)
    alphabet = list("aAzé '’sStT\t\n\r .,!?<|>[]{}09٣½Ωжß漢かカ한\u0301\u0323\u200d\u00a0\u3000👍🏽") + [
        "<|end|>", "<|begin|>", "word", "tag", "[L]", "[R]", "Nörm", "'ll", "\r\n", "   "]
    return ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(count)]


def build(name, patterns):
    tok = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    if name == "qwen2":
        tok.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(p), behavior="isolated", invert=False) for p in patterns]
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=[],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens(["<|begin|>", "<|end|>"])
    tok.add_tokens([
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("[L]", lstrip=True, normalized=False),
        AddedToken("[R]", rstrip=True, normalized=False),
        AddedToken("tag", normalized=True),
        AddedToken("Nörm", normalized=True),
    ])
    if name == "llama3":
        begin = tok.token_to_id("<|begin|>")
        tok.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)])])
    return tok


def main():
    for name, patterns in PATTERNS.items():
        folder = HERE / "fixtures" / name
        folder.mkdir(parents=True, exist_ok=True)
        tok = build(name, patterns)
        document = json.loads(tok.to_str())
        if name == "deepseek_v3":  # The older spelling of merges.
            document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
        (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, indent=0))
        cases = []
        for text in TEXTS + random_texts(150):
            case = {"text": text}
            for allow_special in (True, False):
                tok.encode_special_tokens = not allow_special
                key = "ids" if allow_special else "ids_plain"
                case[key] = tok.encode(text, add_special_tokens=False).ids
            tok.encode_special_tokens = False
            case["ids_added"] = tok.encode(text, add_special_tokens=True).ids
            # The package reads the ö of an added token as the byte 0xF6; we do not.
            if tok.token_to_id("Nörm") not in case["ids"]:
                case["decoded"] = tok.decode(case["ids"], skip_special_tokens=True)
            cases.append(case)
        (folder / "cases.json").write_text(json.dumps(
            {"source": f"PyPI tokenizers {tokenizers.__version__}", "cases": cases}, separators=(",", ":")))


if __name__ == "__main__":
    main()
