#!/usr/bin/env python3
"""quantize.py NYBBLE WORKDIR: the quantize verb from the outside. Small ONNX models; what it makes of their weights is computed again with numpy and ml_dtypes."""
import json
import pathlib
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NYBBLE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
WORK.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(5)
passed = failed = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAIL", what)


def nybble(*args):
    return subprocess.run([NYBBLE, *map(str, args)], capture_output=True, text=True)


def model(path, nodes, weights, inputs, outputs, opset=21):
    info = lambda d: [helper.make_tensor_value_info(n, t, s) for n, (t, s) in d.items()]
    init = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    m = helper.make_model(helper.make_graph(nodes, "g", info(inputs), info(outputs), init), opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(m)
    onnx.save(m, path)
    return path


def run(path, feeds):
    args = []
    for k, v in feeds.items():
        np.save(WORK / f"{k}.npy", v)
        args += ["--input", f"{k}={WORK / k}.npy"]
    r = nybble("run", path, *args, "--output-dir", WORK / "out")
    assert r.returncode == 0, r.stderr
    return np.load(WORK / "out/y.npy")


def quantize(path, out, *args):
    r = nybble("quantize", path, "-o", out, "--json", "--threads", 2, "--least", 1, *args)
    return (json.loads(r.stdout), r.stderr) if r.returncode == 0 else (None, r.stderr)


# ---- the formats, in numpy
def nearest(x, block, scheme, ts=None):
    """x[..., k] rounded along the last axis in blocks that start anew there."""
    k = x.shape[-1]
    pad = np.zeros(x.shape[:-1] + (-k % block,), np.float32)
    b = np.concatenate([x, pad], -1).reshape(*x.shape[:-1], -1, block).astype(np.float32)
    amax = np.abs(b).max(-1)
    if scheme == "nvfp4":
        ts = np.float32(np.abs(x).max() / (6 * 448.0)) if ts is None else ts
        s = np.clip(amax / (np.float32(6) * ts), 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * ts
    else:
        s = np.exp2(np.floor(np.log2(np.where(amax > 0, amax, 1))) - 2).astype(np.float32)
    q = np.clip(b / s[..., None], -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * s[..., None]
    return q.reshape(*x.shape[:-1], -1)[..., :k]


def close(a, b, what, tol=2e-5):
    err = np.abs(a - b).max() / (np.abs(b).max() + 1e-9)
    check(a.shape == b.shape and err < tol, f"{what}: off by {err}")


F = TensorProto.FLOAT


def weight(*shape):
    return (rng.standard_normal(shape) * rng.choice([0.1, 1.0], shape)).astype(np.float32)


def conv(x, w, stride=1, dilation=1):
    from numpy.lib.stride_tricks import sliding_window_view

    kh, kw = w.shape[2:]
    win = sliding_window_view(x, (dilation * (kh - 1) + 1, dilation * (kw - 1) + 1), axis=(2, 3))[:, :, ::stride, ::stride, ::dilation, ::dilation]
    return np.einsum("nchwij,mcij->nmhw", win, w)


def round_to_nearest():
    """Each kind of layer, both formats: the model's result is that of the rounded weight."""
    x2, w = weight(7, 88), weight(88, 40)
    im = weight(2, 20, 9, 8)
    cases = {
        "matmul": ([helper.make_node("MatMul", ["x", "w"], ["y"])], w, x2, lambda q: x2 @ q(w.T).T),
        "gemm": ([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], w.T.copy(), x2, lambda q: x2 @ q(w.T.copy()).T),
        "conv1": ([helper.make_node("Conv", ["x", "w"], ["y"])], weight(24, 20, 1, 1), im, None),
        "conv3": ([helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2])], weight(24, 20, 3, 3), im, None),
        "conv_dilated": ([helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 2])], weight(5, 20, 3, 2), im, None),
        "gather": ([helper.make_node("Gather", ["w", "x"], ["y"])], weight(50, 40), np.array([[3, 1], [49, 0]], np.int64), None),
    }
    for name, (nodes, w0, x, expect) in cases.items():
        last = lambda q, w0=w0: np.moveaxis(q(np.moveaxis(w0, 1, -1)), -1, 1)
        if name.startswith("conv"):
            args = {"conv3": {"stride": 2}, "conv_dilated": {"dilation": 2}}.get(name, {})
            expect = lambda q: conv(x, last(q), **args)
        if name == "gather":
            expect = lambda q: q(w0)[x]
        kind = F if x.dtype == np.float32 else TensorProto.INT64
        rank = {"gather": 3}.get(name, x.ndim)
        path = model(WORK / f"{name}.onnx", nodes, {"w": w0}, {"x": (kind, ["N", *x.shape[1:]])}, {"y": (F, [f"d{i}" for i in range(rank)])})
        for scheme, block in (("nvfp4", 16), ("mxfp4", 32)):
            for out in ("q.nyb", "q.nyt"):
                j, err = quantize(path, WORK / out, "--format", scheme, "--recipe", "rtn", "--embeddings", scheme)
                check(j and j["quantized"] == 1 and j["layers"][0]["scheme"] == scheme, f"{name} {scheme}: {j} {err}")
                close(run(WORK / out, {"x": x}), expect(lambda w: nearest(w, block, scheme)), f"{name} {scheme} {out}")


