"""silero_vad, its sequence model: synthetic speech (pulses through formants, with pauses, noise and hum), and how far the speech probabilities of a quantised model are
from the original's."""
import importlib.util
import pathlib

import numpy as np

RATE, FRAME, CONTEXT = 16000, 512, 64
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410), (440, 1020, 2240), (660, 1720, 2410), (490, 1350, 1690)]


def model():
    return pathlib.Path(importlib.util.find_spec("silero_vad").origin).parent / "data/silero_vad_16k_sequence.onnx"


def resonate(x, frequency, width):
    r = np.exp(-np.pi * width / RATE)
    a1, a2 = 2 * r * np.cos(2 * np.pi * frequency / RATE), -r * r
    y = np.zeros(len(x) + 2)
    for i, v in enumerate(x):
        y[i + 2] = (1 - r) * v + a1 * y[i + 1] + a2 * y[i]
    return y[2:]


def syllable(rng, pitch):
    n = int(RATE * rng.uniform(0.08, 0.25))
    f0 = pitch * (1 + 0.15 * np.sin(np.linspace(0, rng.uniform(1, 4), n))) * np.linspace(1, rng.uniform(0.8, 1.1), n)
    phase = np.cumsum(f0 / RATE)
    pulses = np.diff(np.floor(phase), prepend=0) + 0.02 * rng.standard_normal(n)
    voice = pulses
    for f, w in zip(VOWELS[rng.integers(len(VOWELS))], (80, 100, 140)):
        voice = voice * 0.2 + resonate(voice, f * rng.uniform(0.9, 1.1), w)
    hiss = rng.standard_normal(int(RATE * rng.uniform(0, 0.08))) * 0.05
    return np.concatenate([hiss, voice / (np.abs(voice).max() + 1e-9) * np.hanning(n) ** 0.5])


def audio(rng, seconds):
    out = rng.standard_normal(int(RATE * seconds)) * 10 ** rng.uniform(-4, -2.2)
    at, pitch = int(RATE * rng.uniform(0, 0.5)), rng.uniform(90, 240)
    while at < len(out):
        for _ in range(rng.integers(2, 9)):
            s = syllable(rng, pitch) * rng.uniform(0.1, 0.6)
            n = min(len(s), max(0, len(out) - at))
            out[at : at + n] += s[:n]
            at += n + int(RATE * rng.uniform(0, 0.05))
        at += int(RATE * rng.uniform(0.2, 1.2))
    return np.clip(out, -1, 1).astype(np.float32)


def frames(part, n, seconds=6):
    for i in range(n):
        x = audio(np.random.default_rng([len(part), i]), seconds)
        x = np.concatenate([np.zeros(CONTEXT, np.float32), x])
        rows = [x[k : k + CONTEXT + FRAME] for k in range(0, len(x) - CONTEXT - FRAME + 1, FRAME)]
        yield {"input": np.stack(rows), "h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}


def calibration(where, n=12):
    where.mkdir(parents=True, exist_ok=True)
    for i, f in enumerate(frames("calibration", n)):
        np.savez(where / f"{i:03}.npz", **f)
    return where


def score(reference, outputs):
    a, b = (np.concatenate([o["speech_probs"] for o in s]) for s in (reference, outputs))
    return {"apart": float(np.abs(a - b).mean()), "decisions": float(np.mean((a > 0.5) == (b > 0.5))), "speech": float(np.mean(a > 0.5))}
