"""The packer: float32, one operation after the other in the order of docs/formats.md, over all lanes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlutattn_patch.reference.tile import LEVELS, SIZE, UNIT, Bytes, Codes, Double, Kind, Tiles, from_bytes, to_bytes

RMS_TO_SCALE = {1: np.float32(0.7978846), 2: np.float32(0.7611465), 4: np.float32(1.3770811)}

Single = NDArray[np.float32]
_MAX_HALF = np.float32(65504)
_MEAN = np.float32(1 / SIZE)
_UNIT = np.float32(UNIT)


def quantise(lanes: NDArray[Any], bits: int) -> Tiles:
    """Codes, scales and offsets of lanes [..., lane, 128] of f16 or f32."""
    x = lanes.astype(np.float32)
    poisoned = np.asarray(~(np.abs(x) <= _MAX_HALF).all(axis=-1))
    x = np.where(poisoned[..., None], np.float32(0), x)

    offset = (_sum(x) * _MEAN).astype(np.float16)
    r = x - offset.astype(np.float32)[..., None]
    first = RMS_TO_SCALE[bits] * np.sqrt(_sum(r * r) * _MEAN)

    level = np.asarray(LEVELS[bits], np.float32)[_choose(r, first, bits)]
    fitted = (_UNIT * _sum(r * level)) / _sum(level * level)
    scale = np.where(first == 0, np.float32(0), np.minimum(fitted, _MAX_HALF)).astype(np.float16)
    codes = _choose(r, scale.astype(np.float32), bits)

    scale[poisoned] = np.uint16(0x7E00).view(np.float16)
    offset[poisoned] = 0
    return Tiles(bits, codes, scale, offset)


def pack(source: NDArray[Any], kind: Kind) -> Bytes:
    """The bytes of a packed tensor, [batch, column, tile, byte], from its source [batch, column, token, 128]."""
    batch, columns, tokens, width = source.shape
    if width != SIZE or tokens % SIZE:
        raise ValueError(f"no whole tiles in a source of {tokens} tokens by {width}")
    tiles = source.reshape(batch, columns, tokens // SIZE, SIZE, SIZE)
    return to_bytes(quantise(tiles if kind.side == "k" else tiles.swapaxes(-1, -2), kind.bits))


def unpack(data: Bytes, kind: Kind, batch: int, columns: int) -> Tiles:
    """The tiles [batch, column, tile] of a packed tensor's bytes."""
    return from_bytes(data.reshape(batch, columns, -1, kind.tile_bytes), kind.bits)


def heads(values: Double, side: str, n_head_kv: int) -> Double:
    """What tiles hold, [batch, column, tile, lane, depth], as [batch, kv head, token, channel]."""
    if side == "v":
        values = values.swapaxes(-1, -2)
    batch, columns, count = values.shape[:3]  # [batch, column, tile, token, element]
    rows = values.transpose(0, 2, 3, 1, 4).reshape(batch, count * SIZE, n_head_kv, columns * SIZE // n_head_kv)
    return rows.transpose(0, 2, 1, 3)


def _sum(values: Single) -> Single:
    """The sum over the last axis, as the fixed tree."""
    s = values
    while s.shape[-1] > 1:
        half = s.shape[-1] // 2
        s = s[..., :half] + s[..., half:]
    return s[..., 0]


def _choose(r: Single, scale: Single, bits: int) -> Codes:
    """The codes for residuals `r` with a lane's scale: how many midpoints of neighbouring levels are smaller."""
    zero = scale == 0
    u = r * (_UNIT / np.where(zero, np.float32(1), scale))[..., None]
    codes = np.zeros(r.shape, np.uint8)
    for low, high in zip(LEVELS[bits], LEVELS[bits][1:], strict=False):
        codes += np.float32((low + high) / 2) < u
    codes[zero] = 0
    return codes
