#!/usr/bin/env python3
"""onnx_convert.py NYBBLE CASES OUT: has nybble convert the models that tests/onnx_fp4.py wrote into CASES to every dialect. What comes out must give the case's
results: in nybble, in ONNX's reference evaluator when it is standard ONNX (its checker takes it then), in ONNX Runtime when that has kernels for it. And what
went to another dialect must come back. Prints `onnx_convert: N passed, N failed`."""
import json
import pathlib
import re
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

NYBBLE, CASES, OUT = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
passed = failed = 0
# Operators that standard ONNX has no spelling for, or that are not weights.
NO_STANDARD = re.compile(r"p2_dynamic|p3_|p4_int4_floats|p4_mxfp8_dynamic|p4_mxfp8_floats|p6_|p8_moe|p8_bnb4|p8_nbits.*(float_zp|g_idx)|p8_fp8_weight_w8a8|symbolic_(nvfp4|moe)")


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL", what)
    return bool(ok)


def tensor(path):
    t = onnx.TensorProto()
    t.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(t)


def agrees(case, got):
    want, limit = tensor(case / "test_data_set_0/output_0.pb"), json.loads((case / "data.json").read_text())
    got, want = np.asarray(got).astype(np.float64), want.astype(np.float64)
    return got.shape == want.shape and np.allclose(got, want, rtol=limit["rtol"], atol=limit["atol"] * 4, equal_nan=True)


def convert(source, to, case, dialect):
    folder = OUT / dialect / case.name
    shutil.copytree(case, folder, dirs_exist_ok=True)
    r = subprocess.run([NYBBLE, "convert", source, "--to", to, "-o", folder / "model.onnx"], capture_output=True, text=True)
    m = re.match(r"(\d+) nodes converted", r.stderr)
    return folder if r.returncode == 0 else None, int(m[1]) if m else 0, r.stderr.strip()


def feed(case, model):
    inputs = [i.name for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    return {n: tensor(case / f"test_data_set_0/input_{i}.pb") for i, n in enumerate(inputs)}


shutil.rmtree(OUT, ignore_errors=True)
counts = {}
for case in sorted(p for p in CASES.iterdir() if p.is_dir()):
    folder, n, message = convert(case / "model.onnx", "standard", case, "standard")
    vendors = {x.domain for x in onnx.load(case / "model.onnx").graph.node} - {"", "onnx.brevitas"}
    if NO_STANDARD.search(case.name):
        check(folder is None or any(x.domain for x in onnx.load(folder / "model.onnx").graph.node) or "DynamicScale" in str(onnx.load(folder / "model.onnx").graph), f"{case.name}: what has no standard spelling is refused or stays")
        shutil.rmtree(OUT / "standard" / case.name)
    elif check(folder is not None, f"{case.name} to standard: {message}"):
        model = onnx.load(folder / "model.onnx")
        counts["standard"] = counts.get("standard", 0) + n
        check(not any(x.domain for x in model.graph.node) and bool(n) == bool(vendors), f"{case.name}: {n} nodes made standard, of domains {vendors}")
        try:
            onnx.checker.check_model(model, full_check=True)
            version = next(o.version for o in model.opset_import if not o.domain)
            if version >= 19:
                check(agrees(case, ReferenceEvaluator(model).run(None, feed(case, model))[0]), f"{case.name} as standard ONNX, in the reference evaluator")
        except Exception as e:
            check(False, f"{case.name} as standard ONNX: {str(e)[:200]}")
    source = folder / "model.onnx" if folder and folder.exists() else case / "model.onnx"
    there, n, message = convert(source, "microsoft", case, "microsoft")
    if not check(there is not None, f"{case.name} to microsoft: {message}"):
        continue
    counts["microsoft"] = counts.get("microsoft", 0) + n
    model = onnx.load(there / "model.onnx")
    kinds = {x.op_type for x in model.graph.node if x.domain == "com.microsoft"}
    if n and kinds <= {"MatMulNBits", "GatherBlockQuantized"} and not any(x.op_type == "DequantizeLinear" for x in model.graph.node):
        try:
            got = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed(case, model))[0]
            limit = 1e-2 if "f16" in case.name else 1e-4
            want = tensor(case / "test_data_set_0/output_0.pb").astype(np.float64)
            check(np.allclose(got, want, rtol=limit, atol=limit * np.abs(want).max()), f"{case.name} as com.microsoft, in ONNX Runtime")
        except Exception as e:
            print(f"{case.name}: ONNX Runtime does not run it: {str(e)[:120]}")
    if n:
        back, m, message = convert(there / "model.onnx", "standard", case, "back")
        check(back is not None and m >= n, f"{case.name} back to standard: {m} of {n} {message}")
    else:
        shutil.rmtree(there)
    there, n, message = convert(source, "trt", case, "trt")
    if there is not None and n:
        counts["trt"] = counts.get("trt", 0) + n
    else:
        shutil.rmtree(OUT / "trt" / case.name, ignore_errors=True)

for dialect in ("standard", "microsoft", "back", "trt"):
    log = subprocess.run([NYBBLE, "test", OUT / dialect], capture_output=True, text=True).stdout
    m = re.search(r"(\d+) passed, (\d+) failed", log)
    print("\n".join(l[:300] for l in log.splitlines() if l.startswith("FAIL")))
    passed, failed = passed + (int(m[1]) if m else 0), failed + (int(m[2]) if m else 1)
    print(f"{dialect}: {m[1] if m else 0} models give the results of before, {m[2] if m else 1} do not")
print(f"nodes rewritten: {counts}")
check(all(counts.get(d, 0) >= 10 for d in ("standard", "microsoft", "trt")), "too few nodes were rewritten")
print(f"onnx_convert: {passed} passed, {failed} failed")
sys.exit(failed != 0)
