"""Float64 attention against loops over single scores, and what is defined about masks and about NaN and infinity."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from align_helpers import causal, packed, problem, to_columns

from qlutattn_patch.proof.reference.attention import Packed, Problem, Segment, attend, slope
from qlutattn_patch.proof.reference.tile import Kind
from qlutattn_patch.proof.reference.tolerance import judged

K, V = "qlutattn_k2_128x128", "qlutattn_v2_128x128"


def slow(p: Problem) -> np.ndarray:
    """One score at a time."""
    batch, n_head, n_q, channels = p.q.shape
    out = np.zeros((batch, n_q, n_head, channels))
    group = n_head // p.n_head_kv
    for b, h, i in np.ndindex(batch, n_head, n_q):
        seen: list[tuple[float, np.ndarray]] = []
        for segment in p.segments:
            for t in range(segment.keys.shape[2]):
                added = 0.0
                if segment.mask is not None:
                    added = segment.mask[b % segment.mask.shape[0], h % segment.mask.shape[1], i, t]
                if added == -math.inf:
                    continue
                dot = sum(
                    float(a) * float(c) for a, c in zip(p.q[b, h, i], segment.keys[b, h // group, t], strict=True)
                )
                score = dot * p.scale if not p.softcap else p.softcap * math.tanh(dot * p.scale / p.softcap)
                seen.append((score + slope(h, n_head, p.max_bias) * added, segment.values[b, h // group, t]))
        if not seen:
            continue
        top = max(score for score, _ in seen)
        total = sum(math.exp(score - top) for score, _ in seen)
        if p.sinks is not None:
            total += math.exp(p.sinks[h] - top)
        out[b, i, h] = sum(math.exp(score - top) * value for score, value in seen) / total
    return out


def two_batches(rng: np.random.Generator, head_dim: int, mask_heads: int) -> Problem:
    def mask(tokens: int) -> np.ndarray:
        values = np.where(rng.random((2, mask_heads, 5, tokens)) < 0.3, -np.inf, -3 * rng.random((1, 1, 1, tokens)))
        values[:, :, 2] = -np.inf
        return values

    q = rng.standard_normal((2, 8, 3, head_dim))
    tiled = to_columns(rng.standard_normal((2, 2, 128, head_dim)).astype(np.float32))
    window = rng.standard_normal((2, 2, 2, 7, head_dim))
    k, v = Packed(packed(Kind.of(K), tiled), "lut", head_dim), Packed(packed(Kind.of(V), tiled[::-1]), "lut", head_dim)
    segments = (Segment(window[0], window[1], mask(7)), Segment.of_tiles(k, v, 2, mask(128)))
    return Problem(q, segments, 0.3, 2, max_bias=4.0, softcap=2.0, sinks=rng.standard_normal(8))


@pytest.mark.parametrize(("head_dim", "mask_heads"), [(64, 1), (128, 2), (256, 8), (192, 2)])
@pytest.mark.parametrize("sinks", [False, True])
def test_as_the_loops_have_it(head_dim: int, mask_heads: int, sinks: bool) -> None:
    p = two_batches(np.random.default_rng(head_dim), head_dim, mask_heads)
    p = p if sinks else replace(p, sinks=None)
    found = attend(p)
    np.testing.assert_allclose(found, slow(p), rtol=1e-11, atol=1e-13)
    assert not found[:, 2].any()  # the row whose masks hide everything
    assert np.abs(found[:, :2]).min() > 0


def test_split_of_the_segments_does_not_matter() -> None:
    p = two_batches(np.random.default_rng(5), 128, 1)
    joined = Segment(
        *(np.concatenate([getattr(s, name) for s in p.segments], 2) for name in ("keys", "values")),
        np.concatenate([s.mask for s in p.segments if s.mask is not None], 3),
    )
    np.testing.assert_allclose(attend(replace(p, segments=(joined,))), attend(p), rtol=1e-12)


def test_turned_queries_are_turned_keys() -> None:
    p = two_batches(np.random.default_rng(8), 64, 1)
    window, tiled = p.segments
    shifts = np.array([[1], [2]])  # one tile in each batch
    shifted = np.stack([np.roll(p.q, 3, axis=-1), -p.q])
    found = attend(replace(p, q_shifted=shifted, segments=(window, replace(tiled, shifts=shifts))))
    keys = np.stack([np.roll(tiled.keys[0], -3, axis=-1), -tiled.keys[1]])
    np.testing.assert_allclose(found, attend(replace(p, segments=(window, replace(tiled, keys=keys)))), rtol=1e-12)
    assert np.abs(found - attend(p)).max() > 0.1


@pytest.mark.parametrize(
    ("n_head", "max_bias", "expected"),
    [
        (8, 8.0, [2.0**-i for i in range(1, 9)]),
        (4, 8.0, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]),
        # 6 heads: 4 as if there were 4, then every other one as if there were 8
        (6, 8.0, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]),
        (3, 0.0, [1.0, 1.0, 1.0]),
    ],
)
def test_slopes(n_head: int, max_bias: float, expected: list[float]) -> None:
    assert [slope(h, n_head, max_bias) for h in range(n_head)] == pytest.approx(expected, rel=1e-15)


def test_a_hidden_key_may_hold_anything() -> None:
    rng = np.random.default_rng(6)
    p = problem(rng, K, V, n_q=4, mask=causal(4, 16, 2), maskp=causal(4, 128, 60))
    expected = attend(p)
    for segment, hidden in zip(p.segments, (slice(7, None), slice(65, None)), strict=True):
        segment.keys[:, :, hidden] = np.array([np.nan, np.inf, -np.inf, 1.0] * 32)
        segment.values[:, :, hidden] = np.array([np.inf, np.nan] * 64)
    np.testing.assert_array_equal(attend(p), expected)


def poisoned(side: str, at: tuple[int, int]) -> Problem:
    """Four queries that see the first 0, 1, 128 and 129 packed tokens, and a NaN at (token, channel) of one source."""
    rng = np.random.default_rng(7)
    sources = rng.standard_normal((2, 1, 2, 256, 64)).astype(np.float32)
    sources["kv".index(side), 0, 1, at[0], at[1]] = np.nan
    k, v = (Packed(packed(Kind.of(t), to_columns(s)), "lut", 64) for t, s in zip((K, V), sources, strict=True))
    maskp = np.full((1, 1, 4, 256), -np.inf)
    for row, count in enumerate((0, 1, 128, 129)):
        maskp[..., row, :count] = 0
    window = rng.standard_normal((2, 1, 2, 3, 64))
    q = rng.standard_normal((1, 2, 4, 64))
    return Problem(q, (Segment(window[0], window[1]), Segment.of_tiles(k, v, 2, maskp)), 0.1, 2)


def test_a_poisoned_k_lane_is_nan_for_the_rows_that_see_its_token() -> None:
    found = np.isnan(attend(poisoned("k", (127, 3))))
    # both heads: their halves lie in the same lane
    assert found.all(axis=(2, 3))[0].tolist() == [False, False, True, True]
    assert not found[0, :2].any()


def test_a_poisoned_v_lane_is_nan_for_the_rows_that_see_its_tile() -> None:
    found = np.isnan(attend(poisoned("v", (127, 3))))
    expected = np.zeros_like(found)
    expected[0, 1:, 1, 3] = True  # from the first token of the tile on, in that head and channel alone
    np.testing.assert_array_equal(found, expected)

    found = np.isnan(attend(poisoned("v", (128, 3))))
    expected[0, 1:3] = False  # the second tile is seen by the last query only
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (np.nan, 0.0, np.nan),
        (1.0, np.nan, np.nan),
        (1.0, np.inf, np.inf),
        (1.0, -np.inf, -np.inf),
        (np.inf, 0.0, np.nan),
        (-np.inf, 0.0, 5.0),
    ],
)
def test_what_is_not_finite_in_the_window(key: float, value: float, expected: float) -> None:
    keys, values = np.full((1, 1, 2, 64), 1.0), np.full((1, 1, 2, 64), 5.0)
    keys[0, 0, 1, 0] = key
    values[0, 0, 1, 0] = value
    found = attend(Problem(np.ones((1, 1, 1, 64)), (Segment(keys, values),), 0.1, 1))
    np.testing.assert_array_equal(found[0, 0, 0, 0], expected)


def test_infinities_of_both_signs_are_nan() -> None:
    values = np.array([np.inf, -np.inf])[None, None, :, None] * np.ones(64)
    found = attend(Problem(np.ones((1, 1, 1, 64)), (Segment(np.ones((1, 1, 2, 64)), values),), 0.1, 1))
    assert np.isnan(found).all()


def test_no_tokens_at_all_give_zeros() -> None:
    nothing = np.zeros((1, 1, 0, 64))
    for segments in ((), (Segment(nothing, nothing),)):
        for sinks in (None, np.zeros(1)):
            p = Problem(np.ones((1, 1, 2, 64)), segments, 0.1, 1, sinks=sinks)
            for result in (attend(p), *judged(p)):
                assert result.shape == (1, 2, 1, 64)
                assert not result.any()
