"""demo_fp4.py BUILD: what 4-bit weights do to a text recogniser. It reads lines rendered here in f32, with weights rounded to the nearest NVFP4 number, and with nybble's
default recipe, calibrated on other lines. Readings and a table go to the terminal, the same with pictures to a page; ONNX Runtime checks the f32 readings."""
import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import threading
import time
import unicodedata

import numpy as np
import PIL

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench/accuracy"), str(ROOT / "scripts")]
import demo_fp4_page
import ocr
from runner import Nybble

LIMIT = 2e-3  # between nybble's and ONNX Runtime's probabilities; where a character is in doubt they are sensitive: ONNX Runtime's own with and without its
# optimisations are 2e-4 apart on these lines
KINDS = {"f32": "f32", "rtn": "NVFP4, round to nearest", "best": "NVFP4, nybble's recipe"}


@contextlib.contextmanager
def step(label):
    """Says what takes its time while it does, and how long it took; what it yields says how far it is."""
    live, over, start, at = sys.stderr.isatty(), threading.Event(), time.perf_counter(), [""]
    head = f"{label:<58}"
    tail = lambda: f"{at[0]:>12}{time.perf_counter() - start:>7.1f} s"

    def show():
        while not over.wait(0.2):
            print("\r" + head + tail(), end="", file=sys.stderr, flush=True)

    clock = threading.Thread(target=show, daemon=True)
    print(head, end="", file=sys.stderr, flush=True)
    if live:
        clock.start()
    try:
        yield lambda text: at.__setitem__(0, text)
    finally:
        over.set()
        if live:
            clock.join()
        print(("\r" + head if live else "") + tail(), file=sys.stderr, flush=True)


def kept(path, key, label, make):
    """A file or folder that is made again only when what it depends on has changed."""
    note = path.with_name(path.name + ".key")
    if path.exists() and note.exists() and note.read_text() == key:
        print(f"{label:<58}{'made before':>21}", file=sys.stderr)
        return
    note.unlink(missing_ok=True)
    with step(label):
        make()
    note.write_text(key)


def fingerprint(build, calibration):
    """Of the compiler as it was linked, the model, and all that decides about the calibration lines."""
    tools = [build / "nybble", *sorted(build.glob("libnybble*.so"))]
    stats = [(p.name, s.st_mtime_ns, s.st_size) for p in tools for s in [p.stat()]]
    sources = [p.read_bytes() for p in (ocr.model(), ROOT / "bench/accuracy/ocr.py", ROOT / "bench/accuracy/text.py")]
    return hashlib.sha256(b"".join(sources) + repr((stats, calibration, PIL.__version__, sys.version)).encode()).hexdigest()


def build_models(nybble, folder, build, calibration):
    key, data, model = fingerprint(build, calibration), folder / "calibration", ocr.model()
    paths = {kind: folder / f"{kind}.nyb" for kind in KINDS}

    def quantize(kind, **options):
        paths[kind].with_suffix(".json").write_text(json.dumps(nybble.quantize(model, paths[kind], format="nvfp4", **options)))

    def render():
        shutil.rmtree(data, ignore_errors=True)
        ocr.calibration(data, calibration)

    kept(paths["f32"], key, "compile the recogniser in f32", lambda: nybble.call("compile", model, "-o", paths["f32"]))
    kept(paths["rtn"], key, "NVFP4, every weight to the nearest number", lambda: quantize("rtn", recipe="rtn"))
    kept(data, key, f"render {calibration} lines to calibrate with", render)
    kept(paths["best"], key, "NVFP4, nybble's recipe on those lines", lambda: quantize("best", calib=data))
    return paths


