#!/usr/bin/env python3
"""formats.py TOOL [COUNT]: the codes of every narrow format against ml_dtypes: what each of them means, and COUNT (default 300,000) random f32, with every
tie between neighbours and every special value among them, rounded to it. What nybble does where ml_dtypes has no word: NaN becomes -0 in f4e2m1 (as ONNX's
test suite has it), and saturation gives the largest value. Prints `formats: N passed, N failed`."""
import subprocess
import sys

import ml_dtypes
import numpy as np

TOOL, COUNT = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300_000
FLOATS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f8e4m3": ml_dtypes.float8_e4m3fn, "f8e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "f8e5m2": ml_dtypes.float8_e5m2,
          "f8e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "f8e8m0": ml_dtypes.float8_e8m0fnu, "f4e2m1": ml_dtypes.float4_e2m1fn}
INTS = {"i8": np.int8, "u8": np.uint8, "i4": ml_dtypes.int4, "u4": ml_dtypes.uint4, "i2": ml_dtypes.int2, "u2": ml_dtypes.uint2}
BITS = {"f16": 16, "bf16": 16, "f4e2m1": 4, "i4": 4, "u4": 4, "i2": 2, "u2": 2}
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL", what)


def tool(mode, fmt, data=b""):
    return subprocess.run([TOOL, mode, fmt], input=data, capture_output=True, check=True).stdout


def same(a, b):
    return np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(a[~np.isnan(a)], b[~np.isnan(b)]) and np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


def inputs(values):
    rng = np.random.default_rng(1)
    finite = np.unique(values[np.isfinite(values)])
    ties = (finite[1:] + finite[:-1]) / 2
    edges = np.concatenate([values, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)]).astype(np.float32)
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0, -0.0, 3e38, -3e38, 1e-45, -1e-45], np.float32)
    top = np.float32(finite.max())
    near = (rng.standard_normal(COUNT // 2).astype(np.float32) * min(top, np.float32(1e30)) / 2)
    bits = rng.integers(0, 2**32, COUNT - COUNT // 2, dtype=np.uint32).view(np.float32)
    return np.concatenate([edges, special, near, bits])


with np.errstate(all="ignore"):
    for fmt, dtype in (FLOATS | INTS).items():
        bits = BITS.get(fmt, 8)
        codes = np.arange(2**bits, dtype=np.uint16 if bits == 16 else np.uint8)
        want = codes.view(dtype).astype(np.float64)
        got = np.frombuffer(tool("decode", fmt), np.float64)
        check(same(got, want), f"{fmt}: the values of its {2**bits} codes")
        if fmt in INTS:
            x = np.random.default_rng(2).integers(-(2**31), 2**31, COUNT).astype(np.int32)
            want = x.astype(np.uint8) & (2**bits - 1)
            check(np.array_equal(np.frombuffer(tool("encode", fmt, x.tobytes()), np.uint8), want), f"{fmt}: {len(x)} integers")
            continue
        x = inputs(want)
        if fmt == "f8e8m0":  # what lies between 2^-127 and 1.5 * 2^-127 is rounded up by ml_dtypes, away from the nearest
            x = x[~((x > np.float32(2**-127)) & (x < np.float32(1.5 * 2**-127)))]
        want = x.astype(dtype)
        code = codes.dtype
        got = np.frombuffer(tool("encode", fmt, x.tobytes()), code)
        ok = same(got.view(dtype).astype(np.float64), want.astype(np.float64))
        check(ok, f"{fmt}: {len(x)} roundings")
        if not ok:
            bad = np.flatnonzero(got != (want.view(code) & (2**bits - 1)))[:5]
            print("    ", [(float(x[i]), int(got[i]), int(want.view(code)[i])) for i in bad])
        if fmt not in ("f8e8m0", "f4e2m1"):
            top = np.float64(ml_dtypes.finfo(dtype).max)
            inside = np.where(np.isnan(x), x.astype(np.float64), np.clip(x.astype(np.float64), -top, top))
            got = np.frombuffer(tool("saturate", fmt, x.tobytes()), code).view(dtype).astype(np.float64)
            check(same(got, inside.astype(np.float32).astype(dtype).astype(np.float64)), f"{fmt}: {len(x)} saturating roundings")
    nan = np.frombuffer(tool("encode", "f4e2m1", np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0], np.float32).tobytes()), np.uint8)
    check(list(nan) == [8, 0, 7, 15, 8], f"f4e2m1: NaN, -NaN, infinities and -0 become {list(nan)}")
print(f"formats: {passed} passed, {failed} failed")
sys.exit(failed != 0)
