#!/usr/bin/env python3
"""hostile.py OUT: writes models that are legal or nearly so and that strain a compiler: sizes at the edges, deep nests, long chains, odd names.

scripts/malformed runs them. Those in OUT/valid must run; the others may be refused, in time and with a message."""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper as H, numpy_helper as N

OUT = pathlib.Path(sys.argv[1])
F, I, B = T.FLOAT, T.INT64, T.BOOL
node, info = H.make_node, H.make_tensor_value_info


def init(name, values, dtype=np.float32):
    return N.from_array(np.asarray(values, dtype), name)


def ints(name, *values):
    return init(name, values, np.int64)


def emit(name, nodes, ins, outs, inits=(), valid=False, edit=None):
    """ins: (name, type, shape); outs: names of floats of unknown shape, or the same triples."""
    outs = [o if isinstance(o, tuple) else (o, F, None) for o in outs]
    graph = H.make_graph(list(nodes), "g", [info(*i) for i in ins], [info(*o) for o in outs], list(inits))
    model = H.make_model(graph, opset_imports=[H.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString(deterministic=True)
    path = OUT / ("valid" if valid else "any") / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(edit(data) if edit else data)


def zeros():
    """Empty tensors through every kind of kernel."""
    x = ("x", F, [0, 4])
    w, b = init("w", np.ones((4, 3))), init("b", np.ones(3))
    cases = {
        "matmul": ([node("MatMul", ["x", "w"], ["y"])], [w]),
        "gemm": ([node("Gemm", ["x", "w", "b"], ["y"])], [w, b]),
        "softmax": ([node("Softmax", ["x"], ["y"], axis=1)], []),
        "softmax0": ([node("Softmax", ["x"], ["y"], axis=0)], []),
        "sum0": ([node("ReduceSum", ["x", "a"], ["y"])], [ints("a", 0)]),
        "mean1": ([node("ReduceMean", ["x"], ["y"], axes=[1])], []),
        "transpose": ([node("Transpose", ["x"], ["y"], perm=[1, 0])], []),
        "concat": ([node("Concat", ["x", "x"], ["y"], axis=1)], []),
        "gather": ([node("Gather", ["x", "i"], ["y"], axis=1)], [ints("i", 0, 3)]),
        "pad": ([node("Pad", ["x", "p"], ["y"])], [ints("p", 1, 0, 1, 0)]),
        "cumsum": ([node("CumSum", ["x", "a"], ["y"])], [init("a", 0, np.int64)]),
        "norm": ([node("LayerNormalization", ["x", "s"], ["y"])], [init("s", np.ones(4))]),
        "relu": ([node("Relu", ["x"], ["a"]), node("Mul", ["a", "x"], ["y"])], []),
        "tile": ([node("Tile", ["x", "r"], ["y"])], [ints("r", 3, 0)]),
    }
    for name, (nodes, inits) in cases.items():
        emit(f"zero_{name}", nodes, [x], ["y"], inits, valid=True)
    emit("zero_inner", [node("MatMul", ["x", "w"], ["y"])], [("x", F, [3, 0])], ["y"], [init("w", np.ones((0, 5)))], valid=True)
    emit("zero_conv", [node("Conv", ["x", "w"], ["y"])], [("x", F, [0, 3, 8, 8])], ["y"], [init("w", np.ones((4, 3, 3, 3)))], valid=True)
    emit("zero_max", [node("ReduceMax", ["x"], ["y"], axes=[0])], [x], ["y"])
    emit("zero_argmax", [node("ArgMax", ["x"], ["y"], axis=0)], [x], [("y", I, None)])
    emit("zero_pool", [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])], [("x", F, [1, 2, 0, 0])], ["y"])


