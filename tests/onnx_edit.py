#!/usr/bin/env python3
"""onnx_edit.py BUILD OUT [--no-models]: models that nybble's ONNX writer changed, judged by the onnx package: its checker, its reference evaluator, its table of
operator versions, and ONNX Runtime before and after. Prints `onnx_edit: N passed, N failed`."""
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnx.defs
import onnxruntime as ort
from onnx import TensorProto as T, helper as H, numpy_helper
from onnx.reference import ReferenceEvaluator

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD, OUT = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
TOOL, NYBBLE = BUILD / "tests/onnx_edit_tool", BUILD / "nybble"
F = np.float32
rng = np.random.default_rng(0)
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL", what)
    return bool(ok)


def normal(*shape):
    return rng.standard_normal(shape).astype(F)


def build(name, nodes, inputs, inits, opset, outputs=("y",), ir=None, listed=False, functions=(), domains=(), shapes=True):
    of = lambda k, v: H.make_tensor_value_info(k, numpy_helper.from_array(v).data_type, v.shape if shapes else [None] * v.ndim)
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in inits.items()]
    table = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7}
    path = OUT / f"{name}.onnx"

    def write(ranks):
        outs = [H.make_tensor_value_info(o, T.FLOAT, [None] * ranks[o] if o in ranks else None) for o in outputs]
        graph = H.make_graph(nodes, name, [of(k, v) for k, v in inputs.items()] + ([of(k, np.asarray(v)) for k, v in inits.items()] if listed else []), outs, tensors)
        versions = [H.make_opsetid("", opset)] + [H.make_opsetid(d, 1) for d in domains]
        model = H.make_model(graph, opset_imports=versions, functions=functions,
                             ir_version=ir or table.get(opset, 8 if opset < 19 else 9 if opset < 21 else 10 if opset < 23 else 11))
        path.write_bytes(model.SerializeToString(deterministic=True))

    write({})
    try:
        write({o: a.ndim for o, a in zip(outputs, runtime(path, inputs))})  # the checker wants a rank for every result
    except Exception as e:
        print(f"{name}: ONNX Runtime does not run it: {str(e)[:150]}")
    return path


def edit(path, *steps, to=None, limit=0, fails=None):
    to = to or path.with_name(path.stem + ".edited.onnx")
    r = subprocess.run([TOOL, path, to, str(limit), *map(str, steps)], capture_output=True, text=True)
    if fails:
        check(r.returncode == 1 and fails in r.stderr, f"{path.stem}: wanted the error {fails}, got {r.returncode} {r.stderr}")
        return None
    return to if check(r.returncode == 0, f"{path.stem} {steps}: {r.stderr}") else None


def runtime(path, feed):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)


def close(a, b, rtol=1e-5):
    return len(a) == len(b) > 0 and all(x.shape == y.shape and np.allclose(x, y, rtol=rtol, atol=rtol * max(1e-30, float(np.abs(y.astype(np.float64)).max(initial=0))), equal_nan=True) for x, y in zip(a, b))


def nybble(path, feed, *options):
    folder = OUT / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    args = []
    for k, v in feed.items():
        np.save(folder / f"{k}.npy", v)
        args += ["--input", f"{k}={folder / k}.npy"]
    r = subprocess.run([NYBBLE, "run", path, *args, "--output-dir", folder / "out", "--no-cache", *options], capture_output=True, text=True)
    if r.returncode:
        print(r.stderr[:400])
        return []
    names = [o.name for o in onnx.load(path, load_external_data=False).graph.output]
    return [np.load(folder / "out" / f"{n}.npy") for n in names]


