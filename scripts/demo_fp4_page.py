"""The page of the FP4 demo: one file, pictures inside, nothing fetched."""
import base64
import html
import io

import numpy as np
from PIL import Image

NAMES = {"f32": "f32", "rtn": "nearest", "best": "recipe"}
COLOURS = {"f32": "#8a94a3", "rtn": "#d1495b", "best": "#2a7f62"}

STYLE = """
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem; background: #fff; color: #20262e; font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem } p { max-width: 52rem; margin: .4rem 0 } .note { color: #5a6470; font-size: .9rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem } .wide { overflow-x: auto }
th { font-weight: 600; color: #5a6470; font-size: .82rem; line-height: 1.3; vertical-align: bottom } th, td { padding: .45rem .5rem; text-align: right; border-bottom: 1px solid #e3e7ec; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.rtn td.hurt { color: #b3243a; font-weight: 600 } tr.best td.hurt { color: #1d6b50; font-weight: 600 }
svg { max-width: 100%; height: auto; margin-top: 1.2rem } svg text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #20262e } svg .head { font-weight: 600 }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }
.lines { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem } .line { border: 1px solid #e3e7ec; border-radius: 8px; padding: .8rem 1rem }
.line img { display: block; max-width: 100%; height: 44px; border-radius: 3px; margin-bottom: .5rem } .reading { display: grid; grid-template-columns: 4.6rem 1fr; align-items: baseline }
.reading span { color: #5a6470; font-size: .82rem } code { font: 15px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere }
mark { background: #ffd6db; color: #a3142b; border-radius: 2px } mark.missing { background: #fff; outline: 1px dashed #d1495b; outline-offset: -1px; color: #d99aa4 }
"""


def picture(x):
    """One line as the model sees it, as a data URI; what is right of it was filled with zeros, which no pixel is."""
    ink = x[0][:, x[0].any(0)]
    out = io.BytesIO()
    Image.fromarray(np.clip(np.rint((ink + 1) * 127.5), 0, 255).astype(np.uint8)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def reading(cells):
    """Runs of what is wrong in the same way become one mark."""
    out, at = [], 0
    while at < len(cells):
        end = at
        while end < len(cells) and cells[end][1] == cells[at][1]:
            end += 1
        text, wrong = html.escape("".join(c for c, _ in cells[at:end])), cells[at][1]
        tip = {"wrong": "not what was rendered", "missing": "missing"}.get(wrong)
        out.append(f'<mark class="{wrong}" title="{tip}">{text}</mark>' if wrong else text)
        at = end
    return "".join(out)


def card(x, truth, readings):
    lines = "".join(f'<div class="reading {k}"><span>{NAMES[k]}</span><code>{reading(cells)}</code></div>' for k, cells in readings.items())
    return f'<div class="line"><img src="{picture(x)}" alt="{html.escape(truth, quote=True)}">{lines}</div>'


def table(rows):
    head = ["", "lines read<br>exactly", "character<br>error", "reads as<br>f32 does", "matmul, conv<br>weights", "bits a<br>weight", "file"]
    head += [f"one line,<br>{t} thread{'s' * (t > 1)}" for t in rows[0]["ms"]]
    body = []
    for r in rows:
        same = "" if r["kind"] == "f32" else f"{r['same']:.1%}"
        cells = [f"{r['lines']:.1%}", f"{r['chars']:.4f}", same, f"{r['weight_bytes'] / 1e6:.2f} MB", f"{r['bits']:.2f}", f"{r['file_bytes'] / 1e6:.2f} MB"]
        cells = "".join(f'<td{" class=hurt" if i < 3 else ""}>{c}</td>' for i, c in enumerate(cells)) + "".join(f"<td>{ms:.2f} ms</td>" for ms in r["ms"].values())
        body.append(f'<tr class="{r["kind"]}"><td><i class="dot" style="background:{COLOURS[r["kind"]]}"></i>{html.escape(r["name"])}</td>{cells}</tr>')
    return f'<div class="wide"><table><thead><tr>{"".join(f"<th>{h}</th>" for h in head)}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def chart(rows):
    """Lines read and bytes of the file, side by side; each panel has its own scale from zero."""
    panels = [
        ("lines read exactly", 0, lambda r: r["lines"], 1.0, lambda v: f"{v:.1%}", 180, 250),
        ("file, MB", 540, lambda r: r["file_bytes"] / 1e6, max(r["file_bytes"] for r in rows) / 1e6, lambda v: f"{v:.2f}", 0, 330),
    ]
    out = []
    for title, left, value, most, text, names, width in panels:
        x = left + names
        out.append(f'<text class="head" x="{x}" y="16">{title}</text><line x1="{x}" x2="{x}" y1="26" y2="130" stroke="#aab2bd"/>')
        for i, r in enumerate(rows):
            y, w = 32 + 34 * i, width * value(r) / most
            if names:
                out.append(f'<text x="{x - 10}" y="{y + 17}" text-anchor="end">{html.escape(r["name"])}</text>')
            out.append(f'<rect x="{x}" y="{y}" width="{w:.1f}" height="24" rx="2" fill="{COLOURS[r["kind"]]}"/><text x="{x + w + 8:.1f}" y="{y + 17}">{text(value(r))}</text>')
    return f'<svg viewBox="0 0 940 136" width="940" role="img" aria-label="lines read exactly, and size of the file">{"".join(out)}</svg>'


def page(rows, truth, x, readings, total, notes):
    """rows: the table; of the first lines truth, pictures x and aligned readings by kind."""
    cards = "".join(card(x[i], t, {k: v[i] for k, v in readings.items()}) for i, t in enumerate(truth))
    by = {r["kind"]: r for r in rows}
    lead = (
        f"A text recogniser reads {total} lines. Rounding its weights to 4-bit numbers leaves {by['rtn']['lines']:.0%} of them readable, where f32 reads {by['f32']['lines']:.0%}. "
        f"With scales and codes chosen on calibration lines, the same {by['best']['bits']:.1f} bits a weight read {by['best']['lines']:.0%}."
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>FP4 weights: a text recogniser</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>4-bit weights, read aloud</h1>\n<p>{lead}</p>\n{table(rows)}\n{chart(rows)}\n"
        + "".join(f'<p class="note">{html.escape(n)}</p>\n' for n in notes)
        + f'<h2>The first {len(truth)} of {total} lines</h2>\n<p class="note">The pictures are what the model is given. <mark class="wrong">Marked</mark> characters are wrong, '
        f'<mark class="missing">outlined</mark> ones are missing.</p>\n<div class="lines">{cards}</div>\n</body></html>\n'
    )
