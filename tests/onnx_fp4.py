#!/usr/bin/env python3
"""onnx_fp4.py NYBBLE OUT [--device D]...: writes models in every dialect of quantised ONNX with the outputs they must give, and has nybble run them,
compiled and by the evaluator. What a model must give comes from ONNX's reference evaluator where it knows the operators, from ONNX Runtime where it has a
kernel for this CPU, and otherwise from the formulas of the operators, written down here in NumPy. Prints `onnx_fp4: N passed, N failed`."""
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
from onnx import TensorProto as T, helper as H, numpy_helper
from onnx.reference import ReferenceEvaluator

OUT = pathlib.Path(sys.argv[2])
E2M1, E4M3, E8M0, BF16, I4, U4 = ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu, ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.uint4
F = np.float32
KIND = {T.FLOAT: F, T.FLOAT16: np.float16, T.BFLOAT16: BF16}
rng = np.random.default_rng(0)
oracles = {}


def normal(*shape, dtype=F):
    return rng.standard_normal(shape).astype(F).astype(dtype)


def pack(codes, bits=4):
    """Codes as bytes, the first in the low bits."""
    flat = np.asarray(codes).astype(np.uint8).reshape(-1)
    per = 8 // bits
    flat = np.concatenate([flat, np.zeros(-flat.size % per, np.uint8)]).reshape(-1, per)
    return sum(flat[:, i].astype(np.uint32) << (bits * i) for i in range(per)).astype(np.uint8)


def bits_of(a):
    """The codes of an array whose elements have their own byte."""
    return np.asarray(a).view(np.uint8) & (15 if a.dtype in (E2M1, I4, U4) else 255)


def init(name, a):
    a = np.asarray(a)
    kind = {np.dtype(E2M1): T.FLOAT4E2M1, np.dtype(E4M3): T.FLOAT8E4M3FN, np.dtype(E8M0): T.FLOAT8E8M0, np.dtype(BF16): T.BFLOAT16, np.dtype(I4): T.INT4,
            np.dtype(U4): T.UINT4}.get(a.dtype)
    if kind is None:
        return numpy_helper.from_array(a, name)
    data = pack(bits_of(a)) if kind in (T.FLOAT4E2M1, T.INT4, T.UINT4) else a
    return H.make_tensor(name, kind, a.shape, data.tobytes(), raw=True)


def node(op, ins, outs, domain="", **attrs):
    return H.make_node(op, ins.split(), outs.split(), domain=domain, **attrs)


def case(name, nodes, inputs, inits, want="reference", opset=24, rtol=2e-5, listed=False, vendors=True, ir=13, out_type=None, symbols=None):
    """inputs, inits: {name: array}. want: the expected output y, or who gives them: reference, runtime."""
    tensors = [init(k, v) for k, v in inits.items()]
    of = lambda k, a: H.make_tensor_value_info(k, init("", a).data_type, a.shape)
    ins = [H.make_tensor_value_info(k, init("", v).data_type, (symbols or {}).get(k, v.shape)) for k, v in inputs.items()] + ([H.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors] if listed else [])
    domains = sorted({n.domain for n in nodes} - {""}) if vendors else []

    def model(want):
        outs = [of("y", want) if want is not None else H.make_tensor_value_info("y", out_type or init("", next(iter(inputs.values()))).data_type, None)]
        graph = H.make_graph(nodes, name, ins, outs, tensors)
        return H.make_model(graph, opset_imports=[H.make_opsetid("", opset)] + [H.make_opsetid(d, 1) for d in domains], ir_version=ir)

    oracles[name] = want if isinstance(want, str) else "formula"
    if oracles[name] == "reference":
        want = ReferenceEvaluator(model(None)).run(None, inputs)[0]
        onnx.checker.check_model(model(want))
    elif oracles[name] == "runtime":
        want = ort.InferenceSession(model(None).SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    want = np.asarray(want)
    folder = OUT / name
    (folder / "test_data_set_0").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model(want).SerializeToString(deterministic=True))
    (folder / "data.json").write_text(json.dumps({"rtol": rtol, "atol": rtol * float(np.abs(want.astype(np.float64)).max(initial=1e-30))}))
    for i, v in enumerate(inputs.values()):
        (folder / f"test_data_set_0/input_{i}.pb").write_bytes(init("", v).SerializeToString())
    (folder / "test_data_set_0/output_0.pb").write_bytes(init("", want).SerializeToString())