def sizes():
    big = 2**40
    x8 = ("x", F, [2, 1, 3, 1, 2, 1, 2, 1])
    emit("rank8", [node("Transpose", ["x"], ["a"], perm=[7, 6, 5, 4, 3, 2, 1, 0]), node("Add", ["a", "a"], ["b"]), node("ReduceSum", ["b"], ["y"])], [x8], ["y"], valid=True)
    emit("rank9", [node("Unsqueeze", ["x", "a"], ["y"])], [x8], ["y"], [ints("a", 0)])
    names = [f"n{i}" for i in range(8)]
    lstm = [init("w", np.ones((1, 8, 3))), init("r", np.ones((1, 8, 2)))]
    for rank in range(4):
        spots = {"B": 3, "lens": 4, "h": 5, "c": 6, "P": 7}
        for name, spot in spots.items():
            if rank == {"B": 2, "lens": 1, "h": 3, "c": 3, "P": 2}[name]:
                continue
            odd = init("odd", np.ones((1,) * rank), np.int32 if name == "lens" else np.float32)
            emit(f"lstm_{name}_rank{rank}", [node("LSTM", ["x", "w", "r"] + [""] * (spot - 3) + ["odd"], ["y"], hidden_size=2)], [("x", F, [2, 1, 3])], ["y"], lstm + [odd])
    emit("reshape_overflow", [node("Reshape", ["x", "s"], ["y"])], [("x", F, [2**40, 2**40])], ["y"], [ints("s", -1)])
    emit("eight_symbols", [node("Mul", ["x", "x"], ["y"])], [("x", F, names)], ["y"], valid=True)
    emit("outer_symbols", [node("MatMul", ["x", "z"], ["y"])], [("x", F, ["a", 1]), ("z", F, [1, "b"])], ["y"], valid=True)
    emit("tile_symbol", [node("Tile", ["x", "r"], ["a"]), node("Tile", ["a", "r"], ["b"]), node("Tile", ["b", "r"], ["y"])], [("x", F, ["n"])], ["y"], [ints("r", big)])
    emit("expand_twice", [node("Expand", ["x", "s"], ["a"]), node("Reshape", ["a", "f"], ["b"]), node("Expand", ["b", "t"], ["y"])], [("x", F, [1])], ["y"], [ints("s", big), ints("f", -1, 1), ints("t", big, big)])
    emit("big_input", [node("Relu", ["x"], ["y"])], [("x", F, [1 << 20, 1 << 10])], ["y"])
    emit("big_matmul", [node("MatMul", ["x", "z"], ["y"])], [("x", F, [1 << 20, 1]), ("z", F, [1, 1 << 20])], ["y"])
    emit("big_middle", [node("MatMul", ["x", "z"], ["a"]), node("ReduceSum", ["a"], ["y"])], [("x", F, [1 << 20, 1]), ("z", F, [1, 1 << 20])], ["y"])
    for name, spec in {"huge": ((-(2**63), 2**63 - 1), (2**63 - 1, -(2**63))), "back": ((2**63 - 1, -1), (-(2**63), -1)), "step": ((0, 2**63 - 1), (0, 2**63 - 1))}.items():
        (start, step), (end, _) = spec
        emit(f"slice_{name}", [node("Slice", ["x", "s", "e", "a", "t"], ["y"])], [("x", F, [5, 6])], ["y"], [ints("s", start), ints("e", end), ints("a", 1), ints("t", step if step else 1)])
    emit("slice_step0", [node("Slice", ["x", "s", "e", "a", "t"], ["y"])], [("x", F, [5])], ["y"], [ints("s", 0), ints("e", 5), ints("a", 0), ints("t", 0)])
    emit("pad_huge", [node("Pad", ["x", "p"], ["y"])], [("x", F, [2])], ["y"], [ints("p", 2**62, 2**62)])
    emit("pad_negative", [node("Pad", ["x", "p"], ["y"])], [("x", F, [2])], ["y"], [ints("p", -(2**63), 2**63 - 1)])
    emit("conv_huge_pads", [node("Conv", ["x", "w"], ["y"], pads=[2**31, 2**31, 2**31, 2**31])], [("x", F, [1, 1, 4, 4])], ["y"], [init("w", np.ones((1, 1, 3, 3)))])
    emit("conv_huge_dilation", [node("Conv", ["x", "w"], ["y"], dilations=[2**62, 2**62], pads=[1, 1, 1, 1])], [("x", F, [1, 1, 4, 4])], ["y"], [init("w", np.ones((1, 1, 3, 3)))])
    emit("iota_huge", [node("Range", ["s", "e", "d"], ["a"]), node("ReduceSum", ["a"], ["y"])], [], [("y", I, None)], [init("s", 0, np.int64), init("e", 2**50, np.int64), init("d", 1, np.int64)])
    emit("cumsum_huge", [node("ConstantOfShape", ["s"], ["a"]), node("CumSum", ["a", "i"], ["b"]), node("ReduceMax", ["b"], ["y"])], [], ["y"], [ints("s", 2**33), init("i", 0, np.int64)])
    weight = init("w", np.ones((512, 512)))
    chain = [node("MatMul", ["w" if not i else f"t{i}", "w"], [f"t{i+1}"]) for i in range(40)]
    emit("constant_products", chain + [node("Add", ["x", "t40"], ["y"])], [("x", F, [512, 512])], ["y"], [weight])
    emit("constant_outer", [node("Mul", ["a", "b"], ["c"]), node("ReduceSum", ["c"], ["d"]), node("Add", ["x", "d"], ["y"])], [("x", F, [1])], ["y"], [init("a", np.ones((1 << 15, 1))), init("b", np.ones((1, 1 << 15)))])


    large = init("w", np.ones(40000))
    emit("constant_doubling", [node("Add", [f"t{i}" if i else "w"] * 2, [f"t{i+1}"]) for i in range(60)] + [node("Add", ["x", "t60"], ["y"])], [("x", F, [40000])], ["y"], [large], valid=True)


