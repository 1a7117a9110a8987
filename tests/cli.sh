#!/usr/bin/env bash
# The command line, the installed package and the samples, as a user meets them.
# usage: tests/cli.sh BUILD      prints `cli: N passed, N failed`
set -uo pipefail
cd "$(dirname "$0")/.."
build=$(cd "$1" && pwd)
nybble=$build/nybble
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
export NYBBLE_CACHE=$dir/cache
passed=0 failed=0
ok() { # name, command...
  local name=$1; shift
  if "$@" >"$dir/out" 2>"$dir/err"; then passed=$((passed + 1)); else
    failed=$((failed + 1)); echo "FAIL $name"; head -c 2000 "$dir/out" "$dir/err"; fi
}
exits() { # name, code, pattern on stderr, command...
  local name=$1 code=$2 pattern=$3 got; shift 3
  "$@" >"$dir/out" 2>"$dir/err"; got=$?
  if [ "$got" = "$code" ] && grep -q -- "$pattern" "$dir/err"; then passed=$((passed + 1)); else
    failed=$((failed + 1)); echo "FAIL $name: exit $got (expected $code)"; head -c 2000 "$dir/err"; fi
}
prints() { # name, pattern, command...
  local name=$1 pattern=$2; shift 2
  if "$@" >"$dir/out" 2>"$dir/err" && grep -q -- "$pattern" "$dir/out"; then passed=$((passed + 1)); else
    failed=$((failed + 1)); echo "FAIL $name: no '$pattern'"; head -c 2000 "$dir/out" "$dir/err"; fi
}
python() { .venv/bin/python "$@"; }

python - "$dir" <<'PY'
import sys
import numpy as np
from onnx import TensorProto, helper as h, numpy_helper as n, save
d = sys.argv[1]
rng = np.random.default_rng(1)
w = n.from_array(rng.standard_normal((8, 5)).astype(np.float32), "w")
x = h.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])
y = h.make_tensor_value_info("a/y", TensorProto.FLOAT, ["N", 5])
nodes = [h.make_node("MatMul", ["x", "w"], ["p"], name="product"), h.make_node("Gelu", ["p"], ["a/y"], name="act")]
opset = [h.make_opsetid("", 21)]
save(h.make_model(h.make_graph(nodes, "small", [x], [y], [w]), opset_imports=opset, ir_version=10), f"{d}/small.onnx")
bad = [h.make_node("MatMul", ["x", "w2"], ["a/y"], name="wrong")]
w2 = n.from_array(np.ones((7, 5), np.float32), "w2")
save(h.make_model(h.make_graph(bad, "bad", [x], [y], [w2]), opset_imports=opset, ir_version=10), f"{d}/bad.onnx")
odd = [h.make_node("Frobnicate", ["x"], ["a/y"], name="strange")]
save(h.make_model(h.make_graph(odd, "odd", [x], [y], []), opset_imports=opset, ir_version=10), f"{d}/odd.onnx")
np.save(f"{d}/x.npy", rng.standard_normal((3, 8)).astype(np.float32))
PY

# help and errors
prints "help" "usage: nybble" "$nybble" --help
prints "version" "nybble 0" "$nybble" --version
for v in run bench compile inspect print opt test ops; do
  prints "help of $v" "usage: nybble $v" "$nybble" "$v" --help
  ok "help of $v fits a screen" test "$("$nybble" "$v" --help | wc -l)" -le 60
done
exits "unknown verb" 2 "neither a verb" "$nybble" frobnicate
exits "unknown option" 2 "unknown option" "$nybble" run --frobnicate "$dir/small.onnx"
exits "optimisation level out of range" 2 "0, 1, 2 or 3" "$nybble" run "$dir/small.onnx" --optimize 9
exits "no output named" 2 "-o OUT.nyb is missing" "$nybble" compile "$dir/small.onnx"
exits "a model and a stage" 2 "one model" "$nybble" compile "$dir/small.onnx" --from "$dir/small.onnx" -o "$dir/x.nyb"
mkdir "$dir/empty"; exits "a folder without test cases" 1 "holds no test case" sh -c "\"$nybble\" test \"$dir/empty\" >&2"
exits "no such file" 1 "nofile" "$nybble" run "$dir/nofile.onnx"
exits "type error names the node" 1 "wrong" "$nybble" run "$dir/bad.onnx"
exits "unknown operator names node and operator" 1 "strange.*Frobnicate" "$nybble" run "$dir/odd.onnx"
exits "no such input" 1 "no input" "$nybble" run "$dir/small.onnx" --input z="$dir/x.npy"
head -c 100 "$dir/small.onnx" >"$dir/cut.onnx"
exits "truncated model" 1 "cut.onnx" "$nybble" run "$dir/cut.onnx"

