#!/usr/bin/env bash
# The command line for CUDA: kernels of one's own on the simulated device, kernels of a model dumped, edited, replayed and put back.
# usage: tests/cli_cuda.sh BUILD      prints `cli_cuda: N passed, N failed`; needs NVRTC, and says so when there is none
set -uo pipefail
cd "$(dirname "$0")/.."
build=$(cd "$1" && pwd)
nybble=$build/nybble
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
export NYBBLE_CACHE=$dir/cache
passed=0 failed=0
good() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAIL $1"; head -c 2000 "$dir/out" "$dir/err"; }
run() { "$@" >"$dir/out" 2>"$dir/err"; }
ok() { local name=$1; shift; if run "$@"; then good; else bad "$name"; fi; }
prints() { local name=$1 pattern=$2; shift 2; if run "$@" && grep -q -- "$pattern" "$dir/out"; then good; else bad "$name: no '$pattern'"; fi; }
exits() { # name, code, pattern on stdout or stderr, command...
  local name=$1 code=$2 pattern=$3 got; shift 3
  run "$@"; got=$?
  if [ "$got" = "$code" ] && cat "$dir/out" "$dir/err" | grep -q -- "$pattern"; then good; else bad "$name: exit $got (expected $code)"; fi
}
python() { "${PYTHON:-.venv/bin/python}" "$@"; }

if ! "$nybble" doctor --json | grep -q '"nvrtc":"[0-9]'; then
  echo "no NVRTC on this machine: skipped (scripts/setup python installs it)"
  echo "cli_cuda: 0 passed, 0 failed"
  exit 0
fi

python - "$dir" <<'PY'
import sys
import numpy as np
d = sys.argv[1]
rng = np.random.default_rng(1)
def save(name, a): np.save(f"{d}/{name}.npy", a)
def launch(name, text): open(f"{d}/{name}.launch", "w").write(text)
a, b = rng.standard_normal((40, 50)).astype(np.float32), rng.standard_normal((50, 33)).astype(np.float32)
save("a", a); save("b", b); save("ab", (a.astype(np.float64) @ b).astype(np.float32))
launch("matmul", "grid 3 3\nblock 16 16\nin a.npy\nin b.npy f32[50,33]\nout c.npy f32[40,33] expect=ab.npy tol=1e-5\nvalue i32 40\nvalue i32 33\nvalue i32 50\n")
x = rng.standard_normal(512).astype(np.float32)
save("x", x); save("sums", x.reshape(4, 128).sum(1))
launch("reduce", "# four blocks\nkernel reduce\ngrid 4\nblock 128\nin x.npy\nout sum.npy f32[4] expect=sums.npy tol=1e-5\n")
save("z", x[:500]); save("zz", x[:500] * np.float32(2))
launch("scale", "grid 4\nblock 128\nin z.npy\nout y.npy f32[500] expect=zz.npy\nvalue f32 2\nvalue i32 500\n")
launch("place", "grid 4\nblock 128\ninout z.npy expect=zz.npy tol=0\nsame 0\nvalue f32 2\nvalue i32 500\n")
launch("wrong", "grid 4\nblock 128\nin z.npy\nout y.npy f32[500] expect=z.npy\nvalue f32 2\nvalue i32 500\n")
launch("few", "grid 4\nblock 128\nin z.npy\n")
launch("type", "grid 4\nblock 128\nin z.npy f16[500]\n")
launch("word", "grid 4\nblock 128\nscale 3\n")
t = rng.standard_normal((32, 32)).astype(np.float32)
save("t", t); save("tt", np.ascontiguousarray(t.T))
launch("transpose", "kernel transpose\ngrid 1\nblock 32 32\nin t.npy\nout y.npy f32[32,32] expect=tt.npy tol=0\n")
PY

