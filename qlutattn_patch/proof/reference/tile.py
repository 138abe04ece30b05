"""The bytes of a tile: codes in chunks, then 128 scales, then 128 offsets where a type has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 128  # lanes of a tile, and its depth
CHUNK = 64  # bytes of codes in one chunk
UNIT = 64  # value = scale * level / UNIT, + offset where there is one

Codes = NDArray[np.uint8]
Bytes = NDArray[np.uint8]
Half = NDArray[np.float16]
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Code:
    """The levels by code, in units of 1/64 of a lane's scale; the packer's initial scale; the storage layout."""

    levels: tuple[int, ...]
    rms_to_scale: float
    layout: str
    has_offset: bool = True

    @property
    def bits(self) -> int:
        return (len(self.levels) - 1).bit_length()

    @property
    def is_linear(self) -> bool:
        """Whether codes are int8, their own levels."""
        return self.bits == 8

    @property
    def code_bytes(self) -> int:
        return SIZE * SIZE * self.bits // 8

    @property
    def tile_bytes(self) -> int:
        return self.code_bytes + (4 if self.has_offset else 2) * SIZE


# The codes of the eight types by their bits. They are repeated here, not read from templates/formats.toml, so that
# an error there is detected. Other types come from that file.
CODES: Mapping[int, Code] = MappingProxyType(
    {
        1: Code((-64, 64), 0.7978846, "lookup"),
        2: Code((-120, -36, 36, 120), 0.8055199, "dot"),
        4: Code((-122, -92, -72, -56, -42, -30, -18, -6, 6, 18, 30, 42, 56, 72, 92, 122), 1.4050294, "dot"),
        8: Code((*range(128), *range(-128, 0)), 0.0, "dot", has_offset=False),
    }
)


@dataclass(frozen=True)
class Kind:
    """A type: the side (k: lane = token, v: lane = channel) and its code."""

    side: str
    code: Code

    @classmethod
    def of(cls, name: str, added_kinds: Mapping[str, Kind] = MappingProxyType({})) -> Kind:
        """The kind of a type by name: one of the eight, else one of `added_kinds`."""
        match = re.fullmatch(r"qlutattn_([kv])([1248])_128x128", name)
        if match:
            return cls(match[1], CODES[int(match[2])])
        if name not in added_kinds:
            raise ValueError(f"'{name}' is not a QLUTATTN type")
        return added_kinds[name]

    @property
    def bits(self) -> int:
        return self.code.bits

    @property
    def code_bytes(self) -> int:
        return self.code.code_bytes

    @property
    def tile_bytes(self) -> int:
        return self.code.tile_bytes


@dataclass(frozen=True)
class Tiles:
    """Unpacked tiles: `codes` [..., lane, depth], `scale` and `offset` (0 where there is none) [..., lane]."""

    code: Code
    codes: Codes
    scale: Half
    offset: Half

    def levels(self) -> Double:
        """The levels of the codes, in units of the scale."""
        return np.asarray(self.code.levels, np.float64)[self.codes] / UNIT

    def values(self) -> Double:
        """The exact decoded values."""
        return self.scale.astype(np.float64)[..., None] * self.levels() + self.offset.astype(np.float64)[..., None]

    def sizes(self) -> Double:
        """The magnitudes of the float32 summands of each value, which may cancel."""
        scaled = self.scale.astype(np.float64)[..., None] * np.abs(self.levels())
        return scaled + np.abs(self.offset.astype(np.float64))[..., None]


def to_bytes(tiles: Tiles) -> Bytes:
    """The bytes of tiles, [..., tile_bytes]."""
    arrange = _lookup_bytes if tiles.code.layout == "lookup" else _dot_bytes
    parts = [arrange(tiles.codes, tiles.code.bits), _half_bytes(tiles.scale)]
    parts += [_half_bytes(tiles.offset)] if tiles.code.has_offset else []
    return np.concatenate(parts, axis=-1)


def from_bytes(data: Bytes, code: Code) -> Tiles:
    """Tiles from their bytes, [..., tile_bytes]."""
    end = code.code_bytes
    arrange = _lookup_codes if code.layout == "lookup" else _dot_codes
    half = np.ascontiguousarray(data[..., end:]).view("<f2").astype(np.float16)
    scale = half[..., :SIZE]
    offset = half[..., SIZE:] if code.has_offset else np.zeros_like(scale)
    return Tiles(code, arrange(data[..., :end], code.bits), scale, offset)


def _half_bytes(values: Half) -> Bytes:
    return np.ascontiguousarray(values.astype("<f2")).view(np.uint8)


def _lookup_bytes(codes: Codes, bits: int) -> Bytes:
    # Chunk g, byte j: depths g*(4/b).. of lane j in the low nibble, of lane j + 64 in the high one.
    per = 4 // bits
    grouped = codes.reshape(*codes.shape[:-1], SIZE // per, per)
    nibbles = _join(grouped, bits).swapaxes(-1, -2)  # [..., group, lane]
    return _flat(nibbles[..., :CHUNK] | nibbles[..., CHUNK:] << 4, 2)


def _lookup_codes(data: Bytes, bits: int) -> Codes:
    chunks = data.reshape(*data.shape[:-1], -1, CHUNK)
    nibbles = np.concatenate([chunks & 15, chunks >> 4], axis=-1).swapaxes(-1, -2)  # [..., lane, group]
    return _flat(_split(nibbles, bits, 4 // bits), 2)


def _dot_bytes(codes: Codes, bits: int) -> Bytes:
    # Chunk 4b*L + B, byte 4l + k: lane 16L + l; bits b*i.. hold depth B*(32/b) + 4i + k.
    per = 8 // bits
    view = codes.reshape(*codes.shape[:-2], 8, 16, SIZE // (4 * per), per, 4)  # [..., L, l, B, i, k]
    joined = _join(view.swapaxes(-1, -2), bits)  # [..., L, l, B, k]
    return _flat(joined.swapaxes(-2, -3), 4)


def _dot_codes(data: Bytes, bits: int) -> Codes:
    per = 8 // bits
    view = data.reshape(*data.shape[:-1], 8, SIZE // (4 * per), 16, 4)  # [..., L, B, l, k]
    split = _split(view.swapaxes(-2, -3), bits, per).swapaxes(-1, -2)  # [..., L, l, B, i, k]
    return np.ascontiguousarray(split).reshape(*data.shape[:-1], SIZE, SIZE)


def _join(codes: Codes, bits: int) -> Codes:
    """Pack the codes of the last axis into one byte, the first one in the lowest bits."""
    shifts = np.arange(codes.shape[-1], dtype=np.uint8) * np.uint8(bits)
    joined: Codes = np.bitwise_or.reduce(codes << shifts, axis=-1)
    return joined


def _split(joined: Codes, bits: int, count: int) -> Codes:
    """The reverse of `_join`: a new last axis of `count` codes."""
    shifts = np.arange(count, dtype=np.uint8) * np.uint8(bits)
    return (joined[..., None] >> shifts) & np.uint8((1 << bits) - 1)


def _flat(array: NDArray[Any], axes: int) -> NDArray[Any]:
    """Merge the last `axes` axes."""
    return np.ascontiguousarray(array).reshape(*array.shape[:-axes], -1)