def indices():
    ix = ("i", I, [3])
    x = ("x", F, [4, 5])
    for name, value in (("big", 2**62), ("low", -(2**63)), ("five", 1000)):
        shift = init("k", value, np.int64)
        add = node("Add", ["i", "k"], ["j"])
        emit(f"gather_{name}", [add, node("Gather", ["x", "j"], ["y"])], [x, ix], ["y"], [shift], valid=True)
        emit(f"scatter_{name}", [add, node("Unsqueeze", ["j", "a"], ["u"]), node("ScatterND", ["x", "u", "v"], ["y"])], [x, ix, ("v", F, [3, 5])], ["y"], [shift, ints("a", 1)], valid=True)
        emit(f"gathernd_{name}", [add, node("Unsqueeze", ["j", "a"], ["u"]), node("GatherND", ["x", "u"], ["y"])], [x, ix], ["y"], [shift, ints("a", 1)], valid=True)


def nest(depth, loop):
    graph = H.make_graph([node("Relu", ["x"], ["t0"])], "g0", [], [info("t0", F, [2])])
    for i in range(1, depth + 1):
        if loop and i % 2:
            body = [info(f"k{i}", I, []), info(f"c{i}", B, []), info(f"v{i}", F, [2])]
            graph.node.append(node("Identity", [f"c{i}"], [f"d{i}"]))
            graph.node.append(node("Add", [f"v{i}", f"t{i-1}"], [f"u{i}"]))
            inner = H.make_graph(list(graph.node), f"l{i}", body, [info(f"d{i}", B, []), info(f"u{i}", F, [2])])
            graph = H.make_graph([node("Loop", ["m", "", "x"], [f"t{i}"], body=inner)], f"g{i}", [], [info(f"t{i}", F, [2])])
        else:
            other = H.make_graph([node("Neg", ["x"], [f"e{i}"])], f"n{i}", [], [info(f"e{i}", F, [2])])
            graph = H.make_graph([node("If", ["c"], [f"t{i}"], then_branch=graph, else_branch=other)], f"g{i}", [], [info(f"t{i}", F, [2])])
    return list(graph.node)