# ---- nybble sim
sim() { "$nybble" sim "tests/sim/$1.cu" "$dir/$2.launch" "${@:3}"; }
json() { # kernel, launch, options..., then a Python expression over r
  local n=$#; "$nybble" sim "tests/sim/$1.cu" "$dir/$2.launch" "${@:3:n-3}" --json >"$dir/json" 2>"$dir/err"
  python -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else str(r))' "$dir/json" "${!n}"
}
prints "a correct matmul has no findings" "^0 findings in 3 orders" sim matmul matmul
ok "its counters" json matmul matmul 'r["findings"] == [] and r["instructions"]["f16, bf16, f32"] == 72 * 64 and r["barriers"] == 72'
ok "a macro changes it" json matmul matmul --define TILE=16 'r["results"][0]["error"] < 1e-6'
ok "results are written" sim matmul matmul --output-dir "$dir/o"
ok "as they should be" python -c 'import sys, numpy as np; d = sys.argv[1]; assert np.abs(np.load(d + "/o/c.npy") - np.load(d + "/ab.npy")).max() < 1e-4' "$dir"
exits "a missing barrier is a race" 1 "data race" sim reduce reduce
ok "on its line, both ends" json reduce reduce 'r["findings"] and all((f["kind"], f["at"]["file"], f["at"]["line"], f["other"]["line"]) == ("data race", "reduce.cu", 8, 8) for f in r["findings"])'
prints "none with the barrier" "^0 findings" sim reduce reduce --define FIXED=1
exits "one element too many" 1 "0 bytes after the 2000 bytes of \"z.npy\"" sim scale scale
ok "by its thread and line" json scale scale '[(f["kind"], f["at"]["line"], f["at"]["block"][0], f["at"]["thread"][0]) for f in r["findings"]] == [("out of bounds", 7, 3, 116)] * 2'
prints "none within" "^0 findings" sim scale scale --define FIXED=1
ok "in place" json scale place --define FIXED=1 'r["results"] == [{"name": "z.npy", "error": 0}]'
exits "a wrong result" 1 "relative error" sim scale wrong --define FIXED=1
ok "bank conflicts are counted" json transpose transpose 'r["findings"] == [] and r["shared_wavefronts"] == 32 + 32 * 32'
ok "and none with padding" json transpose transpose --define PAD=1 'r["shared_wavefronts"] == 64'
ok "orders" json matmul matmul --orders 5 --seed 7 'r["orders"] == 5 and r["differ"] == 0'
exits "arguments are counted" 1 "takes 4 arguments" sim scale few
exits "types are held to files" 1 "type.launch.*z.npy has 2000 bytes" sim scale type
exits "a word that means nothing" 1 "is none of kernel, grid" sim scale word
exits "no launch" 2 "launch description" "$nybble" sim tests/sim/scale.cu
printf 'extern "C" __global__ void k() { int x = y; }\n' >"$dir/bad.cu"
exits "NVRTC's error names the line" 1 'undefined' "$nybble" sim "$dir/bad.cu" "$dir/scale.launch"
printf 'extern "C" __global__ void k(int *p) { while (*(volatile int *)p == 0) ; }\n' >"$dir/hang.cu"
printf 'grid 1\nblock 1\nout p.npy i32[1]\n' >"$dir/hang.launch"
exits "a kernel that does not end" 1 "instruction limit" "$nybble" sim "$dir/hang.cu" "$dir/hang.launch" --limit 1