# run, with files in and out, against NumPy
ok "run" "$nybble" run "$dir/small.onnx" --input x="$dir/x.npy" --output-dir "$dir/out1"
same() { python - "$1" "$dir" <<'PY'
import sys
import numpy as np, onnxruntime as ort
got, d = np.load(sys.argv[1]), sys.argv[2]
want = ort.InferenceSession(f"{d}/small.onnx").run(None, {"x": np.load(f"{d}/x.npy")})[0]
sys.exit(not np.allclose(got, want, rtol=1e-5, atol=1e-6))
PY
}
ok "outputs match" same "$dir/out1/a_y.npy"
prints "run as JSON" '"outputs":\[{"name":"a/y"' "$nybble" run "$dir/small.onnx" --json
prints "model alone" "a/y" "$nybble" "$dir/small.onnx"
json() { "$@" 2>/dev/null | python -m json.tool; }
for v in run bench inspect; do ok "$v --json parses" json "$nybble" "$v" "$dir/small.onnx" --json; done
ok "ops --json parses" json "$nybble" ops --json

# the second run compiles nothing and does not map LLVM
loads_llvm() { LD_DEBUG=files "$@" 2>"$dir/loaded" >/dev/null; grep -q "libLLVM" "$dir/loaded"; }
ok "first run compiled into the cache" test -n "$(ls "$dir/cache/modules")"
warm() { ! loads_llvm "$nybble" run "$dir/small.onnx" --input x="$dir/x.npy"; }
ok "a cached run never loads LLVM" warm
fresh() { NYBBLE_CACHE=$dir/other loads_llvm "$nybble" run "$dir/small.onnx"; }
ok "a first run does (so the test above can fail)" fresh

# ahead of time
ok "compile" "$nybble" compile "$dir/small.onnx" -o "$dir/small.nyb"
ok "run of a module" "$nybble" run "$dir/small.nyb" --input x="$dir/x.npy" --output-dir "$dir/out2"
ok "outputs of the module match" same "$dir/out2/a_y.npy"
module() { ! loads_llvm "$nybble" run "$dir/small.nyb"; }
ok "running a module never loads LLVM" module
stranger() { NYBBLE_CACHE=$dir/stranger "$nybble" run "$dir/small.nyb" --input x="$dir/x.npy" --output-dir "$dir/out3" && same "$dir/out3/a_y.npy"; }
ok "another user's module is compiled again from its portable graph" stranger
ok "the runtime sample runs it" "$build/samples/embed_runtime" "$dir/small.nyb" N=4
ok "hello" "$build/samples/hello" "$dir/small.onnx"
for t in x86-64-v2 x86-64-v3 x86-64-v4 aarch64; do ok "compile for $t" "$nybble" compile "$dir/small.onnx" -o "$dir/$t.nyb" --target "$t"; done
exits "code for another machine is refused by name" 1 "aarch64" env NYBBLE_CACHE="$dir/none" "$build/samples/embed_runtime" "$dir/aarch64.nyb"
exits "unknown target" 1 "unknown target" "$nybble" compile "$dir/small.onnx" -o "$dir/t.nyb" --target pdp11