def control():
    ends = [("c", B, []), ("x", F, [2]), ("m", I, [])]
    for depth in (8, 24):
        emit(f"if_{depth}", nest(depth, False), ends[:2], [(f"t{depth}", F, [2])], valid=True)
        emit(f"loops_{depth}", nest(depth, True), ends[:2], [(f"t{depth}", F, [2])], [init("m", 3, np.int64)], valid=depth == 8)
    body = [info("k", I, []), info("ci", B, []), info("v", F, [2])]

    def loop(name, trip, cond_nodes, cond, valid=False):
        inner = H.make_graph(cond_nodes + [node("Add", ["v", "v"], ["u"])], "l", body, [info(cond, B, []), info("u", F, [2])])
        emit(name, [node("Loop", [trip, "", "x"], ["y"], body=inner)], ends[1:], ["y"], [init("many", 2**40, np.int64), init("none", 0, np.int64)], valid=valid)

    keep = [node("Identity", ["ci"], ["co"])]
    loop("loop_2e40", "many", keep, "co")
    loop("loop_0", "none", keep, "co", True)
    loop("loop_data", "m", keep, "co")
    ends_at = [node("Less", ["k", "lim"], ["co"])]
    inner = H.make_graph([node("Constant", [], ["lim"], value=init("", 9, np.int64))] + ends_at + [node("Add", ["v", "v"], ["u"])], "l", body, [info("co", B, []), info("u", F, [2])])
    emit("loop_ends", [node("Loop", ["", "", "x"], ["y"], body=inner)], ends[1:2], ["y"], valid=True)
    inner = H.make_graph([node("ReduceSum", ["v"], ["s"], keepdims=0), node("Equal", ["s", "s"], ["co"]), node("Identity", ["v"], ["u"])], "l", body, [info("co", B, []), info("u", F, [2])])
    emit("loop_never_ends", [node("Loop", ["", "", "x"], ["y"], body=inner)], ends[1:2], ["y"])


def long():
    x = ("x", F, [64])
    unary = ["Relu", "Tanh", "Sigmoid", "Neg", "Abs"]
    emit("chain_map", [node(unary[i % 5], ["x" if not i else f"t{i}"], [f"t{i+1}"]) for i in range(2000)], [x], ["t2000"], valid=True)
    emit("chain_add", [node("Add", ["x" if not i else f"t{i}", "x"], [f"t{i+1}"]) for i in range(2000)], [x], ["t2000"], valid=True)
    emit("doubling", [node("Add", [f"t{i}" if i else "x"] * 2, [f"t{i+1}"]) for i in range(300)], [x], ["t300"], valid=True)
    emit("ladder", [node("Mul" if i % 2 else "Add", [f"t{i-1}" if i > 1 else "x", f"t{i}" if i else "x"], [f"t{i+1}"]) for i in range(300)], [x], ["t300"], valid=True)
    emit("fan", [node("Exp", ["x"], [f"t{i}"]) for i in range(500)] + [node("Sum", [f"t{i}" for i in range(500)], ["y"])], [x], ["y"], valid=True)
    emit("many_outputs", [node("Relu", ["x"], [f"y{i}"]) for i in range(2000)], [x], [f"y{i}" for i in range(2000)], valid=True)
    emit("reshapes", [node("Reshape", ["x" if not i else f"t{i}", "s" if i % 2 else "r"], [f"t{i+1}"]) for i in range(1000)], [x], ["t1000"], [ints("s", 8, 8), ints("r", 64)], valid=True)
    emit("transposes", [node("Transpose", ["x" if not i else f"t{i}"], [f"t{i+1}"], perm=[1, 2, 0]) for i in range(1001)], [("x", F, [2, 3, 4])], ["t1001"], valid=True)
    emit("slices", [node("Slice", ["x" if not i else f"t{i}", "s", "e"], [f"t{i+1}"]) for i in range(300)], [("x", F, [1000])], ["t300"], [ints("s", 1), ints("e", 2**62)], valid=True)
    emit("concats", [node("Concat", ["x" if not i else f"t{i}", "x"], [f"t{i+1}"], axis=0) for i in range(200)], [("x", F, ["n"])], ["t200"], valid=True)
    emit("wide_concat", [node("Concat", ["x"] * 1000, ["y"], axis=0)], [x], ["y"], valid=True)
    emit("splits", [node("Split", ["x"], [f"y{i}" for i in range(64)], axis=0)], [x], [f"y{i}" for i in range(64)], valid=True)
    symbols = [(f"x{i}", F, [f"n{i}"]) for i in range(40)]
    emit("symbols_40", [node("Concat", [s[0] for s in symbols], ["a"], axis=0), node("Exp", ["a"], ["y"])], symbols, ["y"], valid=True)
    emit("shape_loop", [n for i in range(100) for n in (node("Shape", ["x" if not i else f"t{i}"], [f"s{i}"]), node("ConstantOfShape", [f"s{i}"], [f"z{i}"]), node("Concat", ["x" if not i else f"t{i}", f"z{i}"], [f"t{i+1}"], axis=0) if i < 8 else node("Add", [f"t{i}", f"z{i}"], [f"t{i+1}"]))], [("x", F, ["n"])], ["t100"], valid=True)
    emit("matmuls", [node("MatMul", ["x" if not i else f"t{i}", "w"], [f"t{i+1}"]) for i in range(300)], [("x", F, ["n", 8])], ["t300"], [init("w", np.ones((8, 8)))], valid=True)


    kept = [n for i in range(600) for n in (node("MatMul", [f"s{i-1}" if i else "x", "w"], [f"m{i}"]), node("Softmax", [f"m{i}"], [f"s{i}"], axis=0))]
    back = [n for i in range(599, 0, -1) for n in (node("MatMul", [f"r{i+1}" if i < 599 else "s599", "w"], [f"q{i}"]), node("Mul", [f"q{i}", f"s{i-1}"], [f"r{i}"]))]
    emit("all_alive", kept + back, [("x", F, ["n", 8])], ["r1"], [init("w", np.ones((8, 8)))], valid=True)