# ---- quantisers, by the rules of the exporters
def blocked(a, axis, block, fn):
    """fn of every block along axis, [.., n, ..]; the last block may be short."""
    a = np.moveaxis(a, axis, -1)
    n = -(-a.shape[-1] // block)
    a = np.concatenate([a, np.zeros(a.shape[:-1] + (n * block - a.shape[-1],), a.dtype)], -1).reshape(a.shape[:-1] + (n, block))
    return np.moveaxis(fn(a), -1, axis)


def spread(s, axis, block, size):
    return np.take(np.repeat(s, block, axis), range(size), axis)


def amax(a, axis, block):
    return blocked(np.abs(np.asarray(a, F)), axis, block, lambda b: b.max(-1))


def nvfp4(w, axis=-1, block=16):
    top = np.abs(w).max()
    g = F(top / (6 * 448)) if top else F(1)
    a = amax(w, axis, block)
    s = np.where(a == 0, F(1), a / F(6) / g).astype(E4M3)
    whole = spread(s.astype(F) * g, axis, block, w.shape[axis])
    return (w / whole).astype(E2M1), s, g


def mxfp4(w, axis=-1, block=32):
    a = amax(w, axis, block)
    e = np.clip(np.floor(np.log2(np.where(a == 0, F(2) ** -127, a))) - 2, -127, 127)
    s = np.exp2(e).astype(F)
    return (w / spread(s, axis, block, w.shape[axis])).astype(E2M1), s.astype(E8M0)


def f8_mul(s, g):
    return s.astype(F) * F(g)


def deq(q, s, axis, block, zero=0):
    z = spread(zero, axis, block, q.shape[axis]).astype(F) if np.ndim(zero) else F(zero)
    return (q.astype(F) - z) * spread(np.asarray(s, F), axis, block, q.shape[axis])


# ---- P1: two chained DequantizeLinear
def weight_nvfp4(name, rows, width, axis=-1, cast=None, transpose=True, **more):
    w = normal(rows, width)
    q, s, g = nvfp4(w, axis)
    kind = KIND[cast] if cast else F
    x = normal(3, width if transpose else rows, dtype=kind)
    nodes = [node("DequantizeLinear", "w_f8_scale w_f8_scale_f32_scale", "s"), node("DequantizeLinear", "w_f4 s", "w", axis=axis, block_size=16)]
    last = "w"
    if cast:
        nodes += [node("Cast", "w", "wc", to=cast)]
        last = "wc"
    if transpose:
        nodes += [node("Transpose", last, "wt", perm=[1, 0])]
        last = "wt"
    nodes += [node("MatMul", f"x {last}", "y")]
    case(name, nodes, {"x": x}, {"w_f4": q, "w_f8_scale": s, "w_f8_scale_f32_scale": F(g)}, rtol=2e-5 if not cast else 2e-2, **more)


def p1():
    weight_nvfp4("p1_nvfp4", 32, 64)
    weight_nvfp4("p1_nvfp4_remainder", 7, 41)
    weight_nvfp4("p1_nvfp4_small", 3, 5)
    weight_nvfp4("p1_nvfp4_axis0", 40, 6, axis=0, transpose=False)
    weight_nvfp4("p1_nvfp4_axis1", 24, 50, axis=1, transpose=False)
    weight_nvfp4("p1_nvfp4_f16", 16, 48, cast=T.FLOAT16)
    weight_nvfp4("p1_nvfp4_bf16", 16, 48, cast=T.BFLOAT16)
    weight_nvfp4("p1_nvfp4_listed", 9, 33, listed=True)
    weight_nvfp4("p1_nvfp4_opset23", 9, 32, opset=23)
    w = normal(6, 3, 3, 3)
    q, s, g = nvfp4(w.reshape(6, 27))
    dq = [node("DequantizeLinear", "s8 g", "s"), node("DequantizeLinear", "q s", "w", axis=-1, block_size=16)]
    case("p1_nvfp4_conv", dq + [node("Reshape", "w shape", "w4"), node("Conv", "x w4", "y")], {"x": normal(1, 3, 7, 8)},
         {"q": q, "s8": s, "g": g, "shape": np.array([6, 3, 3, 3])})
    case("p1_nvfp4_conv_last", dq + [node("Reshape", "w shape", "w4"), node("Transpose", "w4", "wt", perm=[0, 3, 1, 2]), node("Conv", "x wt", "y")],
         {"x": normal(1, 3, 7, 8)}, {"q": q, "s8": s, "g": g, "shape": np.array([6, 3, 3, 3])})
    w = normal(20, 33)
    q, s, g = nvfp4(w)
    more = {"q": q, "s8": s, "g": g}
    case("p1_nvfp4_gemm", dq + [node("Gemm", "x w b", "y", transB=1, alpha=0.5)], {"x": normal(4, 33)}, {**more, "b": normal(20)})
    case("p1_nvfp4_shared", dq + [node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "a"), node("MatMul", "a w", "y")], {"x": normal(4, 33)}, more)
    case("p1_nvfp4_gather", dq + [node("Gather", "w i", "y")], {"i": np.array([[3, 0], [19, -1]])}, more, out_type=T.FLOAT)
    case("p1_nvfp4_output", dq + [node("Identity", "w", "z"), node("Add", "z x", "y")], {"x": normal(20, 33)}, more)
    unsorted = [node("MatMul", "x wt", "y"), node("Transpose", "w", "wt", perm=[1, 0])] + dq[::-1]
    x = normal(4, 33)
    case("p1_nvfp4_unsorted", unsorted, {"x": x}, more, want=x @ deq(q, f8_mul(s, g), 1, 16).T)
    trt = [node("DequantizeLinear", "s8 g", "s", "trt"), node("DequantizeLinear", "q s", "w", "trt", axis=-1, block_size=16)]
    for name, vendors in (("p1_nvfp4_trt_domain", True), ("p1_nvfp4_trt_no_import", False)):
        case(name, trt + [node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")], {"x": x}, more, want=x @ deq(q, f8_mul(s, g), 1, 16).T,
             opset=20 if vendors else 24, vendors=vendors)
    q = np.zeros((2, 20), E2M1)
    case("p1_nvfp4_zeros", dq + [node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")], {"x": normal(2, 20)},
         {"q": -q, "s8": np.ones((2, 2), E4M3), "g": F(1)})
    inside = H.make_graph([node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "t")], "then", [], [H.make_tensor_value_info("t", T.FLOAT, None)])
    other = H.make_graph([node("MatMul", "x zeros", "u")], "else", [], [H.make_tensor_value_info("u", T.FLOAT, None)])
    q, s, g = nvfp4(normal(6, 33))
    case("p1_nvfp4_in_body", dq + [node("If", "c", "y", then_branch=inside, else_branch=other)], {"x": normal(2, 33), "c": np.array(True)},
         {"q": q, "s8": s, "g": g, "zeros": np.zeros((33, 6), F)}, out_type=T.FLOAT)


def p5():
    for name, rows, width, to in (("", 32, 64, T.FLOAT), ("_remainder", 5, 45, T.FLOAT), ("_f16", 8, 64, T.FLOAT16), ("_bf16", 8, 64, T.BFLOAT16)):
        q, s = mxfp4(normal(rows, width))
        nodes = [node("DequantizeLinear", "q s", "w", axis=1, block_size=32, output_dtype=to), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")]
        case("p5_mxfp4" + name, nodes, {"x": normal(3, width, dtype=KIND[to])}, {"q": q, "s": s}, rtol=2e-5 if to == T.FLOAT else 2e-2)
    q, s = mxfp4(normal(70, 6), 0)
    case("p5_mxfp4_axis0", [node("DequantizeLinear", "q s", "w", axis=0, block_size=32, output_dtype=T.FLOAT), node("MatMul", "x w", "y")], {"x": normal(3, 70)}, {"q": q, "s": s})
    w = normal(5, 64)
    s = np.exp2(np.ceil(np.log2(amax(w, 1, 32) / 448))).astype(F)
    q = (w / spread(s, 1, 32, 64)).astype(E4M3)
    case("p5_mxfp8", [node("DequantizeLinear", "q s", "w", axis=1, block_size=32, output_dtype=T.FLOAT), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")],
         {"x": normal(3, 64)}, {"q": q, "s": s.astype(E8M0)})


def standard():
    """Rows of the table that are not FP4 weights, and integer dialects of DequantizeLinear."""
    x = np.concatenate([normal(40) * 3, np.array([np.inf, -np.inf, -0.0, 0, 5, 5.01, 0.25, 0.75, 1.25, 2.5, 3.5, 1e30], F)])
    case("cast_f4", [node("Cast", "x", "q", to=T.FLOAT4E2M1), node("Cast", "q", "y", to=T.FLOAT)], {"x": x}, {}, opset=23)
    case("fp8_per_tensor", [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")], {"x": normal(5, 7)},
         {"s": F(0.01), "z": np.zeros((), E4M3)}, opset=21)
    for name, kind, lo, hi in (("int4", I4, -8, 8), ("uint4", U4, 0, 16), ("int8", np.int8, -128, 128), ("uint8", np.uint8, 0, 256)):
        q, z = rng.integers(lo, hi, (9, 40)).astype(kind), rng.integers(lo, hi, (9, 3)).astype(kind)
        nodes = [node("DequantizeLinear", "q s z", "w", axis=1, block_size=16), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")]
        s = np.abs(normal(9, 3)) + F(0.1)
        case(f"blocked_{name}", nodes, {"x": (x := normal(4, 40))}, {"q": q, "s": s, "z": z}, opset=21, want=x @ deq(q.astype(np.int32), s, 1, 16, z.astype(np.int32)).T)
    q = rng.integers(-8, 8, (24, 5)).astype(I4)
    case("blocked_int4_axis0", [node("DequantizeLinear", "q s", "w", axis=0, block_size=8), node("MatMul", "x w", "y")], {"x": normal(4, 24)},
         {"q": q, "s": np.abs(normal(3, 5))}, opset=21)
    case("int8_per_axis", [node("DequantizeLinear", "q s z", "w", axis=0), node("Conv", "x w", "y")], {"x": normal(1, 4, 6, 6)},
         {"q": rng.integers(-128, 128, (5, 4, 3, 3)).astype(np.int8), "s": np.abs(normal(5)), "z": rng.integers(-9, 9, 5).astype(np.int8)}, opset=19)
    case("blocked_f16_scale", [node("DequantizeLinear", "q s", "w", axis=1, block_size=16), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")],
         {"x": normal(4, 40, dtype=np.float16)}, {"q": rng.integers(-8, 8, (9, 40)).astype(I4), "s": np.abs(normal(9, 3)).astype(np.float16)}, opset=21, rtol=1e-2)


def p7():
    """Dynamic NVFP4 and MXFP4 of activations in standard operators, and weights as positions in a codebook."""
    rows, width = 3, 48
    x, w = normal(rows, width), normal(5, width)
    q, s, g = nvfp4(w)
    quant = [node("Reshape", "x blocks", "xb"), node("Abs", "xb", "xa"), node("ReduceMax", "xa last", "m", keepdims=0), node("Div", "m k", "d"),
             node("Clip", "d lo hi", "c"), node("Cast", "c", "s8x", to=T.FLOAT8E4M3FN), node("DequantizeLinear", "s8x gx", "sx"),
             node("QuantizeLinear", "x sx", "qx", axis=-1, block_size=16, output_dtype=T.FLOAT4E2M1), node("DequantizeLinear", "qx sx", "xq", axis=-1, block_size=16)]
    dq = [node("DequantizeLinear", "s8 g", "s"), node("DequantizeLinear", "q s", "w", axis=-1, block_size=16), node("Transpose", "w", "wt", perm=[1, 0])]
    gx = F(np.abs(x).max() / 6 / 448)
    consts = {"blocks": np.array([rows, 3, 16]), "last": np.array([-1]), "k": F(gx * 6), "lo": F(2**-9), "hi": F(448), "gx": gx, "q": q, "s8": s, "g": g}
    case("p7_dynamic_nvfp4", quant + dq + [node("MatMul", "xq wt", "y")], {"x": x}, consts, opset=23)
    x = normal(2, 64)
    mx = [node("Reshape", "x blocks", "xb"), node("Abs", "xb", "xa"), node("ReduceMax", "xa last", "m", keepdims=0), node("Div", "m six", "d"),
          node("Cast", "d", "e", to=T.FLOAT8E8M0), node("QuantizeLinear", "x e", "qx", axis=-1, block_size=32, output_dtype=T.FLOAT4E2M1),
          node("DequantizeLinear", "qx e", "y", axis=-1, block_size=32, output_dtype=T.FLOAT)]
    a = amax(x, 1, 32) / F(6)
    e = np.exp2(np.ceil(np.log2(a))).astype(F)
    case("p7_dynamic_mxfp4", mx, {"x": x}, {"blocks": np.array([2, 2, 32]), "last": np.array([-1]), "six": F(6)},
         want=deq((x / spread(e, 1, 32, 64)).astype(E2M1), e, 1, 32))
    book = np.arange(16, dtype=np.uint8).view(E2M1).astype(F)
    for kind in (np.uint8, np.int32, np.int64):
        codes = bits_of(q).astype(kind if kind != np.uint8 else np.int64)
        nodes = [node("Gather", "book i", "v")]
        if kind == np.uint8:
            codes, nodes = bits_of(q), [node("Cast", "i", "i64", to=T.INT64), node("Gather", "book i64", "v")]
        nodes += [node("Reshape", "v blocks", "vb"), node("Mul", "vb s", "ws"), node("Reshape", "ws flat", "w"), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")]
        case(f"p7_codebook_{np.dtype(kind)}", nodes, {"x": normal(4, width)},
             {"book": book, "i": codes, "blocks": np.array([5, 3, 16]), "s": f8_mul(s, g)[..., None], "flat": np.array([5, width])}, opset=13)


def p2_p4():
    """TensorRT's own operators."""
    x, w, gx = normal(3, 48), normal(5, 48), F(0.003)
    q, s, g = nvfp4(w)
    sx = (amax(x, 1, 16) / F(6) / gx).astype(E4M3)
    qx = (x / spread(sx.astype(F) * gx, 1, 16, 48)).astype(E2M1)
    xq = deq(qx, f8_mul(sx, gx), 1, 16)
    wq = deq(q, f8_mul(s, g), 1, 16)
    for domain in ("", "trt"):
        dq = [node("TRT_FP4DynamicQuantize", "x gx", "qx sx8", "trt", axis=-1, block_size=16, scale_type=17), node("DequantizeLinear", "sx8 gx", "sx", domain),
              node("DequantizeLinear", "qx sx", "xq", domain, axis=-1, block_size=16)]
        case(f"p2_dynamic{'_trt' if domain else ''}", dq + [node("DequantizeLinear", "s8 g", "s"), node("DequantizeLinear", "q s", "w", axis=-1, block_size=16),
             node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "xq wt", "y")], {"x": x}, {"gx": gx, "q": q, "s8": s, "g": g}, want=xq @ wq.T)
    x3 = normal(2, 3, 40, dtype=np.float16)
    sx = (amax(x3, 2, 16) / F(6) / gx).astype(E4M3)
    x3[0, 0, :16] = 0
    sx = (amax(x3, 2, 16) / F(6) / gx).astype(E4M3)
    whole = spread(sx.astype(F) * gx, 2, 16, 40)
    qx = np.where(whole == 0, F(0), x3.astype(F) / np.where(whole == 0, F(1), whole)).astype(E2M1)
    case("p2_dynamic_3d_zeros", [node("TRT_FP4DynamicQuantize", "x gx", "qx sx8", "trt", axis=-1, block_size=16), node("DequantizeLinear", "sx8 gx", "sx"),
         node("DequantizeLinear", "qx sx", "y", axis=-1, block_size=16)], {"x": x3}, {"gx": gx}, want=deq(qx, f8_mul(sx, gx), 2, 16), out_type=T.FLOAT)
    x = normal(3, 48)
    case("p3_fp4qdq", [node("TRT_FP4QDQ", "w", "wq", "trt", block_size=16), node("Transpose", "wq", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")], {"x": x}, {"w": w}, want=x @ wq.T)
    wz = normal(3, 21)
    wz[1, :16] = 0
    q, s, g = nvfp4(wz)
    x = normal(3, 21)
    case("p3_fp4qdq_remainder", [node("TRT_FP4QDQ", "w", "wq", "trt", block_size=16), node("Transpose", "wq", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")], {"x": x}, {"w": wz},
         want=x @ deq(q, f8_mul(s, g), 1, 16).T)
    case("p3_fp4qdq_zeros", [node("TRT_FP4QDQ", "w", "wq", "trt", block_size=16), node("MatMul", "x wq", "y")], {"x": normal(2, 3)}, {"w": np.zeros((3, 18), F)}, want=np.zeros((2, 18), F))
    scale = F(0.02)
    f8 = lambda a: np.clip(a, -448, 448).astype(E4M3)
    x = normal(4, 6) * F(3)
    x[0, 0] = 1e4
    case("p4_fp8", [node("TRT_FP8QuantizeLinear", "x s", "q", "trt"), node("TRT_FP8DequantizeLinear", "q s", "y", "trt")], {"x": x}, {"s": scale}, want=f8(x / scale).astype(F) * scale)
    w8 = f8(normal(5, 6) / scale)
    case("p4_fp8_bytes", [node("TRT_FP8DequantizeLinear", "w s", "wq", "trt"), node("MatMul", "x wq", "y")], {"x": (x := normal(4, 5))}, {"w": w8.view(np.uint8), "s": scale},
         want=x @ (w8.astype(F) * scale))
    q4, s4 = rng.integers(-8, 8, (32, 6)).astype(I4), np.abs(normal(2, 6))
    for domain, op in (("trt", "DequantizeLinear"), ("trt", "TRT_INT4DequantizeLinear")):
        case(f"p4_int4_{op}", [node(op, "q s", "w", domain, axis=0, block_size=16), node("MatMul", "x w", "y")], {"x": (x := normal(4, 32))}, {"q": q4, "s": s4},
             want=x @ deq(q4.astype(np.int32), s4, 0, 16))
    w = normal(32, 6)
    s4 = amax(w, 0, 16) / F(7)
    case("p4_int4_floats", [node("DequantizeLinear", "w s", "wq", "trt", axis=0, block_size=16), node("MatMul", "x wq", "y")], {"x": (x := normal(4, 32))}, {"w": w, "s": s4},
         want=x @ (np.clip(np.rint(w / spread(s4, 0, 16, 32)), -8, 7).astype(F) * spread(s4, 0, 16, 32)))
    w = normal(5, 40)
    s4 = amax(w, 1, 16) / F(7)
    case("p4_int4_q", [node("TRT_INT4QuantizeLinear", "x s", "q", "trt", axis=1, block_size=16), node("TRT_INT4DequantizeLinear", "q s", "y", "trt", axis=1, block_size=16)],
         {"x": w}, {"s": s4}, want=np.clip(np.rint(w / spread(s4, 1, 16, 40)), -8, 7).astype(F) * spread(s4, 1, 16, 40))
    for name, width in (("", 64), ("_remainder", 40)):
        x = normal(3, width)
        e = np.exp2(np.ceil(np.log2(amax(x, 1, 32) / F(448)))).astype(F)
        xq = deq((x / spread(e, 1, 32, width)).astype(E4M3), e, 1, 32)
        case(f"p4_mxfp8_dynamic{name}", [node("TRT_MXFP8DynamicQuantize", "x", "q s", "trt", axis=-1, block_size=32, output_dtype=17),
             node("TRT_MXFP8DequantizeLinear", "q s", "y", "trt", axis=-1, block_size=32, output_dtype=1)], {"x": x}, {}, want=xq)
        w = normal(5, width)
        e = np.exp2(np.ceil(np.log2(amax(w, 1, 32) / F(448)))).astype(F)
        q = (w / spread(e, 1, 32, width)).astype(E4M3)
        dq = [node("TRT_MXFP8DequantizeLinear", "w s", "wq", "trt", axis=-1, block_size=32, output_dtype=1), node("Transpose", "wq", "wt", perm=[1, 0]), node("MatMul", "x wt", "y")]
        case(f"p4_mxfp8_weight{name}", dq, {"x": x}, {"w": q, "s": e.astype(E8M0).view(np.uint8)}, want=x @ deq(q, e, 1, 32).T)
        case(f"p4_mxfp8_floats{name}", dq, {"x": x}, {"w": w, "s": F(1)}, want=x @ deq(q, e, 1, 32).T)


def p6():
    for name, shape, axis, domain in (("", (3, 64), -1, "onnx.brevitas"), ("_remainder", (2, 3, 45), -1, ""), ("_axis1", (2, 40, 3), 1, "onnx.brevitas")):
        x = normal(*shape)
        x[0] *= 0
        a = amax(x, axis, 32)
        s = np.where(a == 0, F(2) ** -126, np.exp2(np.floor(np.log2(np.where(a == 0, 1, a)))) / F(4)).astype(F)
        qdq = [node("DynamicScale", "x", "s", domain, group_dim=axis, group_size=32, output_dtype=23, scale_selection_method="floor"),
               node("QuantizeLinear", "x s", "q", axis=axis, block_size=32, output_dtype=23), node("DequantizeLinear", "q s", "y", axis=axis, block_size=32)]
        case("p6_dynamic_scale" + name, qdq, {"x": x}, {}, want=deq((x / spread(s, axis, 32, shape[axis])).astype(E2M1), s, axis, 32))


MS = "com.microsoft"


def p8_products():
    for name, bits, n, k, block, zero, groups, bias in (
            ("", 4, 32, 64, 32, "", False, False), ("_zp", 4, 6, 80, 16, "packed", False, True), ("_odd_blocks", 4, 5, 48, 16, "packed", False, False),
            ("_remainder", 4, 7, 41, 16, "packed", False, False), ("_float_zp", 4, 6, 64, 32, "float", False, True), ("_g_idx", 4, 6, 64, 16, "packed", True, False),
            ("_8", 8, 6, 70, 32, "packed", False, True), ("_8_default", 8, 6, 64, 32, "", False, False), ("_2", 2, 6, 64, 32, "packed", False, False), ("_2_default", 2, 5, 40, 16, "", False, False)):
        blocks = -(-k // block)
        codes = rng.integers(0, 2**bits, (n, blocks * block)).astype(np.uint8)
        s, x = np.abs(normal(n, blocks)) + F(0.1), normal(3, k)
        inits = {"b": pack(codes, bits).reshape(n, blocks, block * bits // 8), "s": s}
        z = np.full((n, blocks), 2 ** (bits - 1), F)
        if zero == "packed":
            z = rng.integers(0, 2**bits, (n, blocks)).astype(F)
            padded = np.concatenate([z, np.zeros((n, -blocks % (8 // bits)))], 1)
            inits["z"] = pack(padded, bits).reshape(n, -1)
        elif zero == "float":
            z = normal(n, blocks) * F(3) + F(7)
            inits["z"] = z
        names = ["x", "b", "s", "z" if zero else "", "g" if groups else "", "bias" if bias else ""]
        at = np.arange(k) // block
        if groups:
            at = rng.permutation(at).astype(np.int32)
            inits["g"] = at
        w = (codes[:, :k].astype(F) - z[:, at]) * s[:, at]
        y = x @ w.T
        if bias:
            inits["bias"] = normal(n)
            y = y + inits["bias"]
        while not names[-1]:
            names.pop()
        nodes = [H.make_node("MatMulNBits", names, ["y"], domain=MS, N=n, K=k, block_size=block, bits=bits)]
        case("p8_nbits" + name, nodes, {"x": x}, inits, want=y, opset=21)
        if not groups and bits != 2 and zero != "float":
            case("p8_nbits_runtime" + name, nodes, {"x": x}, inits, want="runtime", opset=21, rtol=1e-4)
    x = normal(2, 3, 64, dtype=np.float16)
    codes, s = rng.integers(0, 16, (8, 64)), np.abs(normal(8, 2)).astype(np.float16)
    case("p8_nbits_f16", [node("MatMulNBits", "x b s", "y", MS, N=8, K=64, block_size=32, bits=4)], {"x": x}, {"b": pack(codes).reshape(8, 2, 16), "s": s.reshape(-1)},
         want=(x.astype(F) @ deq(codes, s, 1, 32, 8).T).astype(np.float16), opset=21, rtol=2e-2)
    for kind, rtol in ((np.float16, 1e-2), (BF16, 4e-2)):
        for tag, n, k in (("", 32, 64), ("_remainder", 5, 42)):
            w = normal(n, k)
            q, s, g = nvfp4(w)
            x, b = normal(3, k, dtype=kind), normal(n, dtype=kind)
            y = x.astype(F) @ deq(q, f8_mul(s, g), 1, 16).astype(kind).astype(F).T + b.astype(F)
            case(f"p8_fp4_weight_{np.dtype(kind)}{tag}", [H.make_node("MatMulBlockQuantizedFp4Weight", ["x", "w", "s", "g", "", "b"], ["y"], domain=MS)], {"x": x},
                 {"w": pack(bits_of(q)).reshape(n, k // 2), "s": s.view(np.uint8), "g": g, "b": b}, want=y.astype(kind), opset=21, rtol=rtol)
    x, q, s = normal(3, 200, dtype=np.float16), normal(6, 200).astype(E4M3), np.abs(normal(6, 2))
    w = deq(q, s, 1, 128).astype(np.float16).astype(F)
    case("p8_fp8_weight", [node("MatMulBlockQuantizedFp8Weight", "x w s", "y", MS)], {"x": x}, {"w": q, "s": s}, want=(x.astype(F) @ w.T).astype(np.float16), opset=21, rtol=1e-2)
    a = F(0.01)
    xq = ((x.astype(F) / a).astype(E4M3).astype(F) * a).astype(np.float16)
    case("p8_fp8_weight_w8a8", [H.make_node("MatMulBlockQuantizedFp8Weight", ["x", "w", "s", "a", "b"], ["y"], domain=MS)], {"x": x}, {"w": q, "s": s, "a": a, "b": (b := normal(6, dtype=np.float16))},
         want=(xq.astype(F) @ w.T + b.astype(F)).astype(np.float16), opset=21, rtol=1e-2)
    for quant in (0, 1):
        n, k = 6, 35
        codes, s = rng.integers(0, 16, n * k), np.abs(normal(-(-n * k // 16))) + F(0.1)
        high_first = np.concatenate([codes, np.zeros(-codes.size % 2, np.int64)]).reshape(-1, 2)[:, ::-1]
        case(f"p8_bnb4_{quant}", [node("MatMulBnb4", "x b s", "y", MS, N=n, K=k, block_size=16, quant_type=quant)], {"x": normal(3, k)}, {"b": pack(high_first), "s": s},
             want="runtime", opset=21, rtol=1e-4)


def p8_gather():
    i = np.array([[1, 0], [4, -1]])
    q, s, g = nvfp4(normal(5, 48))
    case("p8_gather_f4", [node("GatherBlockQuantized", "q i s", "y", MS, block_size=16, quantize_axis=1, gather_axis=0)], {"i": i}, {"q": q, "s": f8_mul(s, g)},
         want="runtime", opset=23, out_type=T.FLOAT)
    q, s = mxfp4(normal(5, 45))
    case("p8_gather_f4_32", [node("GatherBlockQuantized", "q i s", "y", MS, block_size=32, quantize_axis=1, gather_axis=0)], {"i": i}, {"q": q, "s": s.astype(F)},
         want="runtime", opset=23, out_type=T.FLOAT)
    for bits, zero in ((4, True), (4, False), (8, True), (8, False), (2, False)):
        codes, s = rng.integers(0, 2**bits, (5, 48)), np.abs(normal(5, 3)) + F(0.1)
        z = rng.integers(0, 2**bits, (5, 3))
        inits = {"q": pack(codes, bits).reshape(5, -1), "s": s}
        if zero:
            inits["z"] = pack(np.concatenate([z, np.zeros((5, -3 % (8 // bits)), np.int64)], 1), bits).reshape(5, -1)
        want = deq(codes, s, 1, 16, z if zero else 2 ** (bits - 1))[i]
        case(f"p8_gather_u{bits}{'_zp' if zero else ''}", [node("GatherBlockQuantized", "q i s" + (" z" if zero else ""), "y", MS, block_size=16, bits=bits, quantize_axis=1)],
             {"i": i}, inits, want=want, opset=21, out_type=T.FLOAT)
    q, s, z = rng.integers(-8, 8, (5, 48)).astype(I4), np.abs(normal(1, 48)), rng.integers(-8, 8, (1, 48)).astype(I4)
    case("p8_gather_i4", [node("GatherBlockQuantized", "q i s z", "y", MS, block_size=16, quantize_axis=0, gather_axis=1)], {"i": i}, {"q": q, "s": s, "z": z},
         want="runtime", opset=21, out_type=T.FLOAT)


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def moe(x, router, fc1, fc2, k, act, b1=0, b2=0, fc3=None, normalize=True, weights=None):
    """fc: [experts, out, in] in floats; act of [tokens, rows]."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        top = np.argsort(-router[t], kind="stable")[:k]
        share = weights[t][top] if weights is not None else softmax(router[t])[top]
        if normalize:
            share = share / share.sum()
        for e, p in zip(top, share):
            h = x[t] @ fc1[e].T + (b1[e] if np.ndim(b1) else 0)
            h = act(h) if fc3 is None else act(h, x[t] @ fc3[e].T)
            out[t] += p * (h @ fc2[e].T + (b2[e] if np.ndim(b2) else 0))
    return out


def p8_moe():
    e, hidden, inner, tokens = 4, 32, 48, 5
    x, router = normal(tokens, hidden), normal(tokens, e)
    silu = lambda v: v / (1 + np.exp(-v))

    def ints(rows, width, bits, block, zero):
        c = rng.integers(0, 2**bits, (e, rows, width))
        nb = width // block if block else 1
        s = (np.abs(normal(e, rows, nb)) + F(0.1)) * F(0.05)
        z = rng.integers(0, 2**bits, (e, rows, nb)) if zero else np.full((e, rows, nb), 2 ** (bits - 1))
        w = deq(c, s, 2, block or width, z)
        if block:
            zp = pack(np.concatenate([z, np.zeros((e, rows, -nb % (8 // bits)), np.int64)], 2), bits).reshape(e, rows, -1)
        else:
            zp, s = pack(np.concatenate([z[..., 0], np.zeros((e, -rows % (8 // bits)), np.int64)], 1), bits).reshape(e, -1), s[..., 0]
        return pack(c, bits).reshape(e, rows, -1), s, zp, w

    for name, bits, block, zero, act, biased in (("", 4, 16, False, "relu", False), ("_zp", 4, 16, True, "silu", True), ("_rows", 4, 0, True, "gelu", True), ("_8", 8, 16, False, "identity", False),
                                                 ("_8_rows", 8, 0, False, "relu", True), ("_2", 2, 16, False, "silu", False)):
        q1, s1, z1, w1 = ints(inner, hidden, bits, block, zero)
        q2, s2, z2, w2 = ints(hidden, inner, bits, block, zero)
        b1, b2 = (normal(e, inner), normal(e, hidden)) if biased else (0, 0)
        fn = {"relu": lambda v: np.maximum(v, 0), "silu": silu, "identity": lambda v: v, "gelu": lambda v: 0.5 * v * (1 + np.tanh(0.7978845608 * (v + 0.044715 * v**3)))}[act]
        inits = {"q1": q1, "s1": s1, "q2": q2, "s2": s2}
        names = ["x", "r", "q1", "s1", "b1" if biased else "", "q2", "s2", "b2" if biased else "", "", "", "", "z1" if zero else "", "z2" if zero else ""]
        if biased:
            inits |= {"b1": b1, "b2": b2}
        if zero:
            inits |= {"z1": z1, "z2": z2}
        while not names[-1]:
            names.pop()
        attrs = dict(k=2, activation_type=act, expert_weight_bits=bits, normalize_routing_weights=1, weights_prepacked=0)
        if block:
            attrs["block_size"] = block
        nodes = [H.make_node("QMoE", names, ["y"], domain=MS, **attrs)]
        case("p8_moe" + name, nodes, {"x": x, "r": router}, inits, want=moe(x, router, w1, w2, 2, fn, b1, b2).astype(F), opset=21, rtol=1e-4)
        if bits == 4:
            case("p8_moe_runtime" + name, nodes, {"x": x, "r": router}, inits, want="runtime", opset=21, rtol=1e-3)

    q1, s1, _, w1 = ints(2 * inner, hidden, 4, 16, False)
    q2, s2, _, w2 = ints(hidden, inner, 4, 16, False)
    q3, s3, _, w3 = ints(inner, hidden, 4, 16, False)

    def swiglu(g, l, limit=1.5, alpha=1.25, beta=0.5):
        g, l = np.minimum(g, limit), np.clip(l, -limit, limit)
        return g / (1 + np.exp(-alpha * g)) * (l + beta)

    inits = {"q1": q1, "s1": s1, "q2": q2, "s2": s2}
    attrs = dict(k=2, activation_type="swiglu", activation_alpha=1.25, activation_beta=0.5, swiglu_limit=1.5, block_size=16, weights_prepacked=0)
    for fusion, split in ((1, lambda h: swiglu(h[0::2], h[1::2])), (2, lambda h: swiglu(h[:inner], h[inner:]))):
        nodes = [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"], ["y"], domain=MS, swiglu_fusion=fusion, normalize_routing_weights=1, **attrs)]
        case(f"p8_moe_swiglu_{fusion}", nodes, {"x": x, "r": router}, inits, want=moe(x, router, w1, w2, 2, split).astype(F), opset=21, rtol=1e-4)
        if fusion == 1:
            case(f"p8_moe_runtime_swiglu_{fusion}", nodes, {"x": x, "r": router}, inits, want="runtime", opset=21, rtol=1e-3)
    q1, s1, _, w1 = ints(inner, hidden, 4, 16, False)
    case("p8_moe_swiglu_0", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2", "", "q3", "s3"], ["y"], domain=MS, swiglu_fusion=0, **attrs)], {"x": x.reshape(1, tokens, hidden), "r": router},
         {"q1": q1, "s1": s1, "q2": q2, "s2": s2, "q3": q3, "s3": s3}, want=moe(x, router, w1, w2, 2, swiglu, fc3=w3, normalize=False).astype(F).reshape(1, tokens, hidden), opset=21, rtol=1e-4)
    given = softmax(normal(tokens, e))
    case("p8_moe_router_weights", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"] + [""] * 7 + ["given"], ["y"], domain=MS, k=3, block_size=16, weights_prepacked=0)], {"x": x, "r": router, "given": given},
         {"q1": q1, "s1": s1, "q2": q2, "s2": s2}, want=moe(x, router, w1, w2, 3, lambda v: np.maximum(v, 0), normalize=False, weights=given).astype(F), opset=21, rtol=1e-4)

    for kind in ("nvfp4", "fp4"):
        inner2 = 64
        w1, w2, g1, g2 = normal(e, inner2, hidden), normal(e, hidden, inner2), np.abs(normal(e)) + F(0.5), np.abs(normal(e)) + F(0.5)
        if kind == "fp4":
            (q1, s1), (q2, s2) = mxfp4(w1, 2), mxfp4(w2, 2)
        else:
            (q1, s1, _), (q2, s2, _) = nvfp4(w1, 2), nvfp4(w2, 2)
        block = 32 if kind == "fp4" else 16
        d1, d2 = deq(q1, s1.astype(F) * g1[:, None, None], 2, block), deq(q2, s2.astype(F) * g2[:, None, None], 2, block)
        across = lambda q: pack(bits_of(np.ascontiguousarray(q.swapaxes(1, 2)))).reshape(e, q.shape[2], q.shape[1] // 2)
        along = lambda q: pack(bits_of(q)).reshape(e, q.shape[1], q.shape[2] // 2)
        for layout, fn in (("", across), ("_rows", along)):
            case(f"p8_moe_{kind}{layout}", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"] + [""] * 8 + ["g1", "g2"], ["y"], domain=MS, k=2, quant_type=kind, activation_type="silu")],
                 {"x": x, "r": router}, {"q1": fn(q1), "s1": s1, "q2": fn(q2), "s2": s2, "g1": g1, "g2": g2}, want=moe(x, router, d1, d2, 2, silu, normalize=False).astype(F), opset=24, rtol=1e-4)
        if kind == "nvfp4":
            case("p8_moe_nvfp4_prepacked", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"] + [""] * 8 + ["g1", "g2"], ["y"], domain=MS, k=2, quant_type=kind, activation_type="silu", weights_prepacked=1)],
                 {"x": x, "r": router}, {"q1": along(q1).reshape(e, hidden, inner2 // 2), "s1": s1, "q2": along(q2).reshape(e, inner2, hidden // 2), "s2": s2, "g1": g1, "g2": g2},
                 want=moe(x, router, d1, d2, 2, silu, normalize=False).astype(F), opset=24, rtol=1e-4)
    q1, q2 = normal(e, inner, hidden).astype(E4M3), normal(e, hidden, inner).astype(E4M3)
    s1, s2 = np.abs(normal(e, 3, 2)), np.abs(normal(e, 2, 3))
    square = lambda q, s: q.astype(F) * spread(spread(s, 1, 20, q.shape[1]), 2, 20, q.shape[2])
    case("p8_moe_fp8", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"], ["y"], domain=MS, k=1, quant_type="fp8", block_size=20, activation_type="relu2")], {"x": x, "r": router},
         {"q1": q1, "s1": s1, "q2": q2, "s2": s2}, want=moe(x, router, square(q1, s1), square(q2, s2), 1, lambda v: np.maximum(v, 0) ** 2, normalize=False).astype(F), opset=24, rtol=1e-4)


def symbolic():
    """Sizes that are known only when the model runs."""
    w = normal(20, 32)
    q, s, g = nvfp4(w)
    x, gx = normal(6, 32), F(0.002)
    sx = (amax(x, 1, 16) / F(6) / gx).astype(E4M3)
    xq = deq((x / spread(sx.astype(F) * gx, 1, 16, 32)).astype(E2M1), f8_mul(sx, gx), 1, 16)
    nodes = [node("TRT_FP4DynamicQuantize", "x gx", "qx sx8", "trt", axis=-1, block_size=16), node("DequantizeLinear", "sx8 gx", "sx"), node("DequantizeLinear", "qx sx", "xq", axis=-1, block_size=16),
             node("DequantizeLinear", "s8 g", "s"), node("DequantizeLinear", "q s", "w", axis=-1, block_size=16), node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "xq wt", "y")]
    case("symbolic_nvfp4", nodes, {"x": x}, {"gx": gx, "q": q, "s8": s, "g": g}, want=xq @ deq(q, f8_mul(s, g), 1, 16).T, symbols={"x": ["N", 32]})
    case("symbolic_nbits", [node("MatMulNBits", "x b s", "y", MS, N=20, K=32, block_size=32)], {"x": x.reshape(2, 3, 32)}, {"b": pack(bits_of(q)).reshape(20, 1, 16), "s": amax(w, 1, 32)},
         want=(x @ deq(bits_of(q), amax(w, 1, 32), 1, 32, 8).T).reshape(2, 3, 20), opset=21, symbols={"x": ["B", "S", 32]})
    c = rng.integers(0, 16, (2, 4, 32, 32))
    weights = [deq(v, np.full((4, 32, 1), 0.1, F), 2, 32, 8) for v in c]
    router = normal(6, 4)
    case("symbolic_moe", [H.make_node("QMoE", ["x", "r", "q1", "s1", "", "q2", "s2"], ["y"], domain=MS, k=2, normalize_routing_weights=1, weights_prepacked=0)], {"x": x, "r": router},
         {"q1": pack(c[0]).reshape(4, 32, 16), "s1": np.full((4, 32), 0.1, F), "q2": pack(c[1]).reshape(4, 32, 16), "s2": np.full((4, 32), 0.1, F)},
         want=moe(x, router, *weights, 2, lambda v: np.maximum(v, 0)).astype(F), opset=21, symbols={"x": ["T", 32], "r": ["T", 4]}, rtol=1e-4)


def refused(nybble):
    """Models that say what cannot be: each gets one message that names the node and what is wrong."""
    x, b, s = normal(2, 64), np.zeros((8, 2, 16), np.uint8), normal(8, 2)
    nbits = lambda **a: H.make_node("MatMulNBits", ["x", "b", "s"], ["y"], name="the_node", domain=MS, **{**dict(N=8, K=64, block_size=32), **a})
    moe_node = lambda **a: H.make_node("QMoE", ["x", "r", "b", "s", "", "b", "s"], ["y"], name="the_node", domain=MS, **a)
    weight = {"b": b, "s": s}
    cases = [
        (nbits(weight_prepacked=1), weight, "weight_prepacked is 1"), (nbits(bits=3), weight, '"bits" is 3'), (nbits(K=0), weight, '"K" is 0'), (nbits(N=9), weight, "input 1 (weights)"),
        (nbits(block_size=0), weight, '"block_size" is 0'), (nbits(), {"b": b, "s": normal(8, 3)}, "input 2 (scales)"), (nbits(N=2**40, K=2**40), weight, "input 1 (weights)"),
        (nbits(), {"b": b, "s": s, "x2": x}, None), (moe_node(use_sparse_mixer=1), weight, "use_sparse_mixer"), (moe_node(weights_prepacked=1), weight, "weights_prepacked is 1"),
        (moe_node(quant_type="wfp4afp8"), weight, '"quant_type"'), (moe_node(k=5), {"b": np.zeros((4, 64, 32), np.uint8), "s": normal(4, 64)}, "k is 5"),
        (moe_node(k=1, activation_type="swiglu"), {"b": np.zeros((4, 64, 32), np.uint8), "s": normal(4, 64)}, "swiglu_fusion"),
        (H.make_node("MatMulBnb4", ["x", "b", "s"], ["y"], name="the_node", domain=MS, N=8, K=64, block_size=32, quant_type=2), weight, '"quant_type" is 2'),
        (H.make_node("GatherBlockQuantized", ["b", "i", "s"], ["y"], name="the_node", domain=MS, block_size=0), {"b": b, "s": normal(8, 2, 1), "i": np.array([0])}, "blocks of 0"),
        (H.make_node("GatherBlockQuantized", ["b", "i", "s"], ["y"], name="the_node", domain=MS, block_size=16), {"b": b, "s": normal(8, 2, 1), "i": np.array([8])}, "index 8"),
        (H.make_node("TRT_FP4DynamicQuantize", ["x", "g"], ["q", "s"], name="the_node", domain="trt", scale_type=1), {"g": F(1)}, "block scales in f32"),
        (H.make_node("TRT_FP4QDQ", ["x"], ["y"], name="the_node", domain="trt"), {}, "not constant"),
        (H.make_node("DynamicScale", ["x"], ["y"], name="the_node", domain="onnx.brevitas", scale_selection_method="round"), {}, '"scale_selection_method" is "round"'),
        (H.make_node("DequantizeLinear", ["q", "s"], ["y"], name="the_node", axis=1, block_size=16), {"q": np.zeros((4, 40), I4), "s": normal(4, 2)}, "dimension 1 of the scale is 2"),
        (H.make_node("MatMulBlockQuantizedFp4Weight", ["x", "b", "s", "g"], ["y"], name="the_node", domain=MS), {"b": np.zeros((8, 32), np.uint8), "s": np.zeros((8, 3), np.uint8), "g": F(1)}, "input 2 (scales)"),
    ]
    passed = failed = 0
    for n, inits, text in cases:
        graph = H.make_graph([n], "g", [H.make_tensor_value_info("x", T.FLOAT, [2, 64]), H.make_tensor_value_info("r", T.FLOAT, [2, 4])], [H.make_tensor_value_info(n.output[0], T.FLOAT, None)], [init(k, v) for k, v in inits.items()])
        path = OUT / "refused.onnx"
        path.write_bytes(H.make_model(graph, opset_imports=[H.make_opsetid("", 24), H.make_opsetid(n.domain, 1)] if n.domain else [H.make_opsetid("", 24)], ir_version=12).SerializeToString())
        r = subprocess.run([nybble, "print", str(path), "--stage", "import"], capture_output=True, text=True)
        path.unlink()
        ok = (r.returncode == 0) if text is None else r.returncode == 1 and text in r.stderr and "the_node" in r.stderr
        passed, failed = passed + ok, failed + (not ok)
        if not ok:
            print(f"FAIL {n.op_type}: wanted {text}, exit {r.returncode}: {r.stderr[:300]}")
    print(f"{passed} of {passed + failed} bad nodes are refused by name")
    return passed, failed


def run(nybble, *options):
    log = subprocess.run([nybble, "test", str(OUT), *options], capture_output=True, text=True).stdout
    fails = [l for l in log.splitlines() if l.startswith("FAIL")]
    for l in fails[:40]:
        print(l[:400])
    m = re.search(r"(\d+) passed, (\d+) failed, (\d+) skipped", log)
    passed, failed = (int(m[1]), int(m[2])) if m else (0, 1)
    print(f"{' '.join(options) or 'compiled'}: {passed} models give what they must, {failed} do not")
    return passed, failed


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    with np.errstate(all="ignore"):
        for part in (p1, p5, standard, p7, p2_p4, p6, p8_products, p8_gather, p8_moe, symbolic):
            part()
    count = {w: sum(v == w for v in oracles.values()) for w in ("reference", "runtime", "formula")}
    print(f"{len(oracles)} models: {count['reference']} judged by ONNX's reference evaluator, {count['runtime']} by ONNX Runtime, {count['formula']} by their formulas")
    devices = [sys.argv[i + 1] for i, a in enumerate(sys.argv) if a == "--device"]
    results = [run(sys.argv[1]), run(sys.argv[1], "--evaluate")] + [run(sys.argv[1], "--device", d) for d in devices] + [refused(sys.argv[1])]
    passed, failed = (sum(r[i] for r in results) for i in (0, 1))
    print(f"onnx_fp4: {passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