def table():
    """Every change of a definition between operator sets 8 and 25 is in onnx_upgrade.def."""
    first, changes = {}, {}
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "":
            first[s.name] = min(first.get(s.name, 99), s.since_version)
            changes.setdefault(s.name, set()).add(s.since_version)
    want = {(k, v) for k, vs in changes.items() for v in vs if 8 <= v <= 25 and v != first[k]}
    text = (ROOT / "frontend/onnx_upgrade.def").read_text()
    have = {(m[1], int(v)) for m in re.finditer(r'^CHANGED\((\w+), "([^"]*)"\)', text, re.M) for v in m[2].split()}
    have |= {(m[1], int(m[2])) for m in re.finditer(r"^  RULE\((\w+), (\d+),", text, re.M)}
    check(have == want, f"onnx_upgrade.def: {sorted(want ^ have)[:10]}")


def copies(paths):
    """A model that nothing was done to is written as it was."""
    bad = []
    for p in paths:
        to = OUT / "copy.onnx"
        subprocess.run([TOOL, p, to, "0"], check=False, capture_output=True)
        if not to.exists() or to.read_bytes() != p.read_bytes():
            bad.append(p)
    check(not bad, f"{len(bad)} of {len(paths)} models are not copied byte for byte: {bad[:3]}")


def raised(name, nodes, inputs, inits, opset, to=23, **more):
    path = build(name, nodes, inputs, inits, opset, **more)
    out = edit(path, "opset", to)
    if not out:
        return
    model = onnx.load(out)
    try:
        onnx.checker.check_model(model, full_check=True)
        version = next(o.version for o in model.opset_import if o.domain == "")
        check(version == max(to, opset, 15 if opset < to else 0), f"{name}: operator set {version}")
        check(close(runtime(out, inputs), runtime(path, inputs)), f"{name}: ONNX Runtime gives other results at operator set {to}")
        check(close(nybble(out, inputs), nybble(path, inputs)), f"{name}: nybble gives other results at operator set {to}")
    except Exception as e:
        check(False, f"{name}: {e}")


