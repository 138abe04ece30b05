"""The packer: float32, one operation after the other in the order of docs/formats.md, over all lanes at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlutattn_patch.proof.reference.tile import (
    SIZE,
    UNIT,
    Bytes,
    Code,
    Codes,
    Double,
    Kind,
    Tiles,
    from_bytes,
    to_bytes,
)

Single = NDArray[np.float32]
Integers = NDArray[np.int64]
_MAX_HALF = np.float32(65504)
_MEAN = np.float32(1 / SIZE)
_UNIT = np.float32(UNIT)
_FINE = 16  # v, to which the scale is fitted, has steps of 1/16 of a unit


def quantise(lanes: NDArray[Any], code: Code) -> Tiles:
    """Codes, scales and offsets of lanes [..., lane, 128] of f16 or f32."""
    x = lanes.astype(np.float32)
    poisoned = np.asarray(~(np.abs(x) <= _MAX_HALF).all(axis=-1))
    x = np.where(poisoned[..., None], np.float32(0), x)

    if code.is_linear:
        return _linear(x, poisoned, code)
    offset = (_sum(x) * _MEAN if code.has_offset else np.zeros(x.shape[:-1])).astype(np.float16)
    r = x - offset.astype(np.float32)[..., None]
    first = np.float32(code.rms_to_scale) * np.sqrt(_sum(r * r) * _MEAN)

    v = _rint(_in_units(r, _UNIT * _FINE, first))
    level = np.asarray(code.levels)[_choose(v // _FINE, code)]
    num, den = (v * level).sum(axis=-1), (level * level).sum(axis=-1)
    fitted = (first * num.astype(np.float32)) / (_FINE * den).astype(np.float32)
    scale = np.minimum(fitted, _MAX_HALF).astype(np.float16)
    codes = _choose(_rint(_in_units(r, _UNIT, scale.astype(np.float32)) - np.float32(0.5)), code)

    codes[(scale == 0) | poisoned] = 0
    scale[poisoned] = np.uint16(0x7E00).view(np.float16)
    offset[poisoned] = 0
    return Tiles(code, codes, scale, offset)


def _linear(x: Single, poisoned: NDArray[np.bool_], code: Code) -> Tiles:
    """Codes that are levels, as int8: the largest magnitude of a lane becomes 127."""
    scale = (np.abs(x).max(axis=-1) * np.float32(UNIT / 127)).astype(np.float16)
    codes = np.clip(_rint(_in_units(x, _UNIT, scale.astype(np.float32))), -128, 127).astype(np.int8).view(np.uint8)
    codes[poisoned] = 0
    scale[poisoned] = np.uint16(0x7E00).view(np.float16)
    return Tiles(code, codes, scale, np.zeros_like(scale))


def pack(source: NDArray[Any], kind: Kind) -> Bytes:
    """The bytes of a packed tensor, [batch, column, tile, byte], from its source [batch, column, token, 128]."""
    batch, columns, tokens, width = source.shape
    if width != SIZE or tokens % SIZE:
        raise ValueError(f"no whole tiles in a source of {tokens} tokens by {width}")
    tiles = source.reshape(batch, columns, tokens // SIZE, SIZE, SIZE)
    return to_bytes(quantise(tiles if kind.side == "k" else tiles.swapaxes(-1, -2), kind.code))


def unpack(data: Bytes, kind: Kind, batch: int, columns: int) -> Tiles:
    """The tiles [batch, column, tile] of a packed tensor's bytes."""
    return from_bytes(data.reshape(batch, columns, -1, kind.tile_bytes), kind.code)


def columns(values: Double, side: str) -> Double:
    """Tile values [batch, column, tile, lane, depth] as [batch, column, token, element]."""
    if side == "v":
        values = values.swapaxes(-1, -2)
    return values.reshape(*values.shape[:2], -1, SIZE)


def heads(values: Double, side: str, n_head_kv: int, head_dim: int) -> Double:
    """Tile values [batch, column, tile, lane, depth] as [batch, kv head, token, channel], without what no head has."""
    tokens = columns(values, side).transpose(0, 2, 1, 3)  # [batch, token, column, element]
    channels = tokens.reshape(*tokens.shape[:2], -1)[..., : n_head_kv * head_dim]
    return channels.reshape(*tokens.shape[:2], n_head_kv, head_dim).transpose(0, 2, 1, 3)


def _sum(values: Single) -> Single:
    """The sum over the last axis, as the fixed tree."""
    s = values
    while s.shape[-1] > 1:
        half = s.shape[-1] // 2
        s = s[..., :half] + s[..., half:]
    return s[..., 0]


def _in_units(r: Single, unit: np.float32, scale: Single) -> Single:
    """r in units of scale / unit; 0 where the scale is 0."""
    inverse = np.where(scale == 0, np.float32(0), unit / np.where(scale == 0, np.float32(1), scale))
    return r * inverse[..., None]


def _rint(values: Single) -> Integers:
    return np.rint(values).astype(np.int64)


def _choose(u: Integers, code: Code) -> Codes:
    """The code of each integer: the number of thresholds (midpoints of levels, halves away from 0) not above it."""
    clipped = np.clip(u, -128, 127)
    codes = np.zeros(u.shape, np.uint8)
    for low, high in pairwise(code.levels):
        threshold = (abs(low + high) + 1) // 2 * (1 if low + high > 0 else -1)
        codes += threshold <= clipped
    return codes
