"""What scripts/gpu-check carries to a machine with a GPU: fat modules with inputs and expected outputs, and recorded kernels with machine code."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import real_models

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build/gpu-data"
ARCHIVE = ROOT / "build/gpu/gpu.tar.xz"
NYBBLE = OUT / "nybble"
TARGETS = "sm_80,sm_90a,sm_100f,sm_120f"
LIMIT = 64 << 20  # what can be carried
WORDS = 1024  # of MiniLM's vocabulary: the rest is a table nobody looks into
BF16 = ml_dtypes.bfloat16
TOLERANCE = {"f32": 1e-3, "bf16": 2e-2}


def minilm(layers):
    loader = importlib.machinery.SourceFileLoader("make_minilm", str(ROOT / "scripts/make-minilm"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_minilm", loader))
    loader.exec_module(module)
    return module.build(module.package_folder(), layers, WORDS)


def to_bf16(model, precision):
    """Weights rounded to bf16; with precision, computed in bf16 too. What is read and returned stays f32."""
    for t in model.graph.initializer:
        if t.data_type == TensorProto.FLOAT:
            rounded = numpy_helper.to_array(t).astype(BF16)
            t.CopyFrom(numpy_helper.from_array(rounded if precision else rounded.astype(np.float32), t.name))
    if not precision:
        return model
    for node in model.graph.node:
        for a in node.attribute:
            if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
                a.i = TensorProto.BFLOAT16
    for output in model.graph.output:
        for node in model.graph.node:
            node.output[:] = [o + "_bf16" if o == output.name else o for o in node.output]
        model.graph.node.append(helper.make_node("Cast", [output.name + "_bf16"], [output.name], to=TensorProto.FLOAT))
    return model


def graph(name, nodes, inputs, output, constants=()):
    """One small graph; what is a string in a shape is a symbol."""
    kinds = {"f32": TensorProto.FLOAT, "bf16": TensorProto.BFLOAT16}
    values = [helper.make_tensor_value_info(n, kinds[k], s) for n, k, s in [*inputs, output]]
    g = helper.make_graph(nodes, name, values[:-1], values[-1:], [numpy_helper.from_array(a, n) for n, a in constants])
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def rows(kind, op, width=1024, **attributes):
    constants = [(n, np.linspace(a, b, width).astype(np.float32 if kind == "f32" else BF16)) for n, a, b in (("s", 0.5, 1.5), ("b", -1, 1))] if op == "LayerNormalization" else []
    inputs = [("x", kind, ["N", width])] + ([("z", kind, ["N", width])] if op == "Add" else [])
    return graph(op.lower(), [helper.make_node(op, [i[0] for i in inputs] + [c[0] for c in constants], ["y"], **attributes)], inputs, ("y", kind, ["N", width]), constants)


def one_op(op, *shapes, constants=(), **attributes):
    """A kernel of a family: the first input is random, constants come after."""
    inputs = [(f"x{i}", "f32", list(s)) for i, s in enumerate(shapes)]
    named = [(f"c{i}", np.asarray(c)) for i, c in enumerate(constants)]
    node = helper.make_node(op, [n for n, _, _ in inputs] + [n for n, _ in named], ["y"], **attributes)
    model = graph(op.lower(), [node], inputs, ("y", "f32", None), named)
    return onnx.shape_inference.infer_shapes(model)


def families():
    rng = np.random.default_rng(3)
    f32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    index = np.array([5, 0, 3], np.int64)
    return {
        "sum_columns": one_op("ReduceSum", (65, 70), constants=[np.array([0], np.int64)], keepdims=0),
        "max_rows": one_op("ReduceMax", (33, 1000), constants=[np.array([1], np.int64)]),
        "cumsum": one_op("CumSum", (9, 300), constants=[np.int64(1)]),
        "transpose": one_op("Transpose", (17, 30, 45), perm=[2, 0, 1]),
        "gather": one_op("Gather", (7, 50), constants=[index]),
        "scatter": one_op("ScatterElements", (6, 40), constants=[np.tile(index[:, None], (1, 40)), f32(3, 40)], reduction="add"),
        "pad": one_op("Pad", (5, 37), constants=[np.array([1, 2, 3, 4], np.int64)]),
        "matmul_f32": one_op("MatMul", (70, 130), constants=[f32(130, 90)]),
        "matmul_vector": one_op("MatMul", (1, 384), constants=[f32(384, 200)]),
        "conv3x3": one_op("Conv", (1, 16, 20, 20), constants=[f32(24, 16, 3, 3), f32(24)], pads=[1, 1, 1, 1]),
        "conv1x1": one_op("Conv", (1, 32, 14, 14), constants=[f32(48, 32, 1, 1)]),
        "depthwise": one_op("Conv", (1, 32, 15, 15), constants=[f32(32, 1, 3, 3)], group=32, pads=[1, 1, 1, 1], strides=[2, 2]),
        "maxpool": one_op("MaxPool", (1, 8, 20, 20), kernel_shape=[3, 3], strides=[2, 2]),
    }


def gemm(n, fused):
    inputs = [("a", "bf16", [n, n]), ("b", "bf16", [n, n])] + ([("c", "bf16", [n])] if fused else [])
    nodes = [helper.make_node("MatMul", ["a", "b"], ["p" if fused else "y"])]
    if fused:
        nodes += [helper.make_node("Add", ["p", "c"], ["q"]), helper.make_node("Gelu", ["q"], ["y"], approximate="tanh")]
    return graph("gemm", nodes, inputs, ("y", "bf16", [n, n]))


def codes_pair(m, k, n):
    """Two products by NVFP4 weights, k to n and back: together they are more than a cache holds. The same codes over and over, so that the archive stays small."""
    rng = np.random.default_rng(4)
    nodes, constants, x = [], [], "x"
    for name, rows, columns in (("up", n, k), ("down", k, n)):
        codes = np.resize(rng.integers(0, 256, 1 << 16, dtype=np.uint8), rows * columns // 2)
        scales = np.resize(rng.integers(0x20, 0x30, 1 << 12, dtype=np.uint8), rows * columns // 16)
        constants += [helper.make_tensor(f"{name}_f4", TensorProto.FLOAT4E2M1, (rows, columns), codes.tobytes(), raw=True),
                      helper.make_tensor(f"{name}_s", TensorProto.FLOAT8E4M3FN, (rows, columns // 16), scales.tobytes(), raw=True)]
        nodes += [helper.make_node("DequantizeLinear", [f"{name}_s", "ts"], [f"{name}_sf"]),
                  helper.make_node("DequantizeLinear", [f"{name}_f4", f"{name}_sf"], [f"{name}_w"], axis=-1, block_size=16),
                  helper.make_node("Cast", [f"{name}_w"], [f"{name}_b"], to=TensorProto.BFLOAT16),
                  helper.make_node("Transpose", [f"{name}_b"], [f"{name}_t"], perm=[1, 0]),
                  helper.make_node("MatMul", [x, f"{name}_t"], ["y" if name == "down" else "h"])]
        x = "h"
    constants.append(numpy_helper.from_array(np.float32(0.02), "ts"))
    values = [helper.make_tensor_value_info(v, TensorProto.BFLOAT16, [m, k]) for v in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "codes", values[:1], values[1:], constants), opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def random(model, sizes):
    def make(rng):
        kinds = {TensorProto.FLOAT: np.float32, TensorProto.BFLOAT16: BF16}
        shape = lambda t: [d.dim_value or sizes[d.dim_param] for d in t.shape.dim]
        return {i.name: rng.standard_normal(shape(i.type.tensor_type)).astype(kinds[i.type.tensor_type.elem_type]) for i in model.graph.input}
    return make


def words(batch, length):
    def make(rng):
        ids = real_models.tokens(rng, batch, length)
        return {**ids, "input_ids": ids["input_ids"] % WORDS}
    return make


def in_f32(model):
    """The same model with every bf16 in f32, for a reference that has no bf16 kernels."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for t in model.graph.initializer:
        if t.data_type == TensorProto.BFLOAT16:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))
    for v in [*model.graph.input, *model.graph.output]:
        if v.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            v.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def expected(model, inputs):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()}
    feeds = {k: v.astype(np.float32) if v.dtype == BF16 else v for k, v in inputs.items() if k in known}
    return {o.name: v for o, v in zip(session.get_outputs(), session.run(None, feeds))}


