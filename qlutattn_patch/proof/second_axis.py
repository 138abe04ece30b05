"""Tiles with a second axis of metadata, one vector per tile along the depth, on top of the reference packer.

A cache is written like `K4dV4s`: bits, then what its tiles have besides the format's scale and offset per lane, each
optionally followed by 8 (stored in 8 bits instead of f16): `m` a mean per depth position (keys: channel, values:
token), `s` a scale per depth position, `d` a direction: a lane's offset multiplies this vector instead of ones. A
second direction needs a second offset per lane.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qlutattn_patch.proof.reference.quantise import quantise
from qlutattn_patch.proof.reference.tile import CODES, SIZE, Double
from qlutattn_patch.system.errors import ExpectedError

BLOCK = 32  # values of upstream's blocks
UPSTREAM = ("f16", "q8_0", "q4_0")
_F16_BITS = 16.0
_CACHE = re.compile(r"K([1248])((?:[msd]8?)*)V([1248])((?:[msd]8?)*)")
_OCTAVE = 8  # steps of an 8-bit scale
_ROUNDS = 2  # of power iteration


@dataclass(frozen=True)
class Side:
    """Keys or values in tiles: their bits, and the vectors along the depth."""

    side: str
    bits: int
    axes: tuple[str, ...] = ()

    @property
    def bpw(self) -> float:
        """Bits per value."""
        offsets = sum(axis[0] == "d" for axis in self.axes) or CODES[self.bits].has_offset
        vectors = 2 + 2 * offsets + sum(1 if axis.endswith("8") else 2 for axis in self.axes)  # bytes per lane or depth
        return self.bits + vectors * 8 / SIZE

    def decoded(self, x: Double) -> Double:
        """Rows [token, channel] after packing and decoding; whole tiles."""
        tiles = x.reshape(-1, SIZE, SIZE)
        tiles = tiles if self.side == "k" else tiles.swapaxes(-1, -2)
        found = self._tiles(tiles)
        return (found if self.side == "k" else found.swapaxes(-1, -2)).reshape(x.shape)

    def _axis(self, name: str) -> str | None:
        return next((axis for axis in self.axes if axis[0] == name), None)

    def _tiles(self, x: Double) -> Double:
        code = CODES[self.bits]
        apart = np.zeros_like(x)
        if axis := self._axis("m"):
            apart += _stored(x.mean(-2, keepdims=True), axis)
        for axis in self.axes:
            if axis[0] == "d":
                way = _stored(direction(x - apart), axis)
                apart += half(_product(x - apart, way) / np.maximum(_product(way, way), 1e-30)) * way
                code = replace(code, has_offset=False)
        r = x - apart
        scale = depth_scale(r, axis) if (axis := self._axis("s")) else np.ones(())
        decoded: Double = quantise((r / scale).astype(np.float32), code).values() * scale + apart
        return decoded


@dataclass(frozen=True)
class Cache:
    """How keys and values are coded, and the bits per value of both together."""

    name: str
    bpw: float
    keys: Callable[[Double], Double]
    values: Callable[[Double], Double]


def parse(text: str) -> tuple[Cache, ...]:
    """The caches of a list."""
    return tuple(_parse(name.strip()) for name in text.split(",") if name.strip())


def _parse(name: str) -> Cache:
    plain = {"f16": (_F16_BITS, half), "q8_0": (8.5, _q8_0), "q4_0": (4.5, _q4_0)}
    if name in plain:
        bpw, coded = plain[name]
        return Cache(name, bpw, coded, coded)
    match = _CACHE.fullmatch(name)
    if not match:
        raise ExpectedError(
            f"--types of this task needs {', '.join(UPSTREAM)}, or names such as K4V4 and K4dV4s, not '{name}'.",
            "qlutattn eval --task outliers",
        )
    keys, values = (
        Side(side, int(bits), tuple(re.findall(r"[msd]8?", axes)))
        for side, bits, axes in (("k", match[1], match[2]), ("v", match[3], match[4]))
    )
    return Cache(name, (keys.bpw + values.bpw) / 2, keys.decoded, values.decoded)


def direction(x: Double) -> Double:
    """The direction [1, depth] that the lanes [lane, depth] have most in common, of root mean square 1.

    All lanes count the same, whatever their length. Power iteration from their mean.
    """
    unit = x / np.maximum(np.sqrt(_product(x, x)), 1e-30)
    way = unit.mean(-2, keepdims=True)
    for _ in range(_ROUNDS):
        way = (_product(unit, way) * unit).sum(-2, keepdims=True)
    length = np.sqrt(_product(way, way))
    return np.where(length == 0, 1.0, way * np.sqrt(SIZE) / np.maximum(length, 1e-30))


def depth_scale(x: Double, axis: str) -> Double:
    """A scale for each depth position [1, depth]: its root mean square once lanes have been made alike."""
    first = _rms(x, -2)
    lane = _rms(x / first, -1)
    return _stored(_rms(x / lane, -2), axis)


def half(x: Double) -> Double:
    """Rounded to f16."""
    rounded: Double = x.astype(np.float16).astype(np.float64)
    return rounded


def _stored(x: Double, axis: str) -> Double:
    """A vector as a tile stores it."""
    if not axis.endswith("8"):
        return half(x)
    if axis[0] == "s":
        powers: Double = np.exp2(np.rint(np.log2(x) * _OCTAVE) / _OCTAVE)
        return powers
    step = np.maximum(half(np.abs(x).max(-1, keepdims=True) / 127), 1e-30)
    return np.clip(np.rint(x / step), -127, 127) * step


def _product(a: Double, b: Double) -> Double:
    found: Double = (a * b).sum(-1, keepdims=True)
    return found


def _rms(x: Double, axis: int) -> Double:
    size: Double = np.sqrt((x * x).mean(axis, keepdims=True))
    return np.where(size == 0, 1.0, size)


def _q8_0(x: Double) -> Double:
    blocks = x.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / np.where(scale == 0, 1, scale)) * half(scale)).reshape(x.shape)


def _q4_0(x: Double) -> Double:
    blocks = x.reshape(-1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[:, None], -1)
    scale = largest / -8
    codes = np.clip(np.floor(blocks / np.where(scale == 0, 1, scale) + 8.5), 0, 15)
    return ((codes - 8) * half(scale)).reshape(x.shape)