def onnx_runtime(threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(ocr.model()), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def read_all(nybble, paths, x):
    """What each of the three reads in x, and what ONNX Runtime makes of the same pictures in f32."""
    chars, got, check = ocr.alphabet(ocr.model()), {}, {"difference": 0.0, "readings": []}
    theirs = onnx_runtime(nybble.threads)
    for kind, path in paths.items():
        done = 0
        with step(f"read {len(x)} lines, {KINDS[kind]}" + (", ONNX Runtime beside it" if kind == "f32" else "")) as progress:

            def run(part):
                nonlocal done
                (ours,) = nybble.run(path, {"x": part}).values()
                if kind == "f32":
                    want = theirs(part)
                    check["difference"] = max(check["difference"], float(np.abs(ours - want).max()))
                    check["readings"] += ocr.read(want, chars)
                done += len(part)
                progress(f"{done} of {len(x)}")
                return ours

            got[kind] = ocr.readings(run, x, chars, batch=40)
    return got, check


def latencies(nybble, paths, x, folder, rounds=3, ms=150):
    """Milliseconds for one line, by kind and threads: medians over rounds in which all take turns."""
    np.save(folder / "line.npy", x[:1])
    times = {kind: {t: [] for t in sorted({1, nybble.threads})} for kind in paths}
    with step("latency of one line"):
        for _ in range(rounds):
            for kind, path in paths.items():
                for t, found in times[kind].items():
                    out = nybble.call("bench", path, "--input", f"x={folder / 'line.npy'}", "--threads", t, "--ms", ms, "--json")
                    found.append(json.loads(out)["median_ms"])
    return {kind: {t: statistics.median(v) for t, v in by.items()} for kind, by in times.items()}


def align(truth, got):
    """got as (character, what is wrong with it) along a shortest edit: nothing, "wrong" where it is another or one too many, or "missing" for one of truth's."""
    rows = [list(range(len(got) + 1))]
    for i, a in enumerate(truth, 1):
        row = [i]
        for j, b in enumerate(got, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b)))
        rows.append(row)
    out, i, j = [], len(truth), len(got)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (truth[i - 1] != got[j - 1]):
            i, j = i - 1, j - 1
            out.append((got[j], "" if truth[i] == got[j] else "wrong"))
        elif j and rows[i][j] == rows[i][j - 1] + 1:
            j -= 1
            out.append((got[j], "wrong"))
        else:
            i -= 1
            out.append((truth[i], "missing"))
    return out[::-1]


def columns(c):
    return 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1


def show(truth, got):
    """A reading for the terminal: errors in red there, underlined elsewhere. What is missing is a '_'."""
    cells = [("_" if wrong == "missing" else c, wrong) for c, wrong in align(truth, got)]
    if sys.stdout.isatty():
        return ["".join(f"\033[1;31m{c}\033[0m" if wrong else c for c, wrong in cells)]
    under = "".join(("^" if wrong else " ") * columns(c) for c, wrong in cells).rstrip()
    return ["".join(c for c, _ in cells)] + ([under] if under else [])


def print_lines(truth, got, n):
    names = {"f32": "f32", "rtn": "nearest", "best": "recipe"}
    print(f"\n== the first {n} of {len(truth)} lines; '_' is a character that is missing")
    for i in range(n):
        print(f"\n  {'rendered':<10}{truth[i]}")
        for kind, lines in got.items():
            for k, text in enumerate(show(truth[i], lines[i])):
                print(f"  {'' if k else names[kind]:<10}{text}")


def measure(paths, truth, got, times):
    """A row a kind. Weights are those that the quantiser takes, the same ones in f32."""
    rows = []
    for kind, path in paths.items():
        report = json.loads(paths["rtn" if kind == "f32" else kind].with_suffix(".json").read_text())
        bits = 32.0 if kind == "f32" else report["bits"]
        stay = [layer["skipped"] for layer in report["layers"] if "scheme" not in layer]
        row = {"kind": kind, "name": KINDS[kind], "bits": bits, "tensors": report["quantized"], "stay": len(stay), "why": sorted(set(stay))}
        row |= {"weights": report["weights"], "weight_bytes": report["weights"] * bits / 8, "file_bytes": path.stat().st_size, "ms": times[kind]}
        rows.append(row | ocr.score(truth, got[kind], got["f32"]))
    return rows