def save_bf16(path, array):
    np.save(path, array.view("V2") if array.dtype == BF16 else array)


def run(*arguments, program=NYBBLE):
    r = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "NYBBLE_CACHE": str(ROOT / "build/gpu-build/cache")})
    if r.returncode:
        sys.exit(f"gpu-check: {program.name} {' '.join(map(str, arguments[:3]))}: {r.stderr.strip()}")
    return r.stdout


def add(name, model, make, kind="f32", reference=None, record=False, check=True, keep=True):
    folder = OUT / "models" / name
    folder.mkdir(parents=True)
    source = ROOT / f"build/gpu-build/{name}.onnx"
    onnx.save(model, source)
    run("compile", source, "-o", folder / "model.nyb", "--target", TARGETS)
    row = {"name": name, "tolerance": TOLERANCE[kind], "inputs": {}, "outputs": {}}
    if check:
        inputs = make(np.random.default_rng(0))
        outputs = expected(in_f32(reference or model), inputs)
        for what, values in (("inputs", inputs), ("outputs", outputs)):
            for i, (key, value) in enumerate(values.items()):
                row[what][key] = f"{what[:-1]}{i}.npy"
                save_bf16(folder / row[what][key], value)
    if record:
        kernels = OUT / "kernels" / name
        kernels.parent.mkdir(exist_ok=True)
        feeds = [x for k, f in row["inputs"].items() for x in ("--input", f"{k}={folder / f}")]
        run("kernels", "dump", source, kernels, "--device", "sim:h100", "--cubin", TARGETS, *feeds)
        for stage in kernels.glob("*.nyt"):
            stage.unlink()
    print(f"{name:<16} {megabytes(folder):6.1f} MiB, kernels {megabytes(OUT / 'kernels' / name):6.1f} MiB", flush=True)
    if not keep:
        shutil.rmtree(folder)
    return row


