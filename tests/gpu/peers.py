#!/usr/bin/env python3
"""Measures transformers on torch at what tests/gpu/check measures of us, beside it.

    tests/gpu/peers.py --record docs/gpu-results/FILE.json

Random weights of the same shapes, greedy, bf16: decoding (eager, and with a static cache
and torch.compile) and a long prompt. The rows go into the record as "peers". Where torch
or transformers is not installed the record says that, and the exit status is 0.

    --device cpu --tiny     tries this script without a GPU; its numbers mean nothing
"""

import argparse
import json
import os
import sys
import time

DECODED = 32   # Tokens of which the time of one is taken.


def say(text):
    print(f"peers: {text}", flush=True)


def models(tiny):
    """Name, and what transformers calls its configuration."""
    from transformers import LlamaConfig, Qwen2Config
    llama = dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                 num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=9216, rms_norm_eps=1e-5)
    qwen = dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=9216, rms_norm_eps=1e-6)
    if tiny:
        small = dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2)
        llama.update(small)
        qwen.update(small)
    nobody = dict(bos_token_id=1, eos_token_id=None, pad_token_id=0, tie_word_embeddings=False)
    yield "Llama-3.1-8B", LlamaConfig(**llama, **nobody)
    yield "Qwen2.5-7B", Qwen2Config(**qwen, **nobody)


class Peer:
    """One model on the device."""

    def __init__(self, torch, config, device):
        from transformers import AutoModelForCausalLM
        self.torch, self.device, self.vocab = torch, device, config.vocab_size
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self.model = AutoModelForCausalLM.from_config(config).eval()

    def seconds(self, batch, prompt, tokens, **how):
        """Of one generate() that makes exactly so many tokens."""
        ids = self.torch.randint(2, self.vocab, (batch, prompt), device=self.device)
        self._wait()
        begin = time.perf_counter()
        with self.torch.inference_mode():
            made = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False,
                                       min_new_tokens=tokens, max_new_tokens=tokens, **how)
        self._wait()
        if made.shape != (batch, prompt + tokens):
            raise RuntimeError(f"{tuple(made.shape)} tokens came, not {(batch, prompt + tokens)}")
        return time.perf_counter() - begin

    def decode(self, batch, context, how):
        """Microseconds of a step: the prompt's time goes out by the difference."""
        self.seconds(batch, context, DECODED, **how)
        long = min(self.seconds(batch, context, DECODED, **how) for _ in range(3))
        short = min(self.seconds(batch, context, 1, **how) for _ in range(3))
        return (long - short) / (DECODED - 1) * 1e6

    def prompt(self, tokens):
        self.seconds(1, tokens, 1)
        return min(self.seconds(1, tokens, 1) for _ in range(3)) * 1e6

    def _wait(self):
        if self.device.startswith("cuda"):
            self.torch.cuda.synchronize()


def measure(torch, device, tiny, keep):
    """keep(row) has each as it comes: whoever limits our time shall have those before."""
    context, prompt = (32, 64) if tiny else (1024, 8192)

    def row(what, work, rate, unit):
        try:
            us = work()
        except Exception as failed:  # Out of memory, a compiler that is missing: told, and on.
            say(f"{what}: {type(failed).__name__}: {str(failed).splitlines()[0] if str(failed) else ''}")
            return keep({"what": what, "failed": type(failed).__name__})
        say(f"{what}: {us:.1f} us, {rate(us):.2f} {unit}")
        keep({"what": what, "us": round(us, 1), "rate": round(rate(us), 2), "unit": unit})

    for name, config in models(tiny):
        peer = Peer(torch, config, device)
        for way, how in (("eager", {}), ("torch.compile", {"cache_implementation": "static"})):
            row(f"{name}: decode, batch 1, context {context}, {way}",
                lambda how=how: peer.decode(1, context, how), lambda us: 1e6 / us, "tok/s")
        batch = 2 if tiny else 256
        row(f"{name}: decode, batch {batch}, context {context}, eager",
            lambda: peer.decode(batch, context, {}), lambda us: batch * 1e6 / us, "tok/s")
        row(f"{name}: prompt of {prompt} tokens", lambda: peer.prompt(prompt), lambda us: us / 1e3, "ms")
        del peer
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def add_to(path, peers):
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    record["peers"] = peers
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", help="of tests/gpu/check, to which the rows are added")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    peers = {"rows": []}

    def keep(row=None):
        peers["rows"] += [row] if row else []
        if options.record:
            add_to(options.record, peers)

    try:
        import torch
        import transformers
        peers.update(torch=torch.__version__, transformers=transformers.__version__)
        measure(torch, options.device, options.tiny, keep)
    except ImportError as missing:
        say(f"not measured: {missing}")
        peers["not measured"] = str(missing)
    keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
