"""The six types as `templates/formats.toml` describes them: checked, and with what follows from them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from qlutattn_patch.config import Fields, read_toml

FIRST_FREE_ID = 43
LAST_ID = 255  # tables in ggml have a row for each id up to the largest
LARGEST_TILE = 4096
BIT_WIDTHS = (1, 2, 4)
LAYOUTS = ("lookup", "dot")
KERNELS = ("lut", "dot")
LANES = {"k": "token", "v": "channel"}
F16_BITS = 16
# The largest factor whose products with 8-bit integers may add up in 16 bits: two of them at 4 bits, four at 2.
LARGEST_FACTOR = {1: 1, 2: 15, 4: 63}


@dataclass(frozen=True)
class Tile:
    """The shape that all types share: `pack_size` lanes of `pack_size` codes, then the metadata of each lane."""

    pack_size: int
    pack_chunk_size: int
    level_unit: int
    metadata: tuple[str, ...]


@dataclass(frozen=True)
class Codebook:
    """What the codes of one bit width stand for, and how they are stored."""

    bits: int
    levels: tuple[int, ...]
    rms_to_scale: float
    layout: str
    kernel: str

    @property
    def level_factor(self) -> int:
        """The largest common divisor of the levels."""
        return math.gcd(*self.levels)

    @property
    def factors(self) -> tuple[int, ...]:
        """The levels in units of their divisor: what kernels multiply by."""
        return tuple(level // self.level_factor for level in self.levels)


@dataclass(frozen=True)
class QuantType:
    """One tensor type."""

    name: str
    id: int
    side: str
    bits: int
    tile: Tile
    codebook: Codebook

    @property
    def enum(self) -> str:
        """The constant in ggml.h: upper case up to the shape, as in GGML_TYPE_QLUTATTN_K4_128x128."""
        stem, _, shape = self.name.rpartition("_")
        return f"GGML_TYPE_{stem.upper()}_{shape}"

    @property
    def lanes(self) -> str:
        """What a lane is: the axis that has a scale and an offset of its own."""
        return LANES[self.side]

    @property
    def levels(self) -> tuple[int, ...]:
        return self.codebook.levels

    @property
    def layout(self) -> str:
        return self.codebook.layout

    @property
    def rms_to_scale(self) -> float:
        return self.codebook.rms_to_scale

    @property
    def code_bytes(self) -> int:
        """Bytes of codes in a tile."""
        return self.tile.pack_size**2 * self.bits // 8

    @property
    def tile_bytes(self) -> int:
        """Bytes of a whole tile: codes, then one f16 per lane and kind of metadata."""
        return self.code_bytes + self.tile.pack_size * 2 * len(self.tile.metadata)

    @property
    def type_size(self) -> int:
        """Bytes of one block of `pack_size` values, in ggml's size arithmetic."""
        return self.tile_bytes // self.tile.pack_size

    @property
    def bpw(self) -> float:
        """Bits per value, metadata included."""
        return self.tile_bytes * 8 / self.tile.pack_size**2

    @property
    def saving(self) -> float:
        """The part of an f16 cache's memory that this type saves."""
        return 1 - self.bpw / F16_BITS


@dataclass(frozen=True)
class Formats:
    """All of `templates/formats.toml`."""

    tile: Tile
    codebooks: Mapping[int, Codebook]
    types: tuple[QuantType, ...]


def load_formats(path: Path) -> Formats:
    """Read and check `templates/formats.toml`."""
    fields = read_toml(path)
    fields.schema()
    tile = _tile(fields.table("tile"))
    codebooks = {book.bits: book for book in (_codebook(bits, t) for bits, t in fields.items("codebook").items())}
    types: list[QuantType] = []
    for table in fields.tables("type"):
        found = _type(table, tile, codebooks)
        for other in types:
            if other.id == found.id:
                raise table.wrong(f"the id {found.id} of '{found.name}' is that of '{other.name}'")
            if other.name == found.name:
                raise table.wrong(f"the name '{found.name}' is used twice")
        types.append(found)
    if not types:
        raise fields.wrong("it has no [[type]]")
    fields.done()
    return Formats(tile, MappingProxyType(dict(sorted(codebooks.items()))), tuple(types))


