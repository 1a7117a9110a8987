#!/usr/bin/env bash
# docs/adding-an-op.md, done: a row is added to ops.def in a scratch copy of the tree, and the op parses, prints, evaluates and compiles.
# usage: tests/add_op.sh      prints `add_op: N passed, N failed`
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$dir"
cd "$dir"
sed -i 's/^EW(hard_swish, .*/&\nEW(hard_tanh, 1, FLOAT, a < -1 ? 0 - 1 : a > 1 ? 1 : a)/' ir/ops.def
grep -q hard_tanh ir/ops.def
cmake --preset release -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >build.log
ninja -C build/release nybble-cli nybble_llvm >>build.log || { tail -20 build.log; exit 1; }
cat >op.nyt <<'NYT'
graph op(%x: f32[2,37]) {
  %y = hard_tanh %x : f32[2,37]
  ret %y names=[y]
}
NYT
passed=0 failed=0
ok() { if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1"; fi; }
export NYBBLE_CACHE=$dir/cache
n=build/release/nybble
ok "it is in the op table" grep -q hard_tanh <($n ops)
ok "it parses and prints" grep -q '%y = hard_tanh %x : f32\[2,37\]' <($n print op.nyt)
ok "it compiles and stays within [-1, 1]" grep -qE 'y +f32 +\[2,37\] +-1 +1 ' <($n run op.nyt)
ok "it evaluates to the same" grep -qE 'y +f32 +\[2,37\] +-1 +1 ' <($n run op.nyt --evaluate)
echo "add_op: $passed passed, $failed failed"
[ "$failed" = 0 ]
