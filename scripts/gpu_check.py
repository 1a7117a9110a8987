"""The checks of scripts/gpu-check, on a machine that has build/gpu-data, Python and perhaps torch. One row a fact: what was asked, what came out, what
it is compared with, whether that is good enough."""
import argparse
import array
import ast
import json
import os
import pathlib
import platform
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "build/gpu-data"
ENVIRONMENT = {**os.environ, "NYBBLE_PLUGIN_DIR": str(DATA), "NYBBLE_CACHE": str(DATA / "cache")}
COPY_SHARE = 0.85  # map and row kernels: of what a copy reaches
CUBLAS_SHARE = 0.60
CODES_SHARE, CODES_SPEED = 0.70, {1: 2.5, 16: 2.0}  # products by 4-bit codes: of a copy with one row; times cuBLAS in bf16
COMPILE_SECONDS = 120
# name, bytes of an element, arrays read and written
STREAMS = [("gelu", 4, 2), ("add", 4, 3), ("gelu_bf16", 2, 2), ("softmax", 4, 2), ("layernorm", 4, 2), ("layernorm_bf16", 2, 2)]
WIDTH = 1024


def nvrtc_beside_torch():
    """The one of this Python's packages, which nybble would not look into."""
    for folder in sys.path:
        for found in sorted(pathlib.Path(folder).glob("nvidia/*/lib/libnvrtc.so.1[0-9]")):
            return str(found)
    return None


class Table:
    def __init__(self):
        self.rows, self.failed = [], 0

    def add(self, check, what, result, against="", good=None):
        """good: None where there is nothing to hold it to."""
        state = "" if good is None else "ok" if good else "FAILED"
        self.failed += good is False
        self.rows.append((check, what, result, against, state))
        print(f"{check:<10} {what:<34} {result:<34} {against:<34} {state}", flush=True)

    def markdown(self):
        lines = ["| check | what | result | against | |", "|---|---|---|---|---|"]
        return "\n".join(lines + ["| " + " | ".join(c.replace("|", "/") for c in r) + " |" for r in self.rows])


