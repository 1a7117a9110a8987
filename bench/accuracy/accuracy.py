#!/usr/bin/env python3
"""accuracy.py NYBBLE [--models minilm,ocr,vad] [--out FILE.json] [CASE...]: what quantisation costs, measured. A case is FORMAT:RECIPE[:OPTION=VALUE..]; without any, a
table of formats and recipes. Calibration text, images and sound are made here, what is judged with is disjoint from them."""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

from runner import Nybble

CASES = """nvfp4:rtn nvfp4:four_six nvfp4:sweep nvfp4:hessian nvfp4:rtn+bias nvfp4:gptq nvfp4:gptq_sweep nvfp4:joint nvfp4:joint+bias nvfp4:joint+asym
nvfp4:joint+asym+bias nvfp4:joint+asym+bias:bits=4.75 nvfp4:joint+asym+bias:bits=5 mxfp4:rtn mxfp4:sweep mxfp4:joint+asym+bias int4:rtn int4:joint+asym+bias
mxfp8:rtn int8:rtn""".split()
BLIND = {"rtn", "four_six", "sweep"}


class MiniLM:
    def __init__(self, nybble, work, root):
        import minilm

        self.m, self.nybble, self.model = minilm, nybble, root / "build/models/minilm.onnx"
        self.data, self.inputs = minilm.calibration(work / "minilm"), minilm.evaluation()
        self.want = nybble.run(self.model, self.inputs)

    def score(self, path):
        return self.m.score(self.want, self.nybble.run(path, self.inputs))


class Ocr:
    def __init__(self, nybble, work, root):
        import ocr

        self.m, self.nybble, self.model = ocr, nybble, ocr.model()
        self.data, self.chars = ocr.calibration(work / "ocr"), ocr.alphabet(ocr.model())
        self.truth, self.x = ocr.pictures("evaluation", 320)
        self.want = self.read(self.model)

    def read(self, path):
        return self.m.readings(lambda x: next(iter(self.nybble.run(path, {"x": x}).values())), self.x, self.chars)

    def score(self, path):
        return self.m.score(self.truth, self.read(path), self.want)


class Vad:
    def __init__(self, nybble, work, root):
        import vad

        self.m, self.nybble, self.model = vad, nybble, vad.model()
        self.data, self.clips = vad.calibration(work / "vad"), list(vad.frames("evaluation", 12))
        self.want = [nybble.run(self.model, c) for c in self.clips]

    def score(self, path):
        return self.m.score(self.want, [self.nybble.run(path, c) for c in self.clips])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("nybble")
    p.add_argument("cases", nargs="*")
    p.add_argument("--models", default="minilm,ocr,vad")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--out")
    a = p.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    nybble, rows = Nybble(a.nybble, a.threads), []
    with tempfile.TemporaryDirectory() as d:
        for name in a.models.split(","):
            bench = {"minilm": MiniLM, "ocr": Ocr, "vad": Vad}[name](nybble, pathlib.Path(d), root)
            cases = a.cases or CASES
            print(f"\n{name}: original {bench.score(bench.model)}")
            for case in cases:
                form, recipe, *more = case.split(":")
                options = dict(x.split("=") for x in more)
                out = pathlib.Path(d) / "q.nyb"
                j = nybble.quantize(bench.model, out, format=form, recipe=recipe, calib=None if recipe in BLIND else bench.data, **options)
                row = {"model": name, "case": case, "bits": j["bits"], "seconds": j["seconds"], "bytes": out.stat().st_size, **bench.score(out)}
                rows.append(row)
                figures = "  ".join(f"{k} {v:.4f}" for k, v in row.items() if isinstance(v, float) and k not in ("bits", "seconds"))
                print(f"{case:44} {j['bits']:6.3f} bits  {figures}  ({j['seconds']:.1f} s)", flush=True)
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps(rows, indent=1))


sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
main()
