"""The work of scripts/real-models: a table of models, how to feed them, and the comparison with ONNX Runtime."""
import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent
NYBBLE = os.environ.get("NYBBLE", str(ROOT / "build/release/nybble"))
TOLERANCE = 1e-3  # largest difference over largest magnitude of the reference output
ROUNDS = 5
# Of the simulated device: in which warps take turns, and when asynchronous copies land. Nothing may depend on either.
SCHEDULES = [("forward", "early"), ("reverse", "late"), ("random:1", "early")]


def package(name):
    return pathlib.Path(importlib.util.find_spec(name).submodule_search_locations[0])


def minilm():
    path = ROOT / "build/models/minilm.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, ROOT / "scripts/make-minilm", path], check=True)
    return path


def tokens(rng, batch, length):
    mask = np.ones((batch, length), np.int64)
    mask[-1, max(1, length * 2 // 3) :] = 0
    return {"input_ids": rng.integers(0, 30522, (batch, length)), "attention_mask": mask}


def speech(batch, samples, rate, state=128):
    def make(rng):
        return {"input": rng.uniform(-0.5, 0.5, (batch, samples)).astype(np.float32),
                "state": (rng.standard_normal((2, batch, state)) * 0.1).astype(np.float32), "sr": np.array(rate, np.int64)}
    return make


def speech_sequence(length):
    def make(rng):
        hidden = lambda: (rng.standard_normal((1, 1, 128)) * 0.1).astype(np.float32)
        return {"input": rng.uniform(-0.5, 0.5, (length, 576)).astype(np.float32), "h": hidden(), "c": hidden()}
    return make


def image(name, *shape):
    return lambda rng: {name: rng.standard_normal(shape).astype(np.float32)}


def page(name, *shape):
    """Lines of dark glyphs on white, as a text detector expects. On white noise it answers 1e-4 and less everywhere, and single-precision rounding of any
    order (ONNX Runtime with and without its own optimisations) differs by more than the tolerance."""
    def make(rng):
        image = np.ones(shape)
        for y in range(12, shape[2] - 16, 28):
            for x in range(8, shape[3] - 12, 11):
                glyph = np.kron(rng.random((5, 3)) < 0.55, np.ones((3, 3)))[:15, :9]
                image[:, :, y : y + 15, x : x + 9] -= 2 * glyph * (rng.random() < 0.85)
        return {name: (image + 0.05 * rng.standard_normal(shape)).astype(np.float32)}
    return make


def light(name):
    return lambda: package("onnx") / f"backend/test/data/light/light_{name}.onnx"


def seeded(name):
    """The same network with seeded weights in the file: the light models fill theirs with one number each, which tests little and times kindly."""
    def make():
        path = ROOT / f"build/models/{name}_seeded.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(with_weights(onnx.load(light(name)())), path)
        return path
    return make


def with_weights(model):
    rng = np.random.default_rng(0)
    graph = model.graph
    sizes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    variances = {n.input[4] for n in graph.node if n.op_type == "BatchNormalization"}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in sizes:
            kept.append(node)
            continue
        shape = sizes[node.input[0]]
        fan_in = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 1
        values = rng.standard_normal(shape) / np.sqrt(fan_in) if len(shape) > 1 else 0.1 * rng.standard_normal(shape)
        if node.output[0] in variances:
            values = 1 + np.abs(values)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    return model


def silero(name):
    return lambda: package("silero_vad") / f"data/{name}.onnx"


def ocr(name):
    return lambda: package("rapidocr_onnxruntime") / f"models/{name}.onnx"


# name, file, [inputs of each size]; the first size is the one that is timed
MODELS = [
    ("minilm", minilm, [lambda r: tokens(r, 1, 128), lambda r: tokens(r, 3, 37)]),
    ("magika", lambda: package("magika") / "models/standard_v3_3/model.onnx",
     [lambda r: {"bytes": r.integers(0, 257, (1, 2048)).astype(np.int32)}, lambda r: {"bytes": r.integers(0, 257, (3, 2048)).astype(np.int32)}]),
    ("silero_vad", silero("silero_vad"), [speech(1, 576, 16000), speech(3, 576, 16000), speech(1, 288, 8000)]),
    ("silero_vad_16k_op15", silero("silero_vad_16k_op15"), [speech(1, 576, 16000), speech(2, 576, 16000)]),
    ("silero_vad_half", silero("silero_vad_half"), [speech(1, 576, 16000), speech(2, 576, 16000)]),
    ("silero_vad_op18_ifless", silero("silero_vad_op18_ifless"), [speech(1, 576, 16000), speech(2, 576, 16000), speech(1, 288, 8000)]),
    ("silero_vad_openvino_16k", silero("silero_vad_openvino_16k"), [speech(1, 576, 16000)]),
    ("silero_vad_16k_sequence", silero("silero_vad_16k_sequence"), [speech_sequence(32), speech_sequence(5)]),
    ("ocr_cls", ocr("ch_ppocr_mobile_v2.0_cls_infer"), [image("x", 1, 3, 48, 192), image("x", 2, 3, 48, 160)]),
    ("ocr_rec", ocr("ch_PP-OCRv4_rec_infer"), [image("x", 1, 3, 48, 320), image("x", 2, 3, 48, 200)]),
    ("ocr_det", ocr("ch_PP-OCRv4_det_infer"), [page("x", 1, 3, 640, 640), page("x", 1, 3, 320, 224)]),
    ("light_resnet50", light("resnet50"), [image("gpu_0/data_0", 1, 3, 224, 224)]),
    ("light_densenet121", light("densenet121"), [image("data_0", 1, 3, 224, 224)]),
    ("light_squeezenet", light("squeezenet"), [image("data_0", 1, 3, 224, 224)]),
    ("light_inception_v2", light("inception_v2"), [image("data_0", 1, 3, 224, 224)]),
    ("resnet50, seeded", seeded("resnet50"), [image("gpu_0/data_0", 1, 3, 224, 224)]),
    ("squeezenet, seeded", seeded("squeezenet"), [image("data_0", 1, 3, 224, 224)]),
]


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def save_inputs(folder, inputs):
    arguments = []
    for i, (name, array) in enumerate(inputs.items()):
        file = f"{folder}/in{i}.npy"
        np.save(file, array)
        arguments += ["--input", f"{name}={file}"]
    return arguments


def relative_error(ours, reference):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    return float(np.max(np.abs(ours - reference)) / max(np.max(np.abs(reference)), 1e-6))


def compare(path, reference_session, inputs, folder, device, schedule):
    known = {i.name for i in reference_session.get_inputs()}
    inputs = {k: v for k, v in inputs.items() if k in known}
    arguments = save_inputs(folder, inputs)
    environment = os.environ | {"NYB_CUDASIM_ORDER": schedule[0], "NYB_CUDASIM_COPIES": schedule[1]}
    command = [NYBBLE, "run", str(path), *arguments, "--device", device, "--output-dir", folder]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        return float("inf"), (run.stderr.strip().splitlines() or ["no message"])[-1], arguments, inputs
    worst = 0.0
    for value, info in zip(reference_session.run(None, inputs), reference_session.get_outputs()):
        worst = max(worst, relative_error(np.load(f"{folder}/{info.name.replace('/', '_')}.npy"), value))
    return worst, "", arguments, inputs


def time_ort(s, inputs):
    s.run(None, inputs)
    start, times = time.perf_counter(), []
    while time.perf_counter() - start < 0.4 or len(times) < 3:
        t = time.perf_counter()
        s.run(None, inputs)
        times.append(time.perf_counter() - t)
    return statistics.median(times) * 1e3


def time_nybble(path, arguments, threads):
    out = subprocess.run([NYBBLE, "bench", str(path), *arguments, "--threads", str(threads), "--ms", "400", "--json"], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


def latency(path, inputs, arguments, threads):
    """Medians over rounds in which the two take turns, so that a busy machine hits both."""
    s, theirs, ours, opened = session(path, threads), [], [], []
    for _ in range(ROUNDS):
        theirs.append(time_ort(s, inputs))
        report = time_nybble(path, arguments, threads)
        ours.append(report["median_ms"])
        opened.append(report["open_ms"])
    return {"ort_ms": statistics.median(theirs), "nybble_ms": statistics.median(ours), "open_ms": statistics.median(opened)}


def check_model(path, sizes, repeats, folder, device):
    reference, worst, why = session(path, 0), 0.0, ""
    first = None
    for size, make in enumerate(sizes):
        for seed in range(repeats):
            error, message, arguments, inputs = compare(path, reference, make(np.random.default_rng(100 * size + seed)), folder, device, SCHEDULES[seed % len(SCHEDULES)])
            if first is None:
                kept = tempfile.mkdtemp(dir=folder)
                first = (save_inputs(kept, inputs), inputs)
            if error > worst or message:
                worst, why = max(worst, error), message
    return worst, why, first


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, sim: where nybble runs; ONNX Runtime is on the CPU")
    parser.add_argument("--repeats", type=int, help="sets of random inputs; on a simulated device each in another schedule")
    parser.add_argument("--paths", action="store_true", help="print where the models are, and do nothing")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.paths:
        print(*(file() for _, file, _ in MODELS), sep="\n")
        return 0
    threads = len(os.sched_getaffinity(0))
    passed = failed = 0
    table = []
    options.check |= options.device.startswith("sim")  # its times say nothing
    repeats = options.repeats or (1 if options.check else 3)
    columns = "" if options.check else f"{'ORT 1T':>9} {'nybble 1T':>9} {'ratio':>6} {f'ORT {threads}T':>9} {f'nybble {threads}T':>9} {'ratio':>6} {'open':>8}"
    print(f"{'model':<26}{'rel. error':>11}  {columns}")
    for name, file, sizes in MODELS:
        if options.names and name not in options.names:
            continue
        path = file()
        with tempfile.TemporaryDirectory() as folder:
            worst, why, first = check_model(path, sizes, repeats, folder, options.device)
            good = worst <= TOLERANCE
            passed, failed = passed + good, failed + (not good)
            row = {"model": name, "error": worst}
            line = f"{name:<26}{worst:>11.2e}  "
            if good and not options.check:
                for t in (1, threads):
                    row[t] = latency(path, first[1], first[0], t)
                    line += f"{row[t]['ort_ms']:>9.3f} {row[t]['nybble_ms']:>9.3f} {row[t]['nybble_ms'] / row[t]['ort_ms']:>6.2f} "
                line += f"{row[threads]['open_ms']:>6.1f} ms"
            print(line + ("" if good else f"FAIL {why}"), flush=True)
            table.append(row)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(table, indent=1))
    print(f"real-models: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
