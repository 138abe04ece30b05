"""The tolerance against kernels that round as the real ones do: wide enough for them, too narrow for a wrong code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from align_helpers import causal, int8_attention, problem

from qlutattn_patch.proof.reference.attention import Packed, Problem, Segment, attend
from qlutattn_patch.proof.reference.steps import STEPS, step
from qlutattn_patch.proof.reference.tile import Tiles
from qlutattn_patch.proof.reference.tolerance import judged

KERNELS = [("lut", "lut"), ("dot", "dot"), ("dot7", "dot")]


def ratios(p: Problem) -> np.ndarray:
    expected, allowed = judged(p)
    error = np.abs(int8_attention(p) - expected)
    result: np.ndarray = np.where(error == 0, 0, error / np.maximum(allowed, 1e-300))
    return result


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("k", "v"), [(1, 1), (2, 2), (4, 4), (8, 8), (1, 4), (4, 1), (8, 2)])
@pytest.mark.parametrize("head_dim", [64, 128, 192, 256, 320])
def test_a_sixth_is_what_rounding_takes(k: int, v: int, head_dim: int, kernels: tuple[str, str]) -> None:
    rng = np.random.default_rng(k)
    types = f"qlutattn_k{k}_128x128", f"qlutattn_v{v}_128x128"
    found = ratios(
        problem(rng, *types, head_dim=head_dim, n_q=17, tiles=2, kernels=kernels, maskp=causal(17, 256, 230))
    )
    assert found.max() < 1
    assert 0.12 < np.sqrt(np.square(found).mean()) < 0.19


@pytest.mark.parametrize("tiles", [1, 12])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("sizes", [(64, 64), (192, 128), (576, 512)])
def test_values_that_are_keys(sizes: tuple[int, int], bits: int, tiles: int) -> None:
    rng = np.random.default_rng(bits)
    names = f"qlutattn_k{bits}_128x128", f"qlutattn_v{bits}_128x128"
    p = problem(rng, *names, head_dim=sizes[0], n_q=9, tiles=tiles, kernels=("dot", "dot"), n_window=0)
    (segment,) = p.segments
    assert segment.packed_k is not None
    found = ratios(replace(p, segments=(Segment.of_keys(segment.packed_k, sizes[1], 2),)))
    assert found.max() < 1
    assert 0.1 < np.sqrt(np.square(found).mean()) < 0.19


def test_the_queries_that_a_tile_names_are_rounded() -> None:
    rng = np.random.default_rng(12)
    p = problem(rng, "qlutattn_k4_128x128", "qlutattn_v4_128x128", n_q=17, tiles=3, kernels=("dot", "dot"))
    larger = 30 * rng.standard_normal((1, *p.q.shape))
    tiled = replace(p.segments[1], shifts=np.array([[0, 1, 0]]))
    found = ratios(replace(p, q_shifted=larger, segments=(p.segments[0], tiled)))
    assert 0.02 < found.max() <= 1


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("k_size", [1e-3, 10.0, 100.0, 1e4])
def test_large_scores_whose_winner_may_change(k_size: float, kernels: tuple[str, str]) -> None:
    rng = np.random.default_rng(8)
    types = "qlutattn_k2_128x128", "qlutattn_v2_128x128"
    p = problem(rng, *types, n_q=64, tiles=3, kernels=kernels, k_size=k_size, sinks=np.array([0.0, 3.0]))
    assert ratios(p).max() <= 1
    if k_size >= 1e4:  # most rows have one token that wins in any case, and little is allowed there
        expected, allowed = judged(p)
        assert np.median(allowed) < 0.05 * np.median(np.abs(expected))


def onehot(kernels: tuple[str, str], bits: int) -> Problem:
    """Scores that the tables hold exactly, and one visible token per row."""
    q = np.zeros((1, 2, 3, 128))
    q[..., ::4] = 1.0
    q[..., 8] = -1.0
    maskp = np.full((1, 1, 3, 128), -np.inf)
    maskp[0, 0, [0, 1, 2], [3, 50, 127]] = 0
    types = f"qlutattn_k{bits}_128x128", f"qlutattn_v{bits}_128x128"
    return problem(np.random.default_rng(9), *types, q=q, maskp=maskp, kernels=kernels, n_window=2)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_exact_cases_allow_float32_only_and_show_a_wrong_code(bits: int, kernels: tuple[str, str]) -> None:
    p = onehot(kernels, bits)
    expected, allowed = judged(p)
    assert (allowed <= 1e-4 * (np.abs(expected) + 10)).all()
    assert ratios(p).max() < 1

    k, v = p.segments[1].packed_k, p.segments[1].packed_v
    assert k is not None
    assert v is not None
    for tiles in (k.tiles, v.tiles):
        lane, depth = (50, 4) if tiles is k.tiles else (0, 50)
        tiles.codes[0, 0, 0, lane, depth] ^= 1
        changed = Segment.of_tiles(k, v, 2, p.segments[1].mask)
        found = attend(Problem(p.q, (p.segments[0], changed), p.scale, 2))
        tiles.codes[0, 0, 0, lane, depth] ^= 1
        assert (np.abs(found - expected) / allowed).max() > 10


def test_step_is_what_the_largest_makes_it() -> None:
    x = np.zeros((1, 128))
    x[0, :4] = 1.0, -2.0, 3.0, 0.5
    assert step(x, "dot") == pytest.approx(3 / 127)
    assert step(x, "dot7-avx2") == pytest.approx(3 / 64)
    assert step(x, "lut-avx2") == pytest.approx(3 / 63)


def test_step_of_exact_vectors_is_0() -> None:
    x = np.zeros((2, 128))
    x[0, ::4], x[1, ::3] = 1.0, -0.5
    for kernel in STEPS:
        assert step(x, kernel).tolist() == [0, 0]
    x[0, 1] = 0.5  # another size: half a step may be rounded away
    for kernel in STEPS:
        assert step(x, kernel)[0] > 0


def test_cancelling_offsets_are_allowed_their_float32() -> None:
    """A value of nearly 0 that float32 makes from a scaled level and an offset of 1."""
    p = onehot(("lut", "lut"), 4)
    packed_k, packed_v = p.segments[1].packed_k, p.segments[1].packed_v
    assert packed_k is not None
    assert packed_v is not None
    v = packed_v.tiles
    v.offset[...] = -(v.scale * np.float16(92 / 64))
    v.codes[...] = 14
    tiles = Tiles(v.code, v.codes, v.scale, v.offset)
    segment = Segment.of_tiles(packed_k, Packed(tiles, "lut", 128), 2, p.segments[1].mask)
    expected, allowed = judged(Problem(p.q, (segment,), p.scale, 2))
    assert np.abs(expected).max() < 2e-3
    assert (allowed >= 2e-5 * np.abs(v.offset.astype(np.float64)).min()).all()
