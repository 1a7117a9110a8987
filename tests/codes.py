#!/usr/bin/env python3
"""codes.py NYBBLE WORKDIR: what products by packed codes cost on a GPU, counted in the simulator, and what machine code they become: thread instructions a weight
of the kernels that decode, and of the ones that multiply codes by codes the instructions of tensor cores, registers and spills. Where no disassembler is found
(nvdisasm: PATH, a toolkit, or the wheel nvidia-cuda-nvdisasm) that part is skipped. Prints `codes: N passed, N failed`."""
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np

NYBBLE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
WORK.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(3)
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL", what)


def weights(n, k, mx):
    """Codes and scales of w[n,k] as text, their bytes in a file beside it."""
    block, scale = (32, "f8e8m0") if mx else (16, "f8e4m3")
    path, codes, scales = WORK / f"w{n}x{k}{scale}.bin", n * k // 2, n * k // block
    low, high = (118, 128) if mx else (0x20, 0x48)
    path.write_bytes(rng.integers(0, 256, codes, dtype=np.uint8).tobytes() + rng.integers(low, high, scales, dtype=np.uint8).tobytes())
    blobs = f'blob 0 = "{path.resolve()}"+0x0 bytes={codes}\nblob 1 = "{path.resolve()}"+0x{codes:x} bytes={scales}\n'
    ops = f"""  %codes = const data=blob0 : f4e2m1[{n},{k}]
  %s8 = const data=blob1 : {scale}[{n},{k // block}]
  %wt = dequantize %codes, %s8 axis=1 block={block} : f32[{n},{k}]
  %w = transpose %wt perm=[1,0] : f32[{k},{n}]
"""
    return blobs, ops, block, scale


def decoding(name, m, k, n, fmt="f32", mx=False):
    blobs, ops, _, _ = weights(n, k, mx)
    ops = ops.replace("f32", fmt) if fmt != "f32" else ops
    text = f"{blobs}graph g(%x: {fmt}[{m},{k}]) {{\n{ops}  %y = matmul %x, %w : {fmt}[{m},{n}]\n  ret %y names=[y]\n}}\n"
    return write(name, text, m, k, fmt)


def multiplying(name, m, k, n, mx=False):
    """x is quantised at run time: a scale for the largest of a block, codes of what is divided by it."""
    blobs, ops, block, scale = weights(n, k, mx)
    b, o = f"{m},{k // block},{block}", f"{m},{k // block},1"
    text = f"""{blobs}graph g(%x: f32[{m},{k}]) {{
{ops}  %x3 = reshape %x : f32[{b}]
  %a = abs %x3 : f32[{b}]
  %top = reduce %a op=max axes=[2] keep=1 : f32[{o}]
  %six = const splat=6 : f32[]
  %d = div %top, %six : f32[{o}]
  %s = cast %d : {scale}[{o}]
  %sf = cast %s : f32[{o}]
  %r = div %x3, %sf : f32[{b}]
  %c = cast %r : f4e2m1[{b}]
  %q = reshape %c : f4e2m1[{m},{k}]
  %s2 = reshape %s : {scale}[{m},{k // block}]
  %xq = dequantize %q, %s2 axis=1 block={block} : f32[{m},{k}]
  %y = matmul %xq, %w : f32[{m},{n}]
  ret %y names=[y]
}}
"""
    return write(name, text, m, k, "f32")


def write(name, text, m, k, fmt):
    path, x = WORK / f"{name}.nyt", rng.standard_normal((m, k)).astype(np.float32)
    path.write_text(text)
    raw = x if fmt == "f32" else (x.view(np.uint32) >> 16).astype(np.uint16).view(np.dtype("V2"))
    np.save(WORK / f"{name}.npy", raw)
    return path, WORK / f"{name}.npy"


def kernels(name, made, device, *more):
    """Runs the model once, and its kernels again: instructions of each, by name."""
    folder = WORK / f"{name}-{device.replace(':', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    for args in (("dump", made[0], folder, "--device", device, "--input", f"x={made[1]}", *more), ("replay", folder, "--device", device, "--json")):
        r = subprocess.run([NYBBLE, "kernels", *map(str, args)], capture_output=True, text=True)
        check(r.returncode == 0, f"{name} {device}: {r.stderr.strip()[:300]}")
        if r.returncode:
            return folder, {}
    return folder, {k["kernel"]: k for k in json.loads(r.stdout)["kernels"]}


def cost():
    print(f"{'product by codes':34}{'device':14}{'thread instructions a weight':>30}")
    n, k = 1024, 4096
    rows = [("nvfp4, one row of f32", 1, "f32", False), ("nvfp4, one row of bf16", 1, "bf16", False), ("mxfp4, one row of f32", 1, "f32", True),
            ("nvfp4, 8 rows of bf16", 8, "bf16", False), ("nvfp4, 16 rows of bf16", 16, "bf16", False)]
    for i, (what, m, fmt, mx) in enumerate(rows):
        made = decoding(f"decode{i}", m, k, n, fmt, mx)
        for device, most in (("sim:h100", 6), ("sim:rtx5090", 12)):
            _, found = kernels(f"decode{i}", made, device)
            each = sum(r["instructions"] for r in found.values()) * 32 / (n * k)
            print(f"{what:34}{device:14}{each:30.2f}")
            most += 2 if m > 8 else 0
            check(found and each <= most, f"{what} on {device}: {each:.2f} instructions a weight, {most} allowed")


def disassembler():
    places = [shutil.which("nvdisasm"), *pathlib.Path("/usr/local").glob("cuda*/bin/nvdisasm")]
    places += [f for p in sys.path if p for f in pathlib.Path(p).glob("nvidia/*/bin/nvdisasm")]
    return next((p for p in places if p), None)


def machine_code():
    tool = disassembler()
    for name, mx, want in (("scaled", False, "OMMA.SF.16864.F32.E2M1.E2M1.UE4M3.4X"), ("scaledmx", True, "OMMA.SF.16864.F32.E2M1.E2M1.E8")):
        folder, found = kernels(name, multiplying(name, 200, 512, 256, mx), "sim:rtx5090", "--cubin", "sm_120f")
        product = next((k for k in found if k.startswith("matmul")), None)
        check(product, f"{name}: a product among {list(found)}")
        check(len(found) == 2, f"{name}: codes and scales are made by one kernel, not {list(found)}")
        if not tool or not product:
            continue
        sass = subprocess.run([tool, folder / f"{product}.sm_120f.cubin"], capture_output=True, text=True).stdout
        check(sass.count(want) > 0, f"{name}: {want} in {sorted(set(re.findall(r'[OQH]MMA[.A-Z0-9_]*', sass)))}")
        check(not re.search(r"\b(STL|LDL)\b", sass), f"{name}: registers are spilled")
        print(f"{product} for sm_120f: {sass.count(want)} {want}, no spills")
    if not tool:
        print("machine code: skipped, there is no nvdisasm")


cost()
machine_code()
print(f"codes: {passed} passed, {failed} failed")
sys.exit(failed > 0)