# several targets in one file
ok "compile for two CPUs" "$nybble" compile "$dir/small.onnx" -o "$dir/two.nyb" --target cpu,x86-64-v2
prints "both are listed" "x86-64-v2: [0-9]* kernels" "$nybble" inspect "$dir/two.nyb"
prints "the choice is told" "runs     on cpu: code for" "$nybble" inspect "$dir/two.nyb" --verify
two() { "$nybble" inspect "$dir/two.nyb" --json | python -c 'import json, sys; m = json.load(sys.stdin); sys.exit(len(m["programs"]) != 2 or not m["choice"])'; }
ok "inspect of two programs as JSON" two
# Precision: a product reads its codes; a TopK of quantised weights cannot.
cat >"$dir/codes.nyt" <<'NYT'
graph codes(%x: f32[2,8]) {
  %c = const data=[1,2,3,4,5,6,7,-1,-2,-3,1,2,3,4,5,6,7,-1,-2,-3,1,2,3,4] : i4[8,3]
  %s = const data=[0.5,1,2,4,8,16] : f16[2,3]
  %w = dequantize %c, %s axis=0 block=4 : f32[8,3]
  %y = matmul %x, %w : f32[2,3] loc("product","MatMul",1,0)
  ret %y names=[y]
}
NYT
sed -e 's/%y = matmul.*/%y, %i = topk %w axis=0 : f32[2,3], i64[2,3] loc("best","TopK",1,0)/' "$dir/codes.nyt" >"$dir/unpacked.nyt"
ok "codes are read by a product" "$nybble" compile "$dir/codes.nyt" -o "$dir/codes.nyb" --strict
prints "what a product was asked for is told" "product (MatMul): f32 x i4/4 asked, .* done: codes are decoded" "$nybble" inspect "$dir/codes.nyb" --precision
told() { "$nybble" inspect "$dir/codes.nyb" --precision --json | python -c 'import json, sys; p = json.load(sys.stdin)["precision"]; sys.exit(len(p) != 1 or p[0]["node"] != "product")'; }
ok "and as JSON" told
# Two models: half as much again in every scale is an error of a half, and no fault of the codes.
sed -e 's/data=\[0.5,1,2,4,8,16\]/data=[0.75,1.5,3,6,12,24]/' "$dir/codes.nyt" >"$dir/louder.nyt"
sed -e 's/4,8,16\]/4,8,0]/' "$dir/codes.nyt" >"$dir/other.nyt"
apart() { # two models, expression of the first layer l and result r
  "$nybble" diff "$1" "$2" --layers --json | python -c "import json, sys; d = json.load(sys.stdin); l, r = d['layers'][0], d['results'][0]; sys.exit(not ($3))"
}
near="abs(r['error'] - 0.5) < 1e-3 and abs(l['own'] - 0.5) < 1e-3 and l['inputs'] == 0 and abs(l['scales'] - 0.5) < 1e-3 and l['elements'] < 1e-3"
ok "diff blames the scales" apart "$dir/codes.nyt" "$dir/louder.nyt" "$near and l['name'] == 'product' and l['to'] == 'i4/4'"
ok "diff of compiled models" apart "$dir/codes.nyb" "$dir/louder.nyt" "$near"
ok "diff of a model and itself" apart "$dir/codes.nyt" "$dir/codes.nyb" "r['error'] == 0 and l['weights'] == 0"
prints "diff as a table" "product *matmul *i4/4" "$nybble" diff "$dir/codes.nyt" "$dir/other.nyt" --layers
exits "diff wants sizes" 1 "input x: dimension 0 is N" "$nybble" diff "$dir/small.onnx" "$dir/small.onnx"
exits "--strict refuses to unpack" 1 "i4/4 becomes f32: no kernel reads these codes" "$nybble" compile "$dir/unpacked.nyt" -o "$dir/unpacked.nyb" --strict
ok "without it they are unpacked" "$nybble" compile "$dir/unpacked.nyt" -o "$dir/unpacked.nyb"
ok "run of the one that fits" "$nybble" run "$dir/two.nyb" --input x="$dir/x.npy" --output-dir "$dir/out5"
ok "outputs of that one match" same "$dir/out5/a_y.npy"
exits "a plain FP4 target names the fix" 1 "use sm_120f" "$nybble" compile "$dir/small.onnx" -o "$dir/t.nyb" --target cpu,sm_120
exits "no such device" 1 "tpu" "$nybble" run "$dir/small.onnx" --device tpu

# what cannot be kept in the cache is compiled all the same; what is to be watched is compiled although it is kept
mkdir -p "$dir/broken"; touch "$dir/broken/modules"
exits "a cache that cannot be written to" 0 "is not kept" env NYBBLE_CACHE="$dir/broken" "$nybble" run "$dir/small.onnx"
ok "run with dump" "$nybble" run "$dir/small.onnx" --dump "$dir/watched"
ok "a cached model is dumped too" test -s "$dir/watched/00-import.nyt"

# text at every stage: dump, resume from a stage, same result
ok "compile with dump and verification" "$nybble" compile "$dir/small.onnx" -o "$dir/d.nyb" --dump "$dir/dump" --verify
ok "stages were dumped" test -s "$dir/dump/00-import.nyt"
resume() { # from each dumped stage to a module that gives the same outputs
  local f n=0
  for f in "$dir"/dump/[0-9]*.nyt; do
    "$nybble" compile --from "$f" -o "$dir/r.nyb" && "$nybble" run "$dir/r.nyb" --input x="$dir/x.npy" --output-dir "$dir/out4" && same "$dir/out4/a_y.npy" || { echo "$f"; return 1; }
    n=$((n + 1))
  done
  [ "$n" -ge 10 ]
}
ok "every dumped stage resumes to the same result" resume
prints "print" "matmul" "$nybble" print "$dir/small.onnx"
prints "print of a stage" "group" "$nybble" print "$dir/small.onnx" --stage fuse