def print_table(rows, truth):
    threads = list(rows[0]["ms"])
    print(f"\n== {len(truth)} lines, {sum(map(len, truth))} characters")
    print(f"{'':<26}{'lines read':>11}{'character':>11}{'reads as':>10}{'matmul, conv':>14}{'bits a':>8}{'':>10}  latency, one line")
    print(f"{'':<26}{'exactly':>11}{'error':>11}{'f32 does':>10}{'weights':>14}{'weight':>8}{'file':>10}" + "".join(f"{f'{t} thread' + 's' * (t > 1):>11}" for t in threads))
    for r in rows:
        print(
            f"{r['name']:<26}{r['lines']:>9.1%}  {r['chars']:>11.4f}{'' if r['kind'] == 'f32' else format(r['same'], '.1%'):>10}{r['weight_bytes'] / 1e6:>11.2f} MB{r['bits']:>8.2f}"
            f"{r['file_bytes'] / 1e6:>7.2f} MB" + "".join(f"{ms:>8.2f} ms" for ms in r["ms"].values())
        )


def notes(truth, got, rows):
    right = lambda kind: np.array([a == b for a, b in zip(truth, got[kind])])
    a, b = right("f32"), right("best")
    errors = [(c, wrong) for t, g in zip(truth, got["f32"]) for c, wrong in align(t, g) if wrong]
    stay = f"; the other {rows[0]['stay']} ({' or '.join(rows[0]['why'])}) stay f32" if rows[0]["stay"] else ""
    return [
        f"Right in both f32 and with the recipe: {int((a & b).sum())} of {len(truth)} lines; in f32 alone: {int((a & ~b).sum())}; with the recipe alone: {int((b & ~a).sum())}.",
        f"Of what f32 gets wrong, {errors.count((' ', 'missing'))} of {len(errors)} characters are spaces that it leaves out.",
        f"Weights: the {rows[0]['tensors']} tensors that are quantised, {rows[0]['weights'] / 1e6:.2f} million numbers{stay}.",
    ]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("build", type=pathlib.Path)
    p.add_argument("--page", type=pathlib.Path, default=ROOT / "build/fp4-demo.html")
    p.add_argument("--keep", type=pathlib.Path, default=ROOT / "build/fp4-demo", help="where models and calibration lines stay for the next time")
    p.add_argument("--lines", type=int, default=320)
    p.add_argument("--calibration", type=int, default=256, help="lines to calibrate with")
    p.add_argument("--shown", type=int, default=40, help="lines on the page")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", type=pathlib.Path)
    a = p.parse_args()
    start = time.perf_counter()
    sys.stdout.reconfigure(errors="replace")  # a model that guesses may guess what the terminal lacks
    a.keep.mkdir(parents=True, exist_ok=True)
    nybble = Nybble(a.build / "nybble", a.threads)
    paths = build_models(nybble, a.keep, a.build, a.calibration)
    with step(f"render {a.lines} lines to read"):
        truth, x = ocr.pictures("evaluation", a.lines)
    got, check = read_all(nybble, paths, x)
    rows = measure(paths, truth, got, latencies(nybble, paths, x, a.keep))
    agree = sum(map(str.__eq__, got["f32"], check["readings"]))
    said = notes(truth, got, rows)
    said.append(f"ONNX Runtime in f32 reads the same on {agree} of {len(truth)} lines; largest difference of a probability {check['difference']:.1e} (limit {LIMIT:.0e}).")
    print_lines(truth, got, min(6, len(truth)))
    print_table(rows, truth)
    print("", *said, sep="\n")
    aligned = {kind: [align(t, g) for t, g in zip(truth, lines[: a.shown])] for kind, lines in got.items()}
    a.page.write_text(demo_fp4_page.page(rows, truth[: a.shown], x, aligned, len(truth), said), encoding="utf-8")
    print(f"\nWith the pictures: {os.path.relpath(a.page)}   ({time.perf_counter() - start:.0f} s)")
    if a.json:
        a.json.write_text(json.dumps({"rows": rows, "agree": agree, **check}))
    if check["difference"] > LIMIT:
        sys.exit("demo: nybble in f32 and ONNX Runtime differ")


if __name__ == "__main__":
    main()
