"""Attention in float64 over any segments of keys and values under one softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlutattn_patch.proof.reference.quantise import heads
from qlutattn_patch.proof.reference.tile import SIZE, Double, Tiles


@dataclass(frozen=True)
class Packed:
    """What keys or values of this head size were decoded from, and the kernel ("lut", "dot7-avx2", …) that reads it."""

    tiles: Tiles
    kernel: str
    head_dim: int


@dataclass(frozen=True)
class Segment:
    """Keys and values [batch, kv head, token, channel], and a mask [.., .., at least n_q, token] or None."""

    keys: Double
    values: Double
    mask: Double | None = None
    packed_k: Packed | None = None
    packed_v: Packed | None = None
    value_sizes: Double | None = None  # as Tiles.sizes; None is the values' own magnitudes
    is_latent: bool = False  # the values are the first channels of the keys
    shifts: NDArray[np.integer[Any]] | None = None  # [batch, tile]: the set of queries that packed keys meet
    smoothing: float | None = None  # of f16 computed in 8 bits: the share of the keys' mean that is taken off them

    @classmethod
    def of_keys(cls, k: Packed, head_dim_v: int, n_head_kv: int, mask: Double | None = None) -> Segment:
        """The segment decoded from packed keys alone, of which the values are the first channels."""
        keys, sizes = (heads(each, "k", n_head_kv, k.head_dim) for each in (k.tiles.values(), k.tiles.sizes()))
        return cls(keys, keys[..., :head_dim_v], mask, k, None, sizes[..., :head_dim_v], is_latent=True)

    @classmethod
    def of_tiles(cls, k: Packed | Double, v: Packed | Double, n_head_kv: int, mask: Double | None = None) -> Segment:
        """The segment decoded from packed tiles; one side may be plain keys or values."""
        keys = heads(k.tiles.values(), "k", n_head_kv, k.head_dim) if isinstance(k, Packed) else k
        packed_k = k if isinstance(k, Packed) else None
        if not isinstance(v, Packed):
            return cls(keys, v, mask, packed_k)
        values, sizes = (heads(each, "v", n_head_kv, v.head_dim) for each in (v.tiles.values(), v.tiles.sizes()))
        return cls(keys, values, mask, packed_k, v, sizes)


@dataclass(frozen=True)
class Problem:
    """One call of the mixed attention; `q` is [batch, head, query, channel]."""

    q: Double
    segments: tuple[Segment, ...]
    scale: float
    n_head_kv: int
    max_bias: float = 0.0
    softcap: float = 0.0
    sinks: Double | None = None
    q_shifted: Double | None = None  # [set, batch, head, query, channel]; the first is set 1

    @property
    def head_dim_v(self) -> int:
        """The channels of the values, and of the result."""
        return int(self.segments[0].values.shape[3] if self.segments else self.q.shape[3])

    def kv_head(self, head: int) -> int:
        return head // int(self.q.shape[1] // self.n_head_kv)


@dataclass(frozen=True)
class HeadRows:
    """The softmax of one head, query by token: the segments in order, then the sink as a token of value 0."""

    scores: Double
    visible: NDArray[np.bool_]
    log_weights: Double
    weights: Double
    values: Double
    out: Double


def attend(problem: Problem) -> Double:
    """The result, [batch, query, head, channel]."""
    batch, n_head, n_q = problem.q.shape[:3]
    out = np.zeros((batch, n_q, n_head, problem.head_dim_v))
    for b, h, rows in each_head(problem):
        out[b, :, h] = rows.out
    return out


def each_head(problem: Problem) -> Iterator[tuple[int, int, HeadRows]]:
    """The rows of each batch and head in turn."""
    batch, n_head = problem.q.shape[:2]
    for b in range(batch):
        for h in range(n_head):
            with np.errstate(invalid="ignore", over="ignore"):
                yield b, h, _head_rows(problem, b, h)


def slope(head: int, n_head: int, max_bias: float) -> float:
    """The ALiBi slope of a head, as in upstream."""
    if max_bias <= 0:
        return 1.0
    power = 1 << math.floor(math.log2(n_head))
    if head < power:
        return float((2.0 ** (-max_bias / power)) ** (head + 1))
    return float((2.0 ** (-max_bias / 2 / power)) ** (2 * (head - power) + 1))


def bias(problem: Problem, segment: Segment, b: int, h: int) -> Double:
    """The mask's addend to the scores [query, token]; -inf hides a key."""
    n_q = problem.q.shape[2]
    if segment.mask is None:
        return np.zeros((n_q, segment.keys.shape[2]))
    mask = segment.mask
    return slope(h, problem.q.shape[1], problem.max_bias) * mask[b % mask.shape[0], h % mask.shape[1], :n_q]