def names():
    x = ("x", F, [4])
    swap = lambda old, new: lambda data: data.replace(old, new)
    two = [node("Relu", ["x"], ["middle"], name="nodename"), node("Neg", ["middle"], ["output"], name="nodename")]
    emit("same_names", two, [x], ["output"], valid=True)
    emit("latin1", two, [x], ["output"], edit=swap(b"middle", b"m\xfcdd\xff\xfe"))
    emit("latin1_node", two, [x], ["output"], edit=swap(b"nodename", b"n\xff\xc0\xaf\xed\xa0\x80e"))
    emit("latin1_output", two, [x], ["output"], edit=swap(b"output", b"o\xf4\x90\x80\x80t"))
    emit("nul", two, [x], ["output"], edit=swap(b"output", b"out\0ut"))
    emit("quotes", two, [x], ["output"], edit=swap(b"output", b'o"\\\n%)'), valid=False)
    emit("path", two, [x], ["output"], edit=swap(b"output", b"../../"))
    emit("format", two, [x], ["output"], edit=swap(b"middle", b"%s%n%x"), valid=True)
    emit("symbol_text", [node("Relu", ["x"], ["y"])], [("x", F, ["a*b+c/d%e)", "?", "max(1,2)", " "])], ["y"], valid=True)
    emit("symbol_long", [node("Relu", ["x"], ["y"])], [("x", F, ["n" * 5000])], ["y"], valid=True)
    emit("name_long", [node("Relu", ["x"], ["y"], name="n" * 100000)], [x], ["y"])
    unused = T()
    unused.name, unused.data_type = "u", F
    unused.dims.extend([2**31, 2**31])
    emit("unused_giant", [node("Relu", ["x"], ["y"])], [x], ["y"], [unused], valid=True)
    emit("unused_many", [node("Relu", ["x"], ["y"])], [x], ["y"], [init(f"u{i}", np.ones(4)) for i in range(5000)], valid=True)


for part in (zeros, sizes, indices, control, long, names):
    part()