# ---- nybble kernels
python - "$dir" <<'PY'
import sys
import numpy as np
from onnx import TensorProto, helper as h, numpy_helper as n, save
d = sys.argv[1]
rng = np.random.default_rng(2)
w = n.from_array(rng.standard_normal((64, 48)).astype(np.float32), "w")
x, y = h.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]), h.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 48])
nodes = [h.make_node("MatMul", ["x", "w"], ["p"]), h.make_node("Relu", ["p"], ["q"]), h.make_node("Softmax", ["q"], ["r"], axis=1), h.make_node("Cos", ["r"], ["y"])]
save(h.make_model(h.make_graph(nodes, "small", [x], [y], [w]), opset_imports=[h.make_opsetid("", 21)], ir_version=10), f"{d}/small.onnx")
np.save(f"{d}/in.npy", rng.standard_normal((5, 64)).astype(np.float32))
PY
kernels() { "$nybble" kernels "$@"; }
prints "help" "replay" "$nybble" kernels --help
exits "no subcommand" 2 "usage: nybble kernels" "$nybble" kernels
prints "dump" "2 of 2 kernels of sm_90a, recorded on sim:h100" kernels dump "$dir/small.onnx" "$dir/k" --off merge --device sim:h100 --input x="$dir/in.npy" --cubin sm_80,sm_90a
ok "each kernel has its files" test "$(ls "$dir"/k/*.launch | wc -l) $(ls "$dir"/k/*.sm_80.cubin | wc -l) $(ls "$dir"/k/*.expect.npy | wc -l)" = "2 2 2"
soft=$(basename "$(ls "$dir"/k/row*.cu)" .cu); product=$(basename "$(ls "$dir"/k/matmul*.cu)" .cu)
prints "arguments have their shapes" "f32\\[5,48\\] expect=" cat "$dir/k/$soft.launch"
exits "dump of a module" 2 "wants a model" kernels dump "$dir/p.nyb" "$dir/k2"
exits "dump on the CPU" 1 "cuda or sim" kernels dump "$dir/small.onnx" "$dir/k2" --device cpu
exits "no such architecture" 2 "wants architectures" kernels dump "$dir/small.onnx" "$dir/k2" --cubin sm_xy --input x="$dir/in.npy"
prints "replay" "^2 kernels on NVIDIA H100.*, 0 failed" kernels replay "$dir/k" --device sim:h100
prints "on another device" "^2 kernels on NVIDIA RTX 5090.*, 0 failed\|^2 kernels on NVIDIA GeForce RTX 5090.*, 0 failed" kernels replay "$dir/k" --device sim:rtx5090
replay_json() { kernels replay "$dir/k" "$soft" --json >"$dir/json" && python -c 'import json, sys; k, = json.load(open(sys.argv[1]))["kernels"]; assert k["ok"] and k["error"] < 1e-5 and k["instructions"] > 0' "$dir/json"; }
ok "one of them, as JSON" replay_json
prints "without NVRTC" "2 kernels .* 0 failed" env NYBBLE_NVRTC=/nonexistent "$nybble" kernels replay "$dir/k" --device sim:h100
exits "no such kernel" 1 "no such kernels" kernels replay "$dir/k" nothing
exits "nothing was edited" 1 "no kernel was edited" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb"
sim_of_dump() { "$nybble" sim "$dir/k/$product.cu" "$dir/k/$product.launch"; }
prints "a dumped kernel under the checks" "^0 findings" sim_of_dump
cp "$dir/k/$soft.cu" "$dir/soft.cu"
# by hand: the same kernel, whose result is one more
sed -i "s/cos/1 + cos/; s/ny_cos/1 + ny_cos/" "$dir/k/$soft.cu"; cmp -s "$dir/k/$soft.cu" "$dir/soft.cu" && bad "the edit changes nothing"
exits "an edited kernel that is wrong" 1 "FAILED.*results differ" kernels replay "$dir/k" --device sim:h100
exits "an edited one needs NVRTC" 1 "was edited, and there is no NVRTC" env NYBBLE_NVRTC=/nonexistent "$nybble" kernels replay "$dir/k" --device sim:h100
prints "pin" "pinned $soft" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb"
prints "inspect tells" "$soft .*pinned" "$nybble" inspect "$dir/p.nyb" --device sim:h100
"$nybble" run "$dir/small.onnx" --input x="$dir/in.npy" --output-dir "$dir/r1" >/dev/null 2>&1
"$nybble" run "$dir/p.nyb" --device sim:h100 --input x="$dir/in.npy" --output-dir "$dir/r2" >/dev/null 2>"$dir/err"
ok "the module runs what was pinned" python -c 'import sys, numpy as np; a, b = (np.load(p + "/y.npy") for p in sys.argv[1:]); assert np.abs(a + 1 - b).max() < 1e-5, (a, b)' "$dir/r1" "$dir/r2"
sed -i 's/^block .*/block 64/; s/^points .*/points 99/' "$dir/k/$soft.launch"
exits "a grid that is not what points say" 1 "in a model the grid is\|at most one each" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb"
kernels dump "$dir/small.onnx" "$dir/k" --off merge --device sim:h100 --input x="$dir/in.npy" >/dev/null 2>&1
sed -i "s/__global__ void __launch_bounds__(BLOCK) $soft(/&int more, /" "$dir/k/$soft.cu"
exits "another signature" 1 "takes (int, .*the model calls it with (float" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb"
exits "another size, another signature" 1 "the model calls it with\|has no kernel" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb" --dim N=7
sed -i "s/^\/\/ $soft:/\/\/ other_kernel:/" "$dir/k/$soft.cu"
exits "a kernel the model has not" 1 "the model has no kernel other_kernel" kernels pin "$dir/small.onnx" "$dir/k" --off merge -o "$dir/p.nyb"