def calibrated():
    """Two layers and what is between them, calibrated: better than nearest, on data that was not seen."""
    k, h, n = 48, 64, 24
    w1, b1, w2 = weight(k, h), weight(h), weight(h, n)
    mix = weight(k, k)
    draw = lambda r: (rng.standard_normal((r, k)).astype(np.float32) @ mix + 0.5).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["y"]),
    ]
    path = model(WORK / "two.onnx", nodes, {"w1": w1, "b1": b1, "w2": w2}, {"x": (F, ["N", k])}, {"y": (F, ["N", n])})
    data = draw(600)
    np.savez(WORK / "one.npz", x=data)
    np.savez_compressed(WORK / "many.npz", x=data.reshape(20, 30, k))
    folder = WORK / "folder"
    folder.mkdir(exist_ok=True)
    for i in range(6):
        np.savez(folder / f"{i}.npz", x=data[i * 100 : i * 100 + 100])
    fresh = draw(500)
    want = np.maximum(fresh @ w1 + b1, 0) @ w2
    error = {}
    for name, args in {
        "rtn": ["--recipe", "rtn"],
        "best": ["--calib", WORK / "one.npz"],
        "packed": ["--calib", WORK / "many.npz"],
        "folder": ["--calib", folder],
        "joint": ["--calib", folder, "--recipe", "joint"],
        "mixed": ["--calib", folder, "--bits", 6.5],
        "limit": ["--calib", folder, "--max-error", 1e-4],
    }.items():
        j, err = quantize(path, WORK / "q.nyb", *args)
        check(j is not None, f"{name}: {err}")
        got = run(WORK / "q.nyb", {"x": fresh})
        error[name] = float(((got - want) ** 2).sum() / (want**2).sum())
        if name == "mixed":
            check(j["bits"] <= 6.5 and {l["scheme"] for l in j["layers"]} > {"nvfp4"}, f"mixed: {j}")
    check(error["best"] < 0.5 * error["rtn"] and error["joint"] < error["rtn"], f"calibration: {error}")
    check(abs(error["best"] - error["folder"]) < 0.1 * error["best"] and abs(error["best"] - error["packed"]) < 0.1 * error["best"], f"where data comes from: {error}")
    check(error["mixed"] < error["best"] and error["limit"] < 3e-4, f"mixed precision: {error}")
    return path


def skipped():
    nodes = [
        helper.make_node("Conv", ["x", "deep"], ["a"], group=8),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Conv", ["b", "small"], ["y"]),
    ]
    path = model(WORK / "skip.onnx", nodes, {"deep": weight(8, 1, 3, 3), "w": weight(64, 8, 1, 1), "small": weight(2, 64, 1, 1)}, {"x": (F, ["N", 8, 6, 6])}, {"y": (F, ["N", 2, 4, 4])})
    r = nybble("quantize", path, "-o", WORK / "q.nyb", "--json", "--least", 200)
    j = json.loads(r.stdout)
    why = {l["name"]: l.get("skipped") for l in j["layers"]}
    check(why == {"deep": "a grouped convolution", "w": None, "small": "too small to matter"}, why)
    j, _ = quantize(path, WORK / "q.nyb", "--layers", "sm*,none")
    check([l["name"] for l in j["layers"] if "scheme" in l] == ["small"], j)


