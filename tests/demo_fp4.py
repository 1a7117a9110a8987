#!/usr/bin/env python3
"""demo_fp4.py BUILD WORKDIR: the FP4 demo on few lines. What it says must hold: the recipe reads as well as f32, rounding to nearest does not, and the page shows it."""
import base64
import html
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import demo_fp4
import ocr

BUILD, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
LINES, SHOWN = 40, 12
passed = failed = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAIL", what)


def demo():
    sizes = ["--lines", LINES, "--calibration", 24, "--shown", SHOWN]
    files = ["--page", WORK / "page.html", "--keep", WORK / "kept", "--json", WORK / "figures.json"]
    return subprocess.run([sys.executable, ROOT / "scripts/demo_fp4.py", BUILD, *map(str, sizes + files)], capture_output=True, text=True)


def plain(markup):
    return html.unescape(re.sub("<[^>]*>", "", markup))


def alignment():
    rng = random.Random(3)
    for _ in range(300):
        a, b = ("".join(rng.choices("ab c", k=rng.randrange(9))) for _ in "ab")
        cells = demo_fp4.align(a, b)
        kept = "".join(c for c, wrong in cells if wrong != "missing")
        if kept != b or sum(1 for _, wrong in cells if wrong) != ocr.distance(a, b):
            return f"{a!r} {b!r}: {cells}"
    return None


def figures(rows, table):
    f32, rtn, best = (rows[k] for k in ("f32", "rtn", "best"))
    check(best["chars"] <= f32["chars"] + 0.05 and best["same"] > 0.7, f"the recipe: {best} beside {f32}")
    check(rtn["chars"] > best["chars"] + 0.1 and rtn["lines"] < 0.5 * f32["lines"], f"nearest: {rtn} beside {best}")
    check(best["bits"] == rtn["bits"] == 4.5 and best["file_bytes"] < f32["file_bytes"] / 4, f"sizes: {best} beside {f32}")
    for r in rows.values():
        line = next((x for x in table.splitlines() if x.startswith(r["name"] + " ")), "")
        check(f"{r['lines']:.1%}" in line and f"{r['chars']:.4f}" in line and f"{r['bits']:.2f}" in line and line.endswith("ms"), f"row of {r['name']}: {line!r}")


def page(rows, truth):
    text = (WORK / "page.html").read_text(encoding="utf-8")
    check(not re.search(r"(src|href)=\"(?!data:)|https?://|url\(|@import|<script", text), "the page fetches something")
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)">', text)
    check([html.unescape(alt) for _, alt in pictures] == truth[:SHOWN], "pictures of other lines than those")
    heads = [base64.b64decode(data)[:24] for data, _ in pictures]
    check(all(h[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(h[20:24], "big") == ocr.HEIGHT for h in heads), "pictures are not PNG of the model's height")
    check(text.count("<svg ") == 1 and text.count("<rect ") == 6, "not one chart of six bars")
    table = [[plain(cell) for cell in re.findall("<td.*?</td>", row)] for row in re.findall(r'<tr class="\w+">.*?</tr>', text)]
    check([(t[0], t[2]) for t in table] == [(r["name"], f"{r['chars']:.4f}") for r in rows.values()], f"table: {table}")
    got = {kind: [] for kind in rows}
    for kind, cells in re.findall(r'<div class="reading (\w+)"><span>\w+</span><code>(.*?)</code>', text):
        read = plain(re.sub(r'<mark class="missing".*?</mark>', "", cells))
        got[kind].append(read)
        line = truth[len(got[kind]) - 1]
        check(("<mark" in cells) == (read != line), f"{kind}: {cells} for {line}")
    right = {kind: sum(a == b for a, b in zip(truth, lines)) for kind, lines in got.items()}
    check(all(len(lines) == SHOWN for lines in got.values()) and right["best"] > right["rtn"], f"readings: {got}")


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    check(alignment() is None, alignment())
    first = demo()
    check(first.returncode == 0, first.stderr)
    if first.returncode == 0:
        j = json.loads((WORK / "figures.json").read_text())
        rows = {r["kind"]: r for r in j["rows"]}
        check(j["agree"] == LINES and j["difference"] <= demo_fp4.LIMIT, f"ONNX Runtime: {j['agree']} lines, {j['difference']}")
        figures(rows, first.stdout)
        page(rows, list(ocr.lines("evaluation", LINES)))
        again = demo()
        check(again.returncode == 0 and again.stderr.count("made before") == 4 and "made before" not in first.stderr, again.stderr)
    print(f"demo_fp4: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