def rules():
    N = H.make_node
    x, img = normal(3, 4, 5), normal(2, 4, 6, 6)
    one = {"x": x}
    raised("up_clip", [N("Clip", ["x"], ["a"], min=-0.5, max=0.25), N("Clip", ["a"], ["y"], min=0.0)], one, {}, 9)
    raised("up_clip_none", [N("Clip", ["x"], ["y"])], one, {}, 7)
    raised("up_dropout", [N("Dropout", ["x"], ["a"], ratio=0.4), N("Relu", ["a"], ["y"])], one, {}, 9)
    raised("up_pad", [N("Pad", ["x"], ["y"], pads=[0, 1, 0, 0, 0, 2], value=1.5)], one, {}, 9)
    raised("up_pad_mode", [N("Pad", ["x"], ["y"], pads=[0, 1, 0, 0, 0, 2], mode="reflect")], one, {}, 10)
    raised("up_upsample_7", [N("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")], {"x": img}, {}, 7)
    raised("up_upsample_9", [N("Upsample", ["x", "s"], ["y"], mode="linear")], {"x": img}, {"s": np.array([1, 1, 2, 2], F)}, 9)
    raised("up_resize_10", [N("Resize", ["x", "s"], ["y"], mode="nearest")], {"x": img}, {"s": np.array([1, 1, 1.5, 2], F)}, 10)
    raised("up_resize_11", [N("Resize", ["x", "roi", "s"], ["y"], mode="cubic")], {"x": img}, {"roi": np.array([], F), "s": np.array([1, 1, 1.5, 2], F)}, 11)
    raised("up_scatter", [N("Scatter", ["x", "i", "u"], ["y"], axis=1)], {"x": normal(3, 4)}, {"i": np.array([[0, 2]]), "u": normal(1, 2)}, 9)
    raised("up_slice", [N("Slice", ["x"], ["a"], starts=[0, 1], ends=[2, 100], axes=[1, 2]), N("Slice", ["a"], ["y"], starts=[1], ends=[3])], one, {}, 9)
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis, shapes in ((None, True), (2, True), (0, True), (1, False), (2, False)):
            attrs = {} if axis is None else {"axis": axis}
            raised(f"up_{op}_{axis}_{shapes}", [N("Identity", ["x"], ["h"]), N(op, ["h"], ["y"], **attrs)], one, {}, 9 if op != "LogSoftmax" else 11, shapes=shapes)
    raised("up_softmax_negative", [N("Softmax", ["x"], ["y"], axis=-1)], one, {}, 12)
    raised("up_split", [N("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]), N("Split", ["b"], ["c", "d", "f"], axis=1), N("Concat", ["f", "a", "c", "d"], ["y"], axis=1)], one, {}, 11)
    raised("up_split_17", [N("Split", ["x"], ["a", "b"], axis=1), N("Sub", ["a", "b"], ["y"])], one, {}, 13)
    raised("up_squeeze", [N("Unsqueeze", ["x"], ["a"], axes=[0, 3]), N("Squeeze", ["a"], ["b"], axes=[0]), N("Squeeze", ["b"], ["y"])], one, {}, 12)
    for i, op in enumerate("ReduceSum ReduceMax ReduceMean ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare".split()):
        raised(f"up_{op}", [N(op, ["x"], ["a"], axes=[1], keepdims=1), N(op, ["a"], ["y"], keepdims=0)], {"x": np.abs(x)}, {}, 11 if i % 2 or not i else 13)
    raised("up_topk", [N("TopK", ["x"], ["y", "i"], k=2, axis=1)], one, {}, 9)
    raised("up_roi_align", [N("RoiAlign", ["x", "r", "b"], ["y"], output_height=2, output_width=2, sampling_ratio=2)], {"x": img}, {"r": np.array([[0.5, 0.5, 4, 5]], F), "b": np.array([1])}, 10, to=21)
    for mode in ("bilinear", "bicubic", "nearest"):
        raised(f"up_grid_{mode}", [N("GridSample", ["x", "g"], ["y"], mode=mode)], {"x": img, "g": np.tanh(normal(2, 3, 3, 2))}, {}, 16)
    raised("up_dft", [N("DFT", ["x"], ["y"], axis=1)], {"x": normal(2, 5, 1)}, {}, 17)
    raised("up_batchnorm", [N("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])], {"x": img}, {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4))}, 8)
    raised("up_old_inputs", [N("Mul", ["x", "w"], ["y"])], one, {"w": normal(5)}, 8, ir=3, listed=True)
    then = H.make_graph([N("Clip", ["x"], ["t"], min=0.0), N("Unsqueeze", ["t"], ["u"], axes=[0])], "then", [], [H.make_tensor_value_info("u", T.FLOAT, None)])
    other = H.make_graph([N("Softmax", ["x"], ["t2"], axis=1), N("Unsqueeze", ["t2"], ["u2"], axes=[0])], "else", [], [H.make_tensor_value_info("u2", T.FLOAT, None)])
    for c in (True, False):
        raised(f"up_bodies_{c}", [N("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"x": x, "c": np.array(c)}, {}, 9)
    fn = H.make_function("mine", "F", ["a"], ["b"], [N("Unsqueeze", ["a", "ax"], ["u"]), N("ReduceMax", ["u"], ["b"], axes=[2], keepdims=0)], [H.make_opsetid("", 15)])
    fn.node.insert(0, N("Constant", [], ["ax"], value_ints=[0]))
    raised("up_function", [N("F", ["x"], ["y"], domain="mine")], one, {}, 15, functions=[fn], domains=["mine"])
    bad = build("refused_groupnorm", [N("GroupNormalization", ["x", "s", "b"], ["y"], name="gn", num_groups=2)], {"x": img}, {"s": normal(2), "b": normal(2)}, 18)
    edit(bad, "opset", 23, fails='node "gn" (GroupNormalization) cannot be carried to operator set 21')
    edit(build("refused_new", [N("Relu", ["x"], ["y"])], one, {}, 21), "opset", 27, fails="cannot be raised to 27")
    old = build("refused_dropout", [N("Dropout", ["x"], ["y", "mask"], ratio=0.4)], one, {}, 9, outputs=("y", "mask"))
    edit(old, "opset", 23, fails="its further results")


def same_by_reference(path, feed, what, rtol=1e-5):
    """The checker takes it, and nybble, compiled and evaluated, gives what ONNX's reference evaluator gives."""
    onnx.checker.check_model(path, full_check=True)
    want = ReferenceEvaluator(str(path)).run(None, feed)
    check(close(nybble(path, feed), want, rtol), f"{what}: compiled")
    check(close(nybble(path, feed, "--evaluate"), want, rtol), f"{what}: evaluated")
    return want


def quantised():
    N = H.make_node
    for how in ("nvfp4", "mxfp4", "int4", "int8"):
        for rows, width in ((32, 64), (5, 41)):
            w, x = normal(rows, width), normal(3, width)
            path = build(f"q_{how}_{width}", [N("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"x": x}, {"w": w, "b": normal(rows)}, 12)
            out = edit(path, *(["opset", 19] if how == "int8" else []), how, "w", 1)
            if out:
                want = same_by_reference(out, {"x": x}, f"{how} of {rows} x {width}")
                exact = runtime(path, {"x": x})[0]
                error = np.linalg.norm(want[0] - exact) / np.linalg.norm(exact)
                check(error < {"nvfp4": 0.2, "mxfp4": 0.25, "int4": 0.2, "int8": 0.02}[how], f"{how}: relative error {error}")
                check("w" not in {t.name for t in onnx.load(out).graph.initializer}, f"{how}: the weight is still there")
    w, x = normal(40, 6), normal(2, 40)
    for how in ("nvfp4", "mxfp4", "int4"):
        out = edit(build(f"q_{how}_axis0", [N("MatMul", ["x", "w"], ["y"])], {"x": x}, {"w": w}, 17), how, "w", 0)
        if out:
            same_by_reference(out, {"x": x}, f"{how} along axis 0")
    x = normal(1, 3, 7, 8)
    out = edit(build("q_conv", [N("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], {"x": x}, {"w": normal(6, 3, 3, 3)}, 13, ir=3, listed=True), "conv", "w")
    if out:
        same_by_reference(out, {"x": x}, "a convolution's weight, channels last")
        check([i.name for i in onnx.load(out).graph.input] == ["x"], "a weight is no input any more")
    then = H.make_graph([N("MatMul", ["x", "w"], ["t"])], "then", [], [H.make_tensor_value_info("t", T.FLOAT, None)])
    other = H.make_graph([N("Identity", ["x"], ["t2"])], "else", [], [H.make_tensor_value_info("t2", T.FLOAT, None)])
    x = normal(3, 32)
    out = edit(build("q_body", [N("If", ["c"], ["h"], then_branch=then, else_branch=other), N("MatMul", ["h", "w"], ["y"])], {"x": x, "c": np.array(True)}, {"w": normal(32, 32)}, 16), "nvfp4", "w", 0)
    if out:
        same_by_reference(out, {"x": x, "c": np.array(True)}, "a weight that a body reads too")
    edit(build("q_missing", [N("Relu", ["x"], ["y"])], {"x": x}, {}, 16), "nvfp4", "w", 0, fails="no initializer w")


def inserted():
    N = H.make_node
    x = normal(3, 4)
    nodes = [N("Relu", ["x"], ["a"]), N("Add", ["a", "x"], ["y"]), N("Neg", ["a"], ["z"])]
    path = build("insert", nodes, {"x": x}, {}, 17, outputs=("y", "z"))
    a = np.maximum(x, 0)
    for steps, want in ((("mul", "a"), (a * 1.25 + x, -a * 1.25)), (("add", "y"), (a + x + 0.125, -a)), (("mul", "x"), (np.maximum(x * 1.25, 0) + x * 1.25, -np.maximum(x * 1.25, 0))),
                        (("mul_at", "a"), (a + x, -a * 1.25)), (("mul", "a", "add", "a", "mul_at", "x"), (a * 1.25 + 0.125 + x * 1.25, -a * 1.25 - 0.125))):
        out = edit(path, *steps)
        if out:
            onnx.checker.check_model(out, full_check=True)
            check(close(runtime(out, {"x": x}), [w.astype(F) for w in want]), f"insert {steps}")
    then = H.make_graph([N("Neg", ["x"], ["t"])], "then", [], [H.make_tensor_value_info("t", T.FLOAT, None)])
    path = build("insert_body", [N("If", ["c"], ["y"], then_branch=then, else_branch=then)], {"x": x, "c": np.array(True)}, {}, 17)
    edit(path, "mul", "x", fails="that a body of If, Loop or Scan reads")
    edit(path, "mul", "nowhere", fails="is not in the main graph")


def external():
    """Data beside the model: made, read, kept, and written over the file it came from."""
    w, x = normal(64, 64), normal(2, 64)
    node = H.make_node("MatMul", ["x", "w"], ["y"])
    constant = H.make_node("Constant", [], ["k"], value=numpy_helper.from_array(normal(64, 64)))
    path = build("outside", [node, constant, H.make_node("MatMul", ["y", "k"], ["z"])], {"x": x}, {"w": w}, 17, outputs=("z",))
    want = runtime(path, {"x": x})
    out = edit(path, limit=100)
    data = out.with_name(out.name + ".data")
    check(out.stat().st_size < 1500 and data.stat().st_size >= 2 * w.nbytes, f"sizes {out.stat().st_size} and {data.stat().st_size}")
    onnx.checker.check_model(str(out))
    loaded = onnx.load(out)
    check(np.array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), w), "the weight outside")
    check(close(nybble(out, {"x": x}), want), "nybble reads what it wrote")
    again = edit(out, to=OUT / "again.onnx")
    check((OUT / "again.onnx.data").read_bytes() == data.read_bytes() and close(nybble(again, {"x": x}), want), "external data moves along")
    once = edit(out, "nvfp4", "w", 0, to=out)
    check(data.stat().st_size < 2 * w.nbytes and once, "a weight that went is not in the data file any more")
    same_by_reference(out, {"x": x}, "written over itself")
    onnx.save(onnx.load(path), OUT / "theirs.onnx", save_as_external_data=True, location="theirs.bin", size_threshold=16)
    kept = edit(OUT / "theirs.onnx", "mul", "y", to=OUT / "theirs.edited.onnx")
    check(close(runtime(kept, {"x": x}), [want[0] * F(1.25)]), "another program's external data")


def larger():
    """The models of scripts/real-models: copied, and raised to operator set 23, where ONNX Runtime must find the same results."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import real_models

    for name, file, makers in real_models.MODELS:
        p = file()
        have = next(o.version for o in onnx.load(p, load_external_data=False).opset_import if o.domain in ("", "ai.onnx"))
        copies([p])
        out = edit(p, "opset", 23, to=OUT / "raised.onnx")
        if out:
            check(subprocess.run([TOOL, out, OUT / "copy.onnx", "0"]).returncode == 0, f"{name}: what was written is read again")
            feed = makers[0](np.random.default_rng(0))
            known = {i.name for i in real_models.session(p, 0).get_inputs()}
            feed = {k: v for k, v in feed.items() if k in known}
            onnx.checker.check_model(str(out))
            check(close(runtime(out, feed), runtime(p, feed), 1e-4), f"{name}: other results at operator set 23 than at {have}")
            print(f"{name}: operator set {have} -> 23")


shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
table()
suite = sorted((ROOT / "build/onnx-suite").glob("*/*/model.onnx"))
copies(suite[::7])
rules()
quantised()
inserted()
external()
if "--no-models" not in sys.argv:
    larger()
print(f"onnx_edit: {passed} passed, {failed} failed")
sys.exit(failed != 0)