def _tile(fields: Fields) -> Tile:
    tile = Tile(
        pack_size=fields.integer("pack_size"),
        pack_chunk_size=fields.integer("pack_chunk_size"),
        level_unit=fields.integer("level_unit"),
        metadata=fields.texts("metadata"),
    )
    for key, value in (("pack_size", tile.pack_size), ("pack_chunk_size", tile.pack_chunk_size)):
        if not 8 <= value <= LARGEST_TILE or value & (value - 1):
            raise fields.wrong(f"'{key}' must be a power of two in 8...{LARGEST_TILE}, not {value}")
    if not 1 <= tile.level_unit <= 127:
        raise fields.wrong(f"'level_unit' must be in 1...127, not {tile.level_unit}")
    if len(set(tile.metadata)) != len(tile.metadata) or not tile.metadata:
        raise fields.wrong("'metadata' must name each kind once")
    fields.done()
    return tile


def _codebook(name: str, fields: Fields) -> Codebook:
    if name not in (str(bits) for bits in BIT_WIDTHS):
        raise fields.wrong(f"the bit width must be one of {_listed(BIT_WIDTHS)}")
    bits = int(name)
    book = Codebook(
        bits=bits,
        levels=fields.integers("levels"),
        rms_to_scale=fields.number("rms_to_scale"),
        layout=fields.text("layout"),
        kernel=fields.text("kernel"),
    )
    if len(book.levels) != 2**bits:
        raise fields.wrong(f"{bits}-bit codes need {2**bits} levels, not {len(book.levels)}")
    if not all(-128 <= level <= 127 for level in book.levels):
        raise fields.wrong("every level must fit in an int8 (-128...127)")
    if not all(low < high for low, high in pairwise(book.levels)):
        raise fields.wrong("the levels must rise strictly")
    if book.levels != tuple(-level for level in reversed(book.levels)):
        raise fields.wrong("the levels must be symmetric: each with its negative")
    if book.factors[-1] > LARGEST_FACTOR[bits]:
        raise fields.wrong(
            f"the levels divided by their common divisor {book.level_factor} reach {book.factors[-1]}, more than the "
            f"{LARGEST_FACTOR[bits]} whose products with int8 add up in 16 bits"
        )
    if not 0 < book.rms_to_scale < 1000:
        raise fields.wrong(f"'rms_to_scale' must be a small positive number, not {book.rms_to_scale}")
    if book.layout not in LAYOUTS:
        raise fields.wrong(f"'layout' must be one of {_listed(LAYOUTS)}, not '{book.layout}'")
    if book.kernel not in KERNELS:
        raise fields.wrong(f"'kernel' must be one of {_listed(KERNELS)}, not '{book.kernel}'")
    fields.done()
    return book


def _type(fields: Fields, tile: Tile, codebooks: Mapping[int, Codebook]) -> QuantType:
    name, number, side, bits = fields.text("name"), fields.integer("id"), fields.text("side"), fields.integer("bits")
    if side not in LANES:
        raise fields.wrong(f"'side' must be 'k' or 'v', not '{side}'")
    if bits not in codebooks:
        raise fields.wrong(f"there is no [codebook.{bits}] for 'bits' = {bits}")
    expected = f"qlutattn_{side}{bits}_{tile.pack_size}x{tile.pack_size}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name != expected:
        raise fields.wrong(f"the name must be '{expected}' for this side, bit width and tile, not '{name}'")
    if number > LAST_ID:
        raise fields.wrong(f"the id {number} is too large (the last one is {LAST_ID})")
    if number < FIRST_FREE_ID:
        raise fields.wrong(f"the id {number} is upstream's (ours start at {FIRST_FREE_ID})")
    fields.done()
    found = QuantType(name, number, side, bits, tile, codebooks[bits])
    if found.code_bytes % tile.pack_chunk_size or found.tile_bytes % tile.pack_size:
        raise fields.wrong(f"a tile of '{name}' does not divide into whole chunks and rows")
    return found


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)