def queries(problem: Problem, segment: Segment, b: int, h: int) -> Iterator[tuple[Double, slice]]:
    """The queries of a head, and the tokens of a segment that meet them: all of it, or tile by tile."""
    if segment.shifts is None or segment.packed_k is None or problem.q_shifted is None:
        yield problem.q[b, h], slice(0, segment.keys.shape[2])
        return
    for tile, shift in enumerate(segment.shifts[b]):
        q = problem.q[b, h] if shift == 0 else problem.q_shifted[shift - 1, b, h]
        yield q, slice(tile * SIZE, (tile + 1) * SIZE)


def _head_rows(problem: Problem, b: int, h: int) -> HeadRows:
    kv = problem.kv_head(h)
    n_q = problem.q.shape[2]
    scores, visible = [np.zeros((n_q, 0))], [np.zeros((n_q, 0), np.bool_)]
    values = [np.zeros((0, problem.head_dim_v))]
    for segment in problem.segments:
        added = bias(problem, segment, b, h)
        dots = [q @ segment.keys[b, kv, tokens].T for q, tokens in queries(problem, segment, b, h)]
        scores.append(_capped(np.concatenate(dots, 1), problem) + added)
        visible.append(added != -np.inf)
        values.append(segment.values[b, kv])
    if problem.sinks is not None:
        scores.append(np.full((n_q, 1), problem.sinks[h]))
        visible.append(np.ones((n_q, 1), np.bool_))
        values.append(np.zeros((1, problem.head_dim_v)))
    return _softmax(np.concatenate(scores, 1), np.concatenate(visible, 1), np.concatenate(values, 0))


def _capped(dots: Double, problem: Problem) -> Double:
    if problem.softcap == 0:
        return dots * problem.scale
    capped: Double = problem.softcap * np.tanh(dots * (problem.scale / problem.softcap))
    return capped


def _softmax(scores: Double, visible: NDArray[np.bool_], values: Double) -> HeadRows:
    scores = np.where(visible, scores, -np.inf)
    seen = visible.any(axis=1, keepdims=True)
    top = scores.max(axis=1, keepdims=True, initial=-np.inf)
    raw = np.where(visible, np.exp(scores - top), 0.0)  # NaN where a visible score is NaN or +inf, or all are -inf
    total = np.where(seen, raw.sum(axis=1, keepdims=True), 1.0)
    weights = raw / total
    log_weights = np.where(visible, scores - top - np.log(total), -np.inf)

    out = weights @ np.where(np.isfinite(values), values, 0.0)
    if not np.isfinite(values).all():
        out = out + _not_finite(visible, values)
    return HeadRows(scores, visible, log_weights, weights, values, out)


def _not_finite(visible: NDArray[np.bool_], values: Double) -> Double:
    """The addend of non-finite values, per query and channel that sees them: NaN, inf or -inf; else 0."""
    result = np.zeros((len(visible), values.shape[1]))
    for kind in (np.inf, -np.inf, np.nan):
        there = np.isnan(values) if np.isnan(kind) else values == kind
        result = np.where(visible.astype(np.float64) @ there.astype(np.float64) > 0, result + kind, result)
    return result
