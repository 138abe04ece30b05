"""What outliers in keys and values cost a cache: attention of one head on made data, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from qlutattn_patch.proof.documents import OutlierRow, OutliersDocument
from qlutattn_patch.proof.reference.tile import SIZE, Double
from qlutattn_patch.proof.second_axis import Cache, half

TOKENS, QUERIES = 1024, 16
DEVIATION = 2.0  # of queries, and so of scores
DEFAULT = "q8_0,q4_0,K8V8,K4V4,K4mV4s,K4dV4s,K4d8d8V4d8s8,K2V2,K2d8d8V2d8s8"
DRAWS = 8
_Change = Callable[[Double, np.random.Generator], None]


class Result(OutliersDocument, frozen=True):
    """The result, with its table."""

    def columns(self) -> list[str]:
        return ["data", *dict.fromkeys(row.cache for row in self.rows)]

    def table(self) -> list[list[str]]:
        """A line of bits per value, then one for each kind of data."""
        bits = {row.cache: f"{row.bpw:g}" for row in self.rows}
        lines = [["bits per value", *bits.values()]]
        for data in dict.fromkeys(row.data for row in self.rows):
            lines.append([data, *(_shown(row.error) for row in self.rows if row.data == data)])
        return lines

    def summary(self) -> str:
        return (
            f"normalised squared error of attention: {TOKENS} keys, {QUERIES} queries, one head of {SIZE};"
            f" mean of {self.draws} draws, whose standard error is in --json"
        )


def measure(caches: Sequence[Cache], draws: int, moved: Callable[[int, int, str], None]) -> Result:
    """Every cache on all kinds of data. Keys, queries and values are rotated, as the cache does."""
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(draws):
        for at, (name, q, k, v) in enumerate(drawn(seed)):
            moved(seed * len(_KINDS) + at, draws * len(_KINDS), name)
            exact = attend(q, k, v)
            keys, values = half(k @ _ROTATION), half(v @ _ROTATION)
            for cache in caches:
                out = attend(q @ _ROTATION, cache.keys(keys), cache.values(values)) @ _ROTATION
                error = np.square(out - exact).sum() / np.square(exact).sum()
                found.setdefault((name, cache.name), []).append(float(error))
    bits = {cache.name: cache.bpw for cache in caches}
    rows = [
        OutlierRow(data, cache, bits[cache], float(np.mean(errors)), float(np.std(errors) / np.sqrt(len(errors))))
        for (data, cache), errors in found.items()
    ]
    return Result(draws=draws, rows=rows)


def drawn(seed: int) -> Iterator[tuple[str, Double, Double, Double]]:
    """Queries, keys and values of each kind; the same seed draws the same, but for the outliers."""
    for name, (side, change) in _KINDS.items():
        random = np.random.default_rng(seed)
        q = DEVIATION * random.standard_normal((QUERIES, SIZE))
        data = {"k": random.standard_normal((TOKENS, SIZE)), "v": random.standard_normal((TOKENS, SIZE))}
        change(data[side], random)
        yield name, q, data["k"], data["v"]


def attend(q: Double, k: Double, v: Double) -> Double:
    """Plain attention."""
    scores = q @ k.T / np.sqrt(k.shape[1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out: Double = weights @ v / weights.sum(-1, keepdims=True)
    return out


def _times(factor: float, *, channel: int | None = None, tokens: slice = slice(None)) -> _Change:
    def change(x: Double, _: np.random.Generator) -> None:
        x[tokens, slice(None) if channel is None else channel] *= factor

    return change


def _plus(constant: float, *channels: int) -> _Change:
    def change(x: Double, _: np.random.Generator) -> None:
        x[:, channels] += constant

    return change


def _turning(constant: float, period: int) -> _Change:
    """A constant that a pair of rotary channels turns once in `period` tokens."""

    def change(x: Double, _: np.random.Generator) -> None:
        angle = 2 * np.pi * np.arange(TOKENS) / period
        x[:, 5] += constant * np.cos(angle)
        x[:, 6] += constant * np.sin(angle)

    return change


def _heavy(x: Double, random: np.random.Generator) -> None:
    x[:] = random.standard_t(3, x.shape)


def _lognormal(x: Double, random: np.random.Generator) -> None:
    x *= np.exp(random.standard_normal((len(x), 1)))


def _hadamard(size: int) -> Double:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    unit: Double = matrix / np.sqrt(size)
    return unit


def _shown(error: float) -> str:
    return f"{error:.4f}" if error < 1 else f"{error:.3g}"


_ROTATION = _hadamard(SIZE)
_EVERY = slice(0, None, SIZE)  # one token of each tile
_KINDS: dict[str, tuple[str, _Change]] = {
    "Gaussian": ("k", _times(1)),
    "K one channel × 10": ("k", _times(10, channel=5)),
    "K one channel × 100": ("k", _times(100, channel=5)),
    "K one channel constant +30": ("k", _plus(30, 5)),
    "K one channel constant +100": ("k", _plus(100, 5)),
    "K two channels constant +300": ("k", _plus(300, 5, 70)),
    "K a pair +100 turning in 4096 tokens": ("k", _turning(100, 4096)),
    "K a pair +100 turning in 512 tokens": ("k", _turning(100, 512)),
    "K one token × 100": ("k", _times(100, tokens=slice(500, 501))),
    "V one token in 128 × 10": ("v", _times(10, tokens=_EVERY)),
    "V one token in 128 × 100": ("v", _times(100, tokens=_EVERY)),
    "V lognormal token norms": ("v", _lognormal),
    "V one channel × 100": ("v", _times(100, channel=5)),
    "V heavy-tailed (t, 3 degrees)": ("v", _heavy),
}
