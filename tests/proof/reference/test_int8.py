"""The tolerance of f16 in 8 bits, against numpy that rounds as the kernels do; and what smoothing is for."""

from __future__ import annotations

import numpy as np
import pytest
from align_helpers import causal, one, packed, rounded_product, to_columns

from qlutattn_patch.proof.reference.attention import Problem, Segment, attend, each_head
from qlutattn_patch.proof.reference.int8 import MAX_DRAFT, blocks
from qlutattn_patch.proof.reference.tile import SIZE, Kind
from qlutattn_patch.proof.reference.tolerance import head_slices, judged

QUERIES = MAX_DRAFT + 1
OUTLIERS = slice(5, None, 32)  # channels


def sage(problem: Problem) -> np.ndarray:
    """Attention whose segment is made tiles of 8 bits block by block, with products rounded as the kernels do."""
    (segment,) = problem.segments
    out = np.zeros((*problem.q.shape[:1], problem.q.shape[2], problem.q.shape[1], problem.head_dim_v))
    for b, h, rows in each_head(problem):
        q = problem.q[b, h]
        at = b, problem.kv_head(h)
        scores, values = rows.scores.copy(), []
        for tokens in blocks(problem, segment, b, h):
            mean = (segment.smoothing or 0) * segment.keys[at][tokens].mean(axis=0)
            keys = (segment.keys[at][tokens] - mean).astype(np.float16)[None, None]
            k = packed(Kind.of("qlutattn_k8_128x128"), to_columns(keys))
            v = packed(
                Kind.of("qlutattn_v8_128x128"), to_columns(segment.values[at][tokens].astype(np.float16)[None, None])
            )
            products = np.zeros((len(q), SIZE)) + q @ mean[:, None]
            for column, inside, channels in head_slices(0, q.shape[1]):
                products += rounded_product(one(k, 0, column, 0), q[:, channels], "dot", inside, slice(0, SIZE))
            exact = q @ segment.keys[at][tokens].T
            scores[:, tokens] += problem.scale * (products - exact)
            values.append((tokens, v))
        top = scores.max(axis=1, keepdims=True)
        p = np.where(rows.visible, np.exp(scores - top), 0)
        total = np.zeros((len(q), problem.head_dim_v))
        for tokens, v in values:
            for column, lanes, channels in head_slices(0, problem.head_dim_v):
                total[:, channels] += rounded_product(one(v, 0, column, 0), p[:, tokens], "dot", slice(0, SIZE), lanes)
        rest = slice(len(values) * SIZE, None)
        total += p[:, rest] @ segment.values[at][rest]
        out[b, :, h] = total / p.sum(axis=1, keepdims=True)
    return out


def problem(head_dim: int, n_tokens: int, smoothing: float, n_q: int = QUERIES, bias: float = 0.0) -> Problem:
    rng = np.random.default_rng(head_dim + n_tokens)
    keys, values = rng.standard_normal((2, 1, 1, n_tokens, head_dim))
    keys[..., OUTLIERS] += bias
    keys, values = (x.astype(np.float16).astype(np.float64) for x in (keys, values))
    q = rng.standard_normal((1, 2, n_q, head_dim)).astype(np.float32).astype(np.float64)
    segment = Segment(keys, values, causal(n_q, n_tokens, n_tokens - n_q), smoothing=smoothing)
    return Problem(q, (segment,), head_dim**-0.5, 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("head_dim", [64, 128, 192])
@pytest.mark.parametrize("n_tokens", [128, 300, 640])
def test_a_sixth_of_the_tolerance_is_what_rounding_takes(n_tokens: int, head_dim: int, smoothing: float) -> None:
    p = problem(head_dim, n_tokens, smoothing, bias=4.0)
    expected, allowed = judged(p)
    found = np.abs(sage(p) - expected) / allowed
    assert found.max() < 1
    assert 0.1 < np.sqrt(np.square(found).mean()) < 0.19


def test_a_mean_that_is_not_given_back_is_seen() -> None:
    p = problem(128, 640, 1.0, bias=4.0)
    (segment,) = p.segments
    keys = segment.keys.copy()
    keys[:, :, :SIZE] -= keys[:, :, :SIZE].mean(axis=2, keepdims=True)
    wrong = attend(Problem(p.q, (Segment(keys, segment.values, segment.mask),), p.scale, 1))
    expected, allowed = judged(p)
    assert (np.abs(wrong - expected) / allowed).max() > 3


def test_smoothing_keeps_what_outlier_channels_take() -> None:
    errors = []
    for smoothing in (0.0, 1.0):
        p = problem(128, 640, smoothing, bias=64.0)
        errors.append(np.sqrt(np.square(sage(p) - attend(p)).mean()))
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize(("n_q", "allowed"), [(MAX_DRAFT, 0), (QUERIES, 4)])
def test_few_queries_and_what_is_not_finite_stay_f16(n_q: int, allowed: int) -> None:
    p = problem(64, 640, 1.0, n_q)
    p.segments[0].values[0, 0, 200, 7] = np.nan
    assert len(list(blocks(p, p.segments[0], 0, 0))) == allowed
