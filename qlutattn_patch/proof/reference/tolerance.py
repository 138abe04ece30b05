"""The tolerance of kernels that round their vectors to int8, element by element (docs/align.md)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qlutattn_patch.proof.reference import int8
from qlutattn_patch.proof.reference.attention import HeadRows, Packed, Problem, Segment, bias, each_head, queries
from qlutattn_patch.proof.reference.steps import step
from qlutattn_patch.proof.reference.tile import SIZE, UNIT, Double, Tiles

SIGMAS = 6.0
FLOAT_TERM = 2e-5
SCORE_EPS = 2.0**-22


def judged(problem: Problem) -> tuple[Double, Double]:
    """The result and its tolerance, both [batch, query, head, channel]."""
    batch, n_head, n_q = problem.q.shape[:3]
    out, allowed = np.zeros((2, batch, n_q, n_head, problem.head_dim_v))
    for b, h, rows in each_head(problem):
        out[b, :, h] = rows.out
        allowed[b, :, h] = _tolerance(problem, b, h, rows)
    return out, allowed


def lane_variance(tiles: Tiles, depth: slice) -> Double:
    """The variance of each lane's sum [..., lane] over a part of the depth, for a rounding step of 1."""
    scale = np.nan_to_num(tiles.scale.astype(np.float64))
    squares = np.square(np.asarray(tiles.code.levels, np.float64) / UNIT)
    lanes: Double = np.square(scale) * squares[tiles.codes[..., depth]].sum(axis=-1) / 12
    return lanes


def _tolerance(problem: Problem, b: int, h: int, rows: HeadRows) -> Double:
    if not len(rows.values):
        return np.zeros_like(rows.out)
    with np.errstate(invalid="ignore", over="ignore"):
        good = np.asarray(np.isfinite(rows.weights).all(axis=1))
        p = np.where(good[:, None], rows.weights, 0.0)
        log_p = np.where(good[:, None], rows.log_weights, -np.inf)
        values = np.nan_to_num(rows.values, nan=0.0, posinf=0.0, neginf=0.0)
        out = np.nan_to_num(rows.out, nan=0.0, posinf=0.0, neginf=0.0)
        noise = np.where(rows.visible, _score_variance(problem, b, h), 0.0)

        first = _spread(np.square(p) * noise, values, out) + _value_variance(problem, b, h, p)
        first = first + _own_channels(problem, b, h, p, values, out)
        rounding = FLOAT_TERM * (np.abs(out) + p @ _value_sizes(problem, b, h))
        total: Double = SIGMAS * np.sqrt(first) + rounding + _second_order(p, log_p, noise, rows, values, out)
        return total


def _spread(weights: Double, values: Double, out: Double) -> Double:
    """Sum over tokens of weight * (value - out)**2, query by channel."""
    middle = values.mean(axis=0)
    v, o = values - middle, out - middle
    total: Double = weights @ np.square(v) - 2 * o * (weights @ v) + np.square(o) * weights.sum(axis=1, keepdims=True)
    return np.maximum(total, np.float64(0))


def _second_order(p: Double, log_p: Double, noise: Double, rows: HeadRows, values: Double, out: Double) -> Double:
    sigma = np.sqrt(noise.max(axis=1, keepdims=True, initial=0.0))
    reach = 3 * sigma * (1 + 2 * np.minimum(1.0, sigma))
    grown = np.exp(np.minimum(log_p + reach, 300.0)) - p * (1 + reach)  # even a weight of 1e-99 may dominate
    excess = np.where(reach < 1, p * (np.expm1(np.minimum(reach, 1.0)) - reach), np.maximum(grown, 0.0))
    bound = np.sqrt(excess.sum(axis=1, keepdims=True) * _spread(excess, values, out))
    seen = rows.visible.any(axis=0)
    if not seen.any():
        return np.zeros_like(out)
    hull = np.maximum(values[seen].max(axis=0) - out, out - values[seen].min(axis=0))
    capped: Double = np.minimum(bound, np.where(sigma > 0, hull, 0.0))
    return capped


def _score_variance(problem: Problem, b: int, h: int) -> Double:
    """The variance of each score: the tables of K, and float32."""
    columns = []
    for segment in problem.segments:
        added = bias(problem, segment, b, h)
        size = _score_size(problem, segment, b, h) * abs(problem.scale) + np.where(np.isfinite(added), abs(added), 0.0)
        noise = np.square(SCORE_EPS * size)
        if segment.packed_k is not None:
            noise = noise + problem.scale**2 * _tile_variance(problem, segment, segment.packed_k, b, h)
        noise = noise + problem.scale**2 * int8.score_variance(problem, segment, b, h)
        columns.append(noise)
    if problem.sinks is not None:
        columns.append(np.zeros((problem.q.shape[2], 1)))
    variance: Double = np.nan_to_num(np.concatenate(columns, axis=1), posinf=0.0)
    return variance


def _tile_variance(problem: Problem, segment: Segment, packed: Packed, b: int, h: int) -> Double:
    total = np.zeros((problem.q.shape[2], segment.keys.shape[2]))
    for column, part, channels in head_slices(problem.kv_head(h), packed.head_dim):
        lanes = lane_variance(_column(packed.tiles, b, column), part).reshape(-1)
        for q, tokens in queries(problem, segment, b, h):
            total[:, tokens] += np.square(step(q[:, channels], packed.kernel))[:, None] * lanes[tokens]
    return total