def lstm():
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=32)]
    path = model(WORK / "lstm.onnx", nodes, {"w": weight(1, 128, 16), "r": weight(1, 128, 32)}, {"x": (F, ["T", "N", 16])}, {"y": (F, ["T", 1, "N", 32])})
    x = weight(5, 3, 16)
    np.savez(WORK / "lstm.npz", x=x)
    base = run(path, {"x": x})
    for args in (["--recipe", "rtn"], ["--calib", WORK / "lstm.npz"], ["--calib", WORK / "lstm.npz", "--bits", 6]):
        j, err = quantize(path, WORK / "q.nyb", *args)
        check(j and j["quantized"] == 2, f"lstm: {j} {err}")
        got = run(WORK / "q.nyb", {"x": x})
        check(0 < np.abs(got - base).max() < 0.5, f"lstm: {np.abs(got - base).max()}")


def refused(path):
    bad = weight(32, 16)
    bad[5, 7] = np.nan
    nan = model(WORK / "nan.onnx", [helper.make_node("MatMul", ["x", "head.weight"], ["y"])], {"head.weight": bad}, {"x": (F, ["N", 32])}, {"y": (F, ["N", 16])})
    raw = (WORK / "one.npz").read_bytes()
    (WORK / "cut.npz").write_bytes(raw[: len(raw) // 2])
    (WORK / "text.npz").write_bytes(b"no archive at all")
    (WORK / "empty").mkdir(exist_ok=True)
    np.savez(WORK / "name.npz", other=weight(3, 48), another=weight(3, 48))
    np.savez(WORK / "shape.npz", x=weight(3, 47))
    np.savez(WORK / "rank.npz", x=weight(2, 2, 3, 48))
    np.savez(WORK / "type.npz", x=weight(3, 48).astype(np.float64))
    np.savez(WORK / "nan.npz", x=np.full((30, 48), np.nan, np.float32))
    cases = [
        (nan, ["--recipe", "rtn"], "head.weight"),
        (path, ["--recipe", "joint"], "needs calibration data"),
        (path, ["--bits", 5], "needs calibration data"),
        (path, ["--recipe", "rnt"], "rnt"),
        (path, ["--format", "fp3"], "fp3"),
        (path, ["--calib", WORK / "none.npz"], "none.npz"),
        (path, ["--calib", WORK / "cut.npz"], "cut.npz"),
        (path, ["--calib", WORK / "text.npz"], "not an .npz"),
        (path, ["--calib", WORK / "empty"], "no samples"),
        (path, ["--calib", WORK / "name.npz"], "no array x"),
        (path, ["--calib", WORK / "shape.npz"], "47"),
        (path, ["--calib", WORK / "rank.npz"], "4 dimensions"),
        (path, ["--calib", WORK / "type.npz"], "f64"),
        (path, ["--calib", WORK / "nan.npz"], "no numbers"),
    ]
    for m, args, want in cases:
        r = nybble("quantize", m, "-o", WORK / "no.nyb", "--least", 1, *args)
        check(r.returncode == 1 and want in r.stderr, f"{args}: {r.returncode} {r.stderr}")
    # Every byte of an archive's directory may be wrong: an error or other numbers, never a crash.
    at = raw.rfind(b"PK\x01\x02")
    for i in list(range(at, len(raw))) + [4, 6, 8, 18, 22, 26, 28, 30, 40, 60]:
        for v in (0, 0xFF, raw[i] ^ 0x80):
            (WORK / "bent.npz").write_bytes(raw[:i] + bytes([v]) + raw[i + 1 :])
            r = nybble("quantize", path, "-o", WORK / "no.nyt", "--calib", WORK / "bent.npz", "--recipe", "hessian", "--threads", 1)
            if r.returncode not in (0, 1):
                check(False, f"byte {i} as {v}: exit {r.returncode} {r.stderr[-300:]}")
    check(True, "")


round_to_nearest()
two = calibrated()
skipped()
lstm()
refused(two)
print(f"quantize: {passed} passed, {failed} failed")
sys.exit(failed != 0)
