"""The OCR recogniser of rapidocr: lines of text rendered here, with noise, read by the original and by the quantised model. How many lines come out exactly, and the
edit distance per character, against what was rendered. Needs Pillow; its built-in font is enough, others found on the system are used too."""
import pathlib
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import text

HEIGHT, WIDTH = 48, 320


def model():
    import importlib.util

    return pathlib.Path(importlib.util.find_spec("rapidocr_onnxruntime").origin).parent / "models/ch_PP-OCRv4_rec_infer.onnx"


def alphabet(path):
    import onnx

    m = onnx.load(path)
    chars = next(p.value for p in m.metadata_props if p.key == "character").splitlines()
    return [""] + chars + [" "]


def fonts(size):
    found = sorted(pathlib.Path("/usr/share/fonts/truetype/dejavu").glob("DejaVu*.ttf"))
    return [ImageFont.truetype(str(p), size) for p in found] + [ImageFont.load_default(size)]


def lines(part, n):
    """The words of a line come from sentences of this part; some lines are numbers."""
    rng = random.Random(part)
    words = [w.strip(".,;:()'\"") for s in text.sentences(part, 300) for w in s.split()]
    words = [w for w in words if w.isascii() and 2 <= len(w) <= 12]
    for _ in range(n):
        line = ""
        while True:
            w = rng.choice(words) if rng.random() < 0.8 else f"{rng.randrange(10 ** rng.randint(1, 6))}"
            if len(line) + len(w) > rng.randint(8, 24):
                break
            line = (line + " " + w).strip()
        yield line or rng.choice(words)


def render(line, rng):
    size = rng.randint(20, 40)
    font = rng.choice(fonts(size))
    box = font.getbbox(line)
    pad = rng.randint(2, 8)
    ink, paper = sorted(rng.sample(range(256), 2))
    if paper - ink < 70:
        ink, paper = max(0, ink - 60), min(255, paper + 60)
    if rng.random() < 0.3:
        ink, paper = paper, ink
    im = Image.new("L", (box[2] - box[0] + 2 * pad, box[3] - box[1] + 2 * pad), paper)
    ImageDraw.Draw(im).text((pad - box[0], pad - box[1]), line, fill=ink, font=font)
    im = im.rotate(rng.uniform(-1.5, 1.5), resample=Image.BILINEAR, fillcolor=paper).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.6)))
    return np.asarray(im, np.float32)


def image(line, rng):
    a = render(line, rng)
    noise = np.random.default_rng(rng.randrange(1 << 30)).normal(0, rng.uniform(0, 28), a.shape)
    im = Image.fromarray(np.clip(a + noise, 0, 255).astype(np.uint8))
    width = min(WIDTH, max(16, round(im.width * HEIGHT / im.height)))
    a = np.asarray(im.resize((width, HEIGHT), Image.BILINEAR), np.float32) / 127.5 - 1
    out = np.zeros((3, HEIGHT, WIDTH), np.float32)
    out[:, :, :width] = a
    return out


def pictures(part, n):
    rng = random.Random(part + " pictures")
    truth = list(lines(part, n))
    return truth, np.stack([image(t, rng) for t in truth])


def calibration(where, n=96):
    where.mkdir(parents=True, exist_ok=True)
    x = pictures("calibration", n)[1]
    for i in range(0, n, 8):
        np.savez(where / f"{i:03}.npz", x=x[i : i + 8])
    return where


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def read(probabilities, chars):
    out = []
    for best in probabilities.argmax(-1):
        kept = [c for i, c in enumerate(best) if c and (not i or c != best[i - 1])]
        out.append("".join(chars[c] for c in kept))
    return out


def readings(run, x, chars, batch=80):
    """What a model reads in pictures; run gives the probabilities of some of them."""
    return [line for i in range(0, len(x), batch) for line in read(run(x[i : i + batch]), chars)]


def score(truth, got, original):
    """lines and chars against what was rendered; same and drift against what the original model reads."""

    def error(a, b):
        return sum(distance(x, y) for x, y in zip(a, b)) / sum(map(len, a))

    return {
        "lines": float(np.mean([a == b for a, b in zip(truth, got)])),
        "chars": error(truth, got),
        "same": float(np.mean([a == b for a, b in zip(original, got)])),
        "drift": error(original, got),
    }