# a machine without a GPU is not ill
prints "doctor" "MemAvailable" "$nybble" doctor
doctor_json() { "$nybble" doctor --json | python -c 'import json, sys; d = json.load(sys.stdin); assert d["host"]["threads"] > 0 and isinstance(d["cuda"]["devices"], list)'; }
ok "doctor --json" doctor_json
prints "doctor lists simulated devices" "sim:h100" "$nybble" doctor --simulator
instructions() { # every instruction is tried on every device; those for Blackwell are not there on the H100
  "$nybble" doctor --simulator --json | python -c 'import json, sys
d = json.load(sys.stdin)["simulator"]["devices"]
v = [[i["verdict"] for i in x["instructions"].values()] for x in d]
assert len(v) == 3 and all(len(x) == len(v[0]) > 15 for x in v)
assert v[0] == v[2] == ["ok"] * len(v[0]) and v[1].count("ok") == len(v[1]) - 4 and v[1].count("not on this device") == 4'
}
ok "doctor tries instructions" instructions
simulated() { # the same results from every profile, if kernels for them can be compiled here
  "$nybble" doctor --json | grep -q nvrtc_path || return 0
  local p
  for p in gb10 h100 rtx5090; do
    "$nybble" run "$dir/small.onnx" --device "sim:$p" --input x="$dir/x.npy" --output-dir "$dir/out5" && same "$dir/out5/a_y.npy" || return 1
  done
}
ok "run on simulated devices" simulated
fat() { # one file for a CPU and two devices; what has no code in it is compiled from the graph, strangers' code is too
  "$nybble" doctor --json | grep -q nvrtc_path || return 0
  local d
  "$nybble" compile "$dir/small.onnx" -o "$dir/fat.nyb" --target cpu,sm_90a,sm_120f --dump "$dir/fat" --with-source || return 1
  test -s "$dir/fat/sm_90a/00-import.nyt" && ls "$dir"/fat/sm_120f/*.ptx >/dev/null || return 1
  "$nybble" inspect "$dir/fat.nyb" --device sim:h100 | grep -q "runs     on sim:h100: PTX compute_90a" || return 1
  "$nybble" inspect "$dir/fat.nyb" --device sim:gb10 --verify | grep -q "PTX compute_120 of the program for sm_120f" || return 1
  "$nybble" compile "$dir/small.onnx" -o "$dir/other.nyb" --target sm_90a --no-ptx || return 1
  "$nybble" inspect "$dir/other.nyb" --device sim | grep -q "takes PTX only" || return 1
  for d in cpu sim:h100 sim:gb10; do
    "$nybble" run "$dir/fat.nyb" --device $d --input x="$dir/x.npy" --output-dir "$dir/out6" && same "$dir/out6/a_y.npy" || return 1
    "$nybble" run "$dir/other.nyb" --device $d --input x="$dir/x.npy" --output-dir "$dir/out7" && same "$dir/out7/a_y.npy" || return 1
    NYBBLE_CACHE=$dir/stranger "$nybble" run "$dir/fat.nyb" --device $d --input x="$dir/x.npy" --output-dir "$dir/out8" && same "$dir/out8/a_y.npy" || return 1
  done
}
ok "a file for a CPU and devices" fat

# installation: a consumer builds with CMake and with pkg-config; only nyb_ symbols leave the libraries
ok "install" cmake --install "$build" --prefix "$dir/prefix"
mkdir -p "$dir/consumer"
printf 'cmake_minimum_required(VERSION 3.25)\nproject(c C)\nfind_package(nybble REQUIRED)\nadd_executable(hello %s/samples/hello.c)\ntarget_link_libraries(hello PRIVATE nybble::nybble)\n' "$PWD" >"$dir/consumer/CMakeLists.txt"
ok "find_package" cmake -S "$dir/consumer" -B "$dir/consumer/b" -DCMAKE_PREFIX_PATH="$dir/prefix"
ok "consumer builds" cmake --build "$dir/consumer/b"
ok "consumer runs" env LD_LIBRARY_PATH="$(dirname "$(find "$dir/prefix" -name libnybble.so)")" "$dir/consumer/b/hello" "$dir/small.onnx"
pc() { PKG_CONFIG_PATH=$(dirname "$(find "$dir/prefix" -name nybble.pc)") pkg-config --libs --cflags nybble; }
compile_pc() { cc samples/hello.c -o "$dir/hello_pc" $(pc); }
ok "pkg-config" compile_pc
only_nyb() { ! nm -D --defined-only "$build/lib$1.so" | awk '{print $3}' | grep -v -e '^nyb_' -e '^NYBBLE_' | grep -q .; }
ok "libnybble exports nyb_ only" only_nyb nybble
ok "libnybble_rt exports nyb_ only" only_nyb nybble_rt
small_rt() { strip -o "$dir/rt.so" "$build/libnybble_rt.so" && [ "$(stat -c %s "$dir/rt.so")" -lt 600000 ]; }
ok "libnybble_rt is under 600 KB stripped" small_rt
light_rt() { ! ldd "$build/libnybble_rt.so" | grep -qE 'LLVM|nvrtc|protobuf'; }
ok "libnybble_rt links no compiler" light_rt
echo "cli: $passed passed, $failed failed"
[ "$failed" = 0 ]