def megabytes(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20


def main():
    models = []

    def take(*arguments, keep=True, **options):
        row = add(*arguments, keep=keep, **options)
        if keep:
            models.append(row)

    table = {name: (file, make) for name, file, make in real_models.MODELS}
    one = to_bf16(minilm(1), False)
    take("minilm_f32", one, words(2, 24), record=True, keep=False)
    take("minilm_bf16", to_bf16(minilm(6), True), words(2, 24), "bf16", to_bf16(minilm(6), False))
    take("minilm_bf16_layer", to_bf16(minilm(1), True), words(1, 128), "bf16", to_bf16(minilm(1), False), record=True, keep=False)
    for name in ("silero_vad", "magika", "ocr_rec"):
        file, makes = table[name]
        take(name, onnx.load(file()), makes[0], record=name != "ocr_rec")
    for name, model, kind in (("gelu", rows("f32", "Gelu"), "f32"), ("gelu_bf16", rows("bf16", "Gelu"), "bf16"), ("add", rows("f32", "Add"), "f32"),
                              ("softmax", rows("f32", "Softmax", axis=-1), "f32"), ("layernorm", rows("f32", "LayerNormalization", axis=-1), "f32"),
                              ("layernorm_bf16", rows("bf16", "LayerNormalization", axis=-1), "bf16")):
        take(name, model, random(model, {"N": 37}), kind, record=True)
    for name, model in families().items():
        take(name, model, random(model, {}), record=True)
    for n in (256, 4096):
        for fused in (False, True):
            model = gemm(n, fused)
            take(f"gemm{'_gelu' if fused else ''}_{n}", model, random(model, {}), "bf16", record=n == 256, check=n == 256)
    for m, k, n in ((1, 256, 512), (1, 4096, 14336), (16, 4096, 14336)):
        model = codes_pair(m, k, n)
        take(f"codes_{m}x{k}", model, random(model, {}), "bf16", check=False)
    run("--make", OUT / "cts-modules", "--target", TARGETS, program=OUT / "cts")
    print(f"conformance test {megabytes(OUT / 'cts-modules'):6.1f} MiB", flush=True)
    (OUT / "models.json").write_text(json.dumps(models, indent=1))
    with tarfile.open(ARCHIVE, "w:xz", preset=3) as archive:
        for f in sorted(OUT.iterdir()):
            archive.add(f, f.name)
    (OUT / "unpacked").touch()
    size = ARCHIVE.stat().st_size
    print(f"{ARCHIVE.relative_to(ROOT)}: {size / 2**20:.1f} MiB of {megabytes(OUT):.1f} MiB")
    if size > LIMIT:
        sys.exit(f"gpu-check: that is more than the {LIMIT >> 20} MiB that can be carried")


if __name__ == "__main__":
    for folder in ("models", "cts-modules"):
        shutil.rmtree(OUT / folder, ignore_errors=True)
    main()
