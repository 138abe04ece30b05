"""What 8 bits add to the tolerance where keys and values are f16 (docs/align.md).

Keys without their mean and values are rounded, too, and the reference has the f16 ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qlutattn_patch.proof.reference.attention import Problem, Segment
from qlutattn_patch.proof.reference.steps import step
from qlutattn_patch.proof.reference.tile import SIZE, UNIT, Double

MAX_DRAFT = 64  # with so many queries and fewer, f16 stays f16
TOP = 127


def blocks(problem: Problem, segment: Segment, b: int, h: int) -> Iterator[slice]:
    """The tokens of a segment that are computed in 8 bits: whole blocks of what is finite."""
    if segment.smoothing is None or problem.q.shape[2] <= MAX_DRAFT:
        return
    at = (b, problem.kv_head(h))
    for first in range(0, segment.keys.shape[2] - SIZE + 1, SIZE):
        tokens = slice(first, first + SIZE)
        if np.isfinite(segment.keys[at][tokens]).all() and np.isfinite(segment.values[at][tokens]).all():
            yield tokens


def lane_step(largest: Double) -> Double:
    """The step between two codes of lanes whose largest magnitudes are these.

    If the scale is rounded down, the largest value loses more than half a step."""
    scale = (largest * (UNIT / TOP)).astype(np.float16).astype(np.float64) / UNIT
    return np.maximum(scale, 2 * (largest - TOP * scale))


def f16_step(x: Double) -> Double:
    """The distance of two neighbours in f16."""
    distance: Double = np.exp2(np.floor(np.log2(np.maximum(x, 2.0**-30))) - 10)
    return np.maximum(distance, 2.0**-24)


def score_variance(problem: Problem, segment: Segment, b: int, h: int) -> Double:
    """The variance of each q.k: the query's rounding, and the key's."""
    total = np.zeros((problem.q.shape[2], segment.keys.shape[2]))
    for tokens in blocks(problem, segment, b, h):
        for part, keys in _centred(problem, segment, b, h, tokens):
            x = problem.q[b, h][:, part]
            top = np.abs(keys).max(axis=1)
            rounded = np.square(lane_step(top)) + (np.square(f16_step(top)) if segment.smoothing else 0.0)
            total[:, tokens] += np.square(step(x, "dot"))[:, None] * np.square(keys).sum(axis=1) / 12
            total[:, tokens] += np.square(x).sum(axis=1, keepdims=True) * rounded / 12
    return total


def value_variance(problem: Problem, segment: Segment, b: int, h: int, p: Double) -> Double:
    """The variance of the result [query, channel]: the weights' rounding, and the values'."""
    total = np.zeros((len(p), problem.head_dim_v))
    for tokens in blocks(problem, segment, b, h):
        values = segment.values[b, problem.kv_head(h), tokens]
        total += np.square(step(p[:, tokens], "dot"))[:, None] * np.square(values).sum(axis=0) / 12
        rounded = np.square(lane_step(np.abs(values).max(axis=0))) / 12
        total += np.square(p[:, tokens]).sum(axis=1, keepdims=True) * rounded
    return total


def own_channels(problem: Problem, segment: Segment, b: int, h: int, p: Double, out: Double) -> Double:
    """Where values are keys: what a query's rounding of a channel moves that channel by, in units of the scale."""
    total = np.zeros_like(out)
    for tokens in blocks(problem, segment, b, h):
        for part, keys in _centred(problem, segment, b, h, tokens):
            shared = slice(part.start, min(part.stop, problem.head_dim_v))
            v = segment.values[b, problem.kv_head(h), tokens, shared]
            k = keys[:, : v.shape[1]]
            moved = p[:, tokens] @ (v * k) - out[:, shared] * (p[:, tokens] @ k)
            total[:, shared] += np.square(step(problem.q[b, h][:, part], "dot")[:, None] * moved) / 12
    return total


def _centred(problem: Problem, segment: Segment, b: int, h: int, tokens: slice) -> Iterator[tuple[slice, Double]]:
    """The keys of a block without the share of their mean, tile by tile."""
    keys = segment.keys[b, problem.kv_head(h), tokens]
    centred = keys - (segment.smoothing or 0.0) * keys.mean(axis=0)
    for first in range(0, keys.shape[1], SIZE):
        part = slice(first, min(first + SIZE, keys.shape[1]))
        yield part, centred[:, part]
