"""Sentences to calibrate and to judge with, and the WordPiece tokenizer that MiniLM wants. The text is the documentation of Python's own standard library: it is
wherever Python is, nobody's data, and plain English. Modules are dealt out by a hash of their names, so no sentence meets both sets."""
import hashlib
import inspect
import importlib
import json
import pathlib
import re
import sys
import unicodedata
import warnings

SKIP = {"antigravity", "this", "idlelib", "test", "turtledemo", "lib2to3", "tkinter"}


def modules():
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in SKIP:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield name, importlib.import_module(name)
        except Exception:
            continue


def docs(module):
    seen = [module.__doc__]
    for _, x in sorted(vars(module).items(), key=lambda kv: kv[0]):
        if getattr(x, "__module__", None) != module.__name__ or not (inspect.isclass(x) or inspect.isroutine(x)):
            continue
        seen.append(inspect.getdoc(x))
        if inspect.isclass(x):
            seen += [inspect.getdoc(m) for n, m in sorted(vars(x).items(), key=lambda kv: kv[0]) if inspect.isroutine(m)]
    return [d for d in seen if isinstance(d, str)]


def sentences(part, n, words=(8, 48)):
    """n sentences of "calibration" or "evaluation", the same ones every time."""
    found = {}
    for name, module in modules():
        side = "evaluation" if hashlib.sha256(name.encode()).digest()[0] % 2 else "calibration"
        for d in docs(module):
            for block in re.split(r"\n\s*\n", d):
                for s in re.split(r"(?<=[.!?])\s+", " ".join(block.split())):
                    prose = sum(w.isalpha() for w in re.split(r"[\s,.]+", s)) > 0.7 * len(s.split())
                    if words[0] <= len(s.split()) <= words[1] and prose and s[0].isupper() and ">>>" not in s:
                        found.setdefault(s, side)
    mine = [s for s, side in found.items() if side == part]
    mine.sort(key=lambda s: hashlib.sha256(s.encode()).digest())
    if len(mine) < n:
        raise SystemExit(f"only {len(mine)} sentences for {part}")
    return mine[:n]


class WordPiece:
    def __init__(self, folder):
        self.vocab = json.loads((pathlib.Path(folder) / "tokenizer.json").read_text())["model"]["vocab"]

    def words(self, text):
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        return re.findall(r"[^\W_]+|[^\w\s]|_", text)

    def pieces(self, word):
        out, at = [], 0
        while at < len(word):
            end = len(word)
            while end > at and ("##" if at else "") + word[at:end] not in self.vocab:
                end -= 1
            if end == at:
                return ["[UNK]"]
            out.append(("##" if at else "") + word[at:end])
            at = end
        return out

    def ids(self, text, most=128):
        tokens = [p for w in self.words(text) for p in self.pieces(w)]
        return [self.vocab[t] for t in ["[CLS]"] + tokens[: most - 2] + ["[SEP]"]]
