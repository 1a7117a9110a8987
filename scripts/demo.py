"""demo.py BUILD MODEL.onnx MODEL.nyb: MiniLM through nybble and ONNX Runtime on the same tokens: difference, load times, latencies in one run."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

LIMIT = 1e-4
build, model, compiled = sys.argv[1:]
nybble = str(pathlib.Path(build) / "nybble")
rng = np.random.default_rng(0)
inputs = {"input_ids": rng.integers(0, 30522, (1, 128)), "attention_mask": np.ones((1, 128), np.int64)}
inputs["attention_mask"][0, 100:] = 0


def session(threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def time_ort(s, seconds=0.15):
    s.run(None, inputs)
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        t = time.perf_counter()
        s.run(None, inputs)
        times.append(time.perf_counter() - t)
    return statistics.median(times) * 1e3


def bench(path, threads, ms=250):
    run = [nybble, "bench", path, *arguments, "--threads", str(threads), "--ms", str(ms), "--json"]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


with tempfile.TemporaryDirectory() as folder:
    arguments = []
    for name, array in inputs.items():
        np.save(f"{folder}/{name}.npy", array)
        arguments += ["--input", f"{name}={folder}/{name}.npy"]
    subprocess.run([nybble, "run", compiled, *arguments, "--output-dir", folder], check=True, capture_output=True)
    ours = np.load(f"{folder}/embedding.npy")
    start = time.perf_counter()
    single = session(1)
    ort_load = time.perf_counter() - start
    difference = float(np.max(np.abs(ours - single.run(None, inputs)[0])))
    print(f"largest difference from ONNX Runtime   {difference:.2e}   (limit {LIMIT:.0e})")
    if difference > LIMIT:
        sys.exit("demo: the outputs differ")
    cold = subprocess.run([nybble, "bench", model, *arguments, "--ms", "1", "--json", "--no-cache"], capture_output=True, text=True, check=True)
    print(f"cold: compile and load                 {json.loads(cold.stdout)['open_ms']:.0f} ms   (ONNX Runtime loads and optimises in {ort_load * 1e3:.0f} ms)")
    bench(model, 1, ms=1)
    print(f"warm: MiniLM from the compile cache    {bench(model, 1, ms=1)['open_ms']:.1f} ms   from the .nyb {bench(compiled, 1, ms=1)['open_ms']:.1f} ms")
    every = len(os.sched_getaffinity(0))
    for threads in sorted({1, every}):
        other = session(threads)
        pairs = [(time_ort(other), bench(compiled, threads)) for _ in range(2)]
        theirs = statistics.median(p[0] for p in pairs)
        mine = statistics.median(p[1]["median_ms"] for p in pairs)
        print(f"latency, 1x128 tokens, {threads} thread{'s' if threads > 1 else ' '}        nybble {mine:.2f} ms   ONNX Runtime {theirs:.2f} ms   ratio {mine / theirs:.2f}")
    last = pairs[-1][1]
    print(f"memory: weights {last['weight_bytes'] / 1e6:.1f} MB   arena {last['arena_bytes'] / 1e6:.1f} MB   peak RSS {last['peak_rss_bytes'] / 1e6:.1f} MB")