def _value_variance(problem: Problem, b: int, h: int, p: Double) -> Double:
    """The variance of the result [query, channel] from the tables of V."""
    total = np.zeros((len(p), problem.head_dim_v))
    start = 0
    for segment in problem.segments:
        end = start + segment.keys.shape[2]
        if segment.is_latent and segment.packed_k is not None and end > start:
            total += _latent_variance(problem, segment, segment.packed_k, b, h, p[:, start:end])
        if segment.packed_v is not None and end > start:
            steps = step(p[:, start:end].reshape(len(p), -1, SIZE), segment.packed_v.kernel)
            for column, part, channels in head_slices(problem.kv_head(h), problem.head_dim_v):
                lanes = lane_variance(_column(segment.packed_v.tiles, b, column), slice(0, SIZE))
                total[:, channels] += np.square(steps) @ lanes[:, part]
        total += int8.value_variance(problem, segment, b, h, p[:, start:end])
        start = end
    return total


def _own_channels(problem: Problem, b: int, h: int, p: Double, values: Double, out: Double) -> Double:
    """The variance [query, channel] from channels of q whose rounding moves the weights by their own values."""
    total = np.zeros_like(out)
    start = 0
    for segment in problem.segments:
        end = start + segment.keys.shape[2]
        if segment.is_latent and segment.packed_k is not None:
            v = values[start:end]
            moved = p[:, start:end] @ np.square(v) - out * (p[:, start:end] @ v)
            for _, _, channels in head_slices(problem.kv_head(h), segment.packed_k.head_dim):
                steps = step(problem.q[b, h][:, channels], segment.packed_k.kernel)
                total[:, channels] += (problem.scale * steps[:, None] * moved[:, channels]) ** 2 / 12
        if segment.is_latent:
            total += problem.scale**2 * int8.own_channels(problem, segment, b, h, p[:, start:end], out)
        start = end
    return total


def _latent_variance(problem: Problem, segment: Segment, packed: Packed, b: int, h: int, p: Double) -> Double:
    """The variance [query, channel] from the weights of packed keys that are values: each has its token's scale."""
    total = np.zeros((len(p), problem.head_dim_v))
    squares = np.square(np.asarray(packed.tiles.code.levels, np.float64) / UNIT)
    for column, part, channels in head_slices(problem.kv_head(h), packed.head_dim):
        tiles = _column(packed.tiles, b, column)
        weights = np.where(p == 0, 0.0, p * np.nan_to_num(tiles.scale.astype(np.float64)).reshape(-1))
        steps = step(weights.reshape(len(p), -1, SIZE), "dot")
        noise = squares[tiles.codes[..., part]].sum(axis=1) / 12  # [tile, channel]
        kept = total[:, channels].shape[1]
        total[:, channels] += np.square(steps) @ noise[:, :kept]
    return total


def _score_size(problem: Problem, segment: Segment, b: int, h: int) -> Double:
    """A bound on the sum of the magnitudes of each score's float32 summands."""
    keys = np.abs(segment.keys[b, problem.kv_head(h)])
    if segment.packed_k is None:
        plain: Double = np.abs(problem.q[b, h]) @ keys.T
        for tokens in int8.blocks(problem, segment, b, h):
            plain[:, tokens] = 2 * np.abs(problem.q[b, h]).sum(axis=1, keepdims=True) * keys[tokens].max()
        return plain
    total = np.zeros((problem.q.shape[2], keys.shape[0]))
    for column, _, channels in head_slices(problem.kv_head(h), segment.packed_k.head_dim):
        k = _column(segment.packed_k.tiles, b, column)
        lanes = (2 * k.scale.astype(np.float64) + np.abs(k.offset.astype(np.float64))).reshape(-1)
        for q, tokens in queries(problem, segment, b, h):
            total[:, tokens] += np.abs(q[:, channels]).sum(axis=1, keepdims=True) * lanes[tokens]
    return total


def _value_sizes(problem: Problem, b: int, h: int) -> Double:
    """The magnitudes of the float32 summands, by token and channel."""
    kv = problem.kv_head(h)
    sizes = [
        np.abs((segment.values if segment.value_sizes is None else segment.value_sizes)[b, kv])
        for segment in problem.segments
    ]
    if problem.sinks is not None:
        sizes.append(np.zeros((1, problem.head_dim_v)))
    every: Double = np.nan_to_num(np.concatenate(sizes), posinf=0.0)
    return every


def _column(tiles: Tiles, b: int, column: int) -> Tiles:
    at = (b, column)
    return Tiles(tiles.code, tiles.codes[at], tiles.scale[at], tiles.offset[at])


def head_slices(kv_head: int, head_dim: int) -> Iterator[tuple[int, slice, slice]]:
    """The location of a kv head: column of tiles, slice of that column's 128 channels, channels of the head."""
    first, end = kv_head * head_dim, (kv_head + 1) * head_dim
    at = first
    while at < end:
        column, inside = divmod(at, SIZE)
        width = min(SIZE - inside, end - at)
        yield column, slice(inside, inside + width), slice(at - first, at - first + width)
        at += width