# ---- launches that became one
kernels dump "$dir/small.onnx" "$dir/m" --device sim:h100 --input x="$dir/in.npy" >"$dir/out" 2>"$dir/err"
both=$(basename "$(ls "$dir"/m/merged_2_*.launch)" .launch)
prints "a merged kernel says what it calls" "// 2. row.*: " cat "$dir/m/$both.cu"
prints "it is one block" "^grid 1$" cat "$dir/m/$both.launch"
prints "replay of a merged kernel" "^1 kernels on .*, 0 failed" kernels replay "$dir/m" --device sim:h100
sim_of_merged() { "$nybble" sim "$dir/m/$both.cu" "$dir/m/$both.launch"; }
prints "a merged kernel under the checks" "^0 findings" sim_of_merged
"$nybble" compile "$dir/small.onnx" --target sm_90a -o "$dir/m.nyb" >/dev/null 2>&1
"$nybble" compile "$dir/small.onnx" --target sm_90a --off merge -o "$dir/n.nyb" >/dev/null 2>&1
prints "inspect counts launches" "3 kernels, 1 launches (2 where sizes are too large" "$nybble" inspect "$dir/m.nyb"
prints "and names what is called" "$both \\[.*calls=matmul.*+row" "$nybble" inspect "$dir/m.nyb"
prints "without the pass" "2 kernels, 2 launches, code" "$nybble" inspect "$dir/n.nyb"
calls() { # module, input, launches expected
  "$nybble" bench "$dir/$1.nyb" --device sim:h100 --input x="$dir/$2.npy" --ms 1 --kernels --json >"$dir/json" 2>"$dir/err" &&
    python -c 'import json, sys; rows = json.loads(open(sys.argv[1]).read().splitlines()[1]); n = sum(r["calls"] for r in rows); sys.exit(0 if n == int(sys.argv[2]) else f"{n} launches")' "$dir/json" "$3"
}
python -c 'import sys, numpy as np; np.save(sys.argv[1] + "/large.npy", np.random.default_rng(3).standard_normal((700, 64)).astype(np.float32))' "$dir"
ok "one launch for five rows" calls m in 1
ok "two for seven hundred" calls m large 2
ok "two without the pass" calls n in 2
results() { for k in m n; do "$nybble" run "$dir/$k.nyb" --device sim:h100 --input x="$dir/$1.npy" --output-dir "$dir/r_$k" >/dev/null 2>"$dir/err" || return 1; done; cmp "$dir/r_m/y.npy" "$dir/r_n/y.npy"; }
ok "the same bits merged" results in
ok "the same bits of the large one" results large
sed -i "s/cosf(/1.0f + cosf(/" "$dir/m/$both.cu"
prints "pin a merged kernel" "pinned $both" kernels pin "$dir/small.onnx" "$dir/m" -o "$dir/q.nyb"
"$nybble" run "$dir/q.nyb" --device sim:h100 --input x="$dir/in.npy" --output-dir "$dir/r_q" >/dev/null 2>"$dir/err"
ok "the module runs the pinned merged kernel" python -c 'import sys, numpy as np; a, b = (np.load(p + "/y.npy") for p in sys.argv[1:]); assert np.abs(a + 1 - b).max() < 1e-5, (a, b)' "$dir/r1" "$dir/r_q"

echo "cli_cuda: $passed passed, $failed failed"
[ "$failed" = 0 ]