def nybble(*arguments, limit=300):
    try:
        r = subprocess.run([str(DATA / "nybble"), *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=limit)
    except subprocess.TimeoutExpired:
        return 1, "", f"took more than {limit} s"
    return r.returncode, r.stdout, (r.stderr.strip().splitlines() or [""])[-1]


# ---- arrays
def read_npy(path):
    """Shape and values, of the formats the outputs have."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<H", data, 8)
    head = ast.literal_eval(data[10 : 10 + size].decode())
    kinds = {"<f4": "f", "<f8": "d", "<i8": "q", "<i4": "i", "|i1": "b", "|u1": "B", "|b1": "B", "<f2": "e"}
    kind, body = head["descr"], data[10 + size :]
    if kind in ("<V2", "|V2"):  # bf16: the upper half of an f32
        words = array.array("H", body)
        return head["shape"], array.array("f", array.array("I", [w << 16 for w in words]).tobytes())
    return head["shape"], memoryview(body).cast(kinds[kind]).tolist() if kinds[kind] != "e" else [v[0] for v in struct.iter_unpack("<e", body)]


def relative_error(ours, reference):
    (shape, a), (expected, b) = ours, reference
    if tuple(shape) != tuple(expected):
        return float("inf")
    scale = max((abs(v) for v in b), default=0)
    worst = max((abs(x - y) if x == x and y == y else 0 if x != x and y != y else float("inf") for x, y in zip(a, b)), default=0)
    return worst / scale if scale else worst


# ---- checks
def check_device(table, device):
    simulated = device.startswith("sim")
    code, out, error = nybble("doctor", "--json", *(["--simulator"] if simulated else []))
    if code:
        sys.exit(f"gpu-check: {error}")
    facts = json.loads(out)
    everything = facts["cuda"]["devices"] + facts.get("simulator", {}).get("devices", [])
    found = [d for d in everything if device in (d["device"], d["device"].split(":")[0])]
    if not found:
        sys.exit(f"gpu-check: {facts['cuda'].get('missing', 'there is no such device here')}; --device sim runs the same without a GPU")
    table.add("doctor", "NVRTC", facts["compilers"].get("nvrtc") or "none: recorded code is loaded")
    for d in found:
        table.add("doctor", d["device"], d["name"], "", True)
    return facts


def check_conformance(table, device):
    """Everything the API promises of a device: tests/cts."""
    try:
        r = subprocess.run([str(DATA / "cts"), device, "--modules", str(DATA / "cts-modules")], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    except subprocess.TimeoutExpired:
        table.add("cts", device, "took more than 300 s", "", False)
        return
    table.add("cts", device, (r.stdout.strip().splitlines() or [f"exit {r.returncode}"])[-1].split(": ")[-1], "the API's promises", r.returncode == 0)
    for line in r.stderr.strip().splitlines()[:10]:
        print(f"  {line}", flush=True)


def check_models(table, models, device, folder):
    for m in models:
        if not m["outputs"]:
            continue
        base = DATA / "models" / m["name"]
        feeds = [x for name, file in m["inputs"].items() for x in ("--input", f"{name}={base / file}")]
        out = pathlib.Path(folder) / m["name"]
        code, _, error = nybble("run", base / "model.nyb", "--trust", "--device", device, *feeds, "--output-dir", out)
        if code:
            table.add("model", m["name"], error[:80], "", False)
            continue
        worst = max(relative_error(read_npy(out / (name.replace("/", "_") + ".npy")), read_npy(base / file)) for name, file in m["outputs"].items())
        table.add("model", m["name"], f"relative error {worst:.1e}", f"at most {m['tolerance']:g}, ONNX Runtime", worst <= m["tolerance"])


def check_kernels(table, device):
    """Every recorded kernel, against what the simulator recorded. Returns the rate of a copy in GB/s and a table of kernels."""
    copy, details = 0, []
    for folder in sorted((DATA / "kernels").iterdir()):
        code, out, error = nybble("kernels", "replay", folder, "--device", device, "--json")
        try:
            report = json.loads(out)
        except ValueError:
            table.add("kernels", folder.name, error[:80], "", False)
            continue
        bad = [k for k in report["kernels"] if not k["ok"]]
        worst = max((k.get("error", 0) for k in report["kernels"]), default=0)
        table.add("kernels", f"{folder.name}: {len(report['kernels'])}", f"largest error {worst:.1e}", "recorded on the simulator", not bad and not code)
        for k in bad[:3]:
            table.add("kernels", k["kernel"], k["message"][:80], "", False)
        copy = max(copy, report["copy_gbs"])
        details += [(folder.name, k) for k in report["kernels"] if k["ok"]]
    if copy:
        table.add("copy", "256 MiB on the device", f"{copy:.0f} GB/s read and written")
    return copy, details


def kernel_times(name, device, *arguments):
    """Seconds of the kernels of one run of the model; or an error."""
    code, out, error = nybble("bench", DATA / "models" / name / "model.nyb", "--trust", "--device", device, "--ms", 1, "--kernels", "--json", *arguments)
    return (None, error) if code else ([k["ms"] * 1e-3 for k in json.loads(out.splitlines()[-1])], "")


def kernel_seconds(name, device, *arguments):
    times, error = kernel_times(name, device, *arguments)
    return (None, error) if times is None else (sum(times), "")


def check_streams(table, device, copy):
    simulated = device.startswith("sim")
    for size in (0.25,) if simulated else (64, 256, 512):
        for name, element, arrays in STREAMS:
            rows = max(1, int(size * 1e6 / (WIDTH * element * arrays)))
            seconds, error = kernel_seconds(name, device, "--dim", f"N={rows}")
            what = f"{name} [{rows},{WIDTH}], {size} MB"
            if seconds is None:
                table.add("stream", what, error[:80], "", False)
            elif simulated:
                table.add("stream", what, "ran twice alike", "times of the simulator mean nothing", True)
            else:
                rate = rows * WIDTH * element * arrays / seconds * 1e-9
                table.add("stream", what, f"{rate:.0f} GB/s, {seconds * 1e6:.1f} us", f"{100 * rate / copy:.0f} % of a copy, at least {100 * COPY_SHARE:.0f}" if copy else "",
                          rate >= COPY_SHARE * copy if copy else None)


# ---- beside torch
def open_torch(device):
    if device.startswith("sim"):
        return None
    try:
        import torch
        return torch if torch.cuda.is_available() else None
    except ImportError:
        return None


def torch_seconds(torch, f, rounds=30):
    for _ in range(5):
        f()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        f()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def save_bf16(torch, path, tensor):
    shape = "(" + "".join(f"{n}," for n in tensor.shape) + ")"
    head = f"{{'descr': '<V2', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    raw = tensor.contiguous().view(torch.int16).cpu().flatten().tolist()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.array("h", raw).tobytes())


def load_bf16(torch, path):
    shape, values = read_npy(path)
    return torch.frombuffer(values, dtype=torch.float32).reshape(tuple(shape))


def gemm_of_torch(torch, n, fused):
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.randn(n, device="cuda", dtype=torch.bfloat16)
    product = lambda: a @ b
    epilogue = lambda: torch.nn.functional.gelu(a @ b + c, approximate="tanh")
    return (a, b, c), epilogue if fused else product


def compare_with_torch(torch, table, name, n, fused, folder):
    """What is timed is what torch computes."""
    (a, b, c), f = gemm_of_torch(torch, n, fused)
    feeds = []
    for key, tensor in (("a", a), ("b", b)) + ((("c", c),) if fused else ()):
        path = pathlib.Path(folder) / f"{key}.npy"
        save_bf16(torch, path, tensor)
        feeds += ["--input", f"{key}={path}"]
    out = pathlib.Path(folder) / name
    code, _, error = nybble("run", DATA / "models" / name / "model.nyb", "--trust", "--device", "cuda", *feeds, "--output-dir", out)
    if code:
        table.add("gemm", name, error[:80], "", False)
        return None
    theirs = f().float().cpu()
    worst = ((load_bf16(torch, out / "y.npy") - theirs).abs().max() / theirs.abs().max()).item()
    table.add("gemm", name, f"relative error {worst:.1e}", "at most 0.02, torch", worst <= 0.02)
    return torch_seconds(torch, f)


def check_gemm(table, device, torch, folder):
    simulated = device.startswith("sim")
    n = 256 if simulated else 4096
    for fused in (False, True):
        name = f"gemm{'_gelu' if fused else ''}_{n}"
        what = f"bf16 {n} x {n} x {n}" + (", bias, gelu" if fused else "")
        theirs = compare_with_torch(torch, table, name, n, fused, folder) if torch else None
        seconds, error = kernel_seconds(name, device)
        if seconds is None:
            table.add("gemm", what, error[:80], "", False)
        elif simulated:
            table.add("gemm", what, "ran twice alike", "times of the simulator mean nothing", True)
        else:
            result = f"{2 * n**3 / seconds * 1e-12:.0f} TFLOP/s, {seconds * 1e6:.0f} us"
            if not theirs:
                table.add("gemm", what, result, "no torch here")
            elif fused:
                table.add("gemm", what, result, f"cuBLAS + elementwise {theirs * 1e6:.0f} us", seconds <= theirs)
            else:
                table.add("gemm", what, result, f"{100 * theirs / seconds:.0f} % of cuBLAS, at least {100 * CUBLAS_SHARE:.0f}", theirs / seconds >= CUBLAS_SHARE)


def check_codes(table, device, torch, copy):
    """Products of few rows by NVFP4 weights: what is read are the codes and scales, 9/16 of a byte a weight."""
    if device.startswith("sim"):
        times, error = kernel_times("codes_1x256", device)
        table.add("codes", "NVFP4 256 x 512 and back", "ran twice alike" if times else error[:80], "times of the simulator mean nothing", bool(times))
        return
    k, n = 4096, 14336
    for m in (1, 16):
        times, error = kernel_times(f"codes_{m}x{k}", device)
        if not times or len(times) != 2:
            table.add("codes", f"NVFP4, {m} rows", error[:80] or f"{len(times)} kernels", "", False)
            continue
        for (a, b), seconds in zip(((n, k), (k, n)), times):
            what, rate = f"NVFP4 {m} x {b} by {a} x {b}", a * b * 0.5625 / seconds * 1e-9
            good = rate >= CODES_SHARE * copy if copy and m == 1 else None
            against = f"{100 * rate / copy:.0f} % of a copy" + (f", at least {100 * CODES_SHARE:.0f}" if m == 1 else "") if copy else ""
            table.add("codes", what, f"{rate:.0f} GB/s, {seconds * 1e6:.1f} us", against, good)
            if torch:
                x, w = torch.randn(m, b, device="cuda", dtype=torch.bfloat16), torch.randn(a, b, device="cuda", dtype=torch.bfloat16)
                theirs = torch_seconds(torch, lambda: x @ w.t())
                table.add("codes", what, f"{theirs / seconds:.2f} times as fast", f"cuBLAS bf16 {theirs * 1e6:.1f} us, at least {CODES_SPEED[m]}", theirs / seconds >= CODES_SPEED[m])


def encoder(torch, layers=6, width=384, heads=12, words=1024):
    """MiniLM's network; random weights take as long as trained ones."""
    nn, F = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x):
            batch, length, _ = x.shape
            q, k, v = self.qkv(x).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
            x = self.norm1(x + self.out(y))
            return self.norm2(x + self.down(F.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm = nn.Embedding(words, width), nn.LayerNorm(width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))

        def forward(self, ids):
            x = self.norm(self.words(ids))
            for layer in self.layers:
                x = layer(x)
            return F.normalize(x.mean(1), dim=-1)

    return Encoder().to("cuda", torch.bfloat16).eval()


def too_long(*_):
    raise TimeoutError(f"compiling took more than {COMPILE_SECONDS} s")


def torch_latency(torch, mode):
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(COMPILE_SECONDS)
    ids = torch.randint(0, 1024, (1, 128))
    model = encoder(torch)
    run = model if mode is None else torch.compile(model, mode=mode)
    times = []
    with torch.inference_mode():
        for i in range(120):
            start = time.perf_counter()
            run(ids.to("cuda")).float().cpu()
            signal.alarm(0)
            if i >= 20:
                times.append(time.perf_counter() - start)
    return statistics.median(times)


def check_latency(table, device, torch):
    size = 16 if device.startswith("sim") else 128
    code, out, error = nybble("bench", DATA / "models/minilm_bf16/model.nyb", "--trust", "--device", device, "--dim", "B=1", "--dim", f"S={size}", "--ms", 1 if size == 16 else 2000, "--json")
    what = f"MiniLM bf16, 1 x {size} tokens"
    if code:
        table.add("latency", what, error[:80], "", False)
        return
    if device.startswith("sim"):
        table.add("latency", what, "ran twice alike", "times of the simulator mean nothing", True)
        return
    table.add("latency", what, f"{json.loads(out)['median_ms']:.3f} ms, input and output copied", "" if torch else "no torch here")
    for name, mode in (("torch", None), ("torch.compile, graphs", "reduce-overhead")) if torch else ():
        try:
            table.add("latency", name, f"{torch_latency(torch, mode) * 1e3:.3f} ms")
        except Exception as e:  # what torch.compile needs beside torch may not be there
            signal.alarm(0)
            table.add("latency", name, f"does not run here: {(str(e).splitlines() or [type(e).__name__])[0][:60]}")


def kernel_table(details):
    lines = ["| model | kernel | code | us | bytes | of a copy |", "|---|---|---|---|---|---|"]
    return "\n".join(lines + [f"| {m} | {k['kernel']} | {k['code']} | {k['us']:.2f} | {k['bytes']:.0f} | {100 * k['of_copy']:.0f} % |" for m, k in details if "us" in k])


def main():
    parser = argparse.ArgumentParser(prog="scripts/gpu-check")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", help="the table as a file (default docs/gpu-results.md, of the simulator build/gpu-data/results.md)")
    options = parser.parse_args()
    nvrtc = nvrtc_beside_torch()
    if nvrtc:
        ENVIRONMENT.setdefault("NYBBLE_NVRTC", nvrtc)
    device, start, table = options.device, time.monotonic(), Table()
    models = json.loads((DATA / "models.json").read_text())
    check_device(table, device)
    torch = open_torch(device)
    with tempfile.TemporaryDirectory() as folder:
        check_conformance(table, device)
        check_models(table, models, device, folder)
        copy, details = check_kernels(table, device)
        check_streams(table, device, copy)
        check_gemm(table, device, torch, folder)
        check_codes(table, device, torch, copy)
        check_latency(table, device, torch)
    seconds = time.monotonic() - start
    out = pathlib.Path(options.out) if options.out else DATA / "results.md" if device.startswith("sim") else ROOT / "docs/gpu-results.md"
    name = next((r[2] for r in table.rows if r[0] == "doctor" and r[4] == "ok"), device)
    text = f"# Results on {name}\n\nWritten by scripts/gpu-check --device {device} in {seconds:.0f} s, {platform.machine()}, {table.failed} of {len(table.rows)} rows failed.\n\n{table.markdown()}\n"
    if any("us" in k for _, k in details):
        text += f"\n## Kernels\n\nMedians, data as small as in the recorded run, so in the cache; a copy reaches {copy:.0f} GB/s.\n\n{kernel_table(details)}\n"
    out.write_text(text)
    print(f"gpu-check: {len(table.rows) - table.failed} passed, {table.failed} failed ({seconds:.0f} s, {out})")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
