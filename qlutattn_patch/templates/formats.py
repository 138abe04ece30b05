"""The types of `templates/formats.toml`, checked, with derived properties."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta, field

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.records import Record, Versioned
from qlutattn_patch.system.toml import FIX, Text, load

FIRST_FREE_ID = 43
LAST_ID = 255  # ggml's tables have a row for each id up to the largest
LARGEST_TILE = 4096
LANES = {"k": "token", "v": "channel"}
F16_BITS = 16
# The largest factor whose products with 8-bit integers may add up in 16 bits: two of them at 4 bits, four at 2.
LARGEST_FACTOR = {1: 1, 2: 15, 4: 63}
# The possible metadata of a lane: one f16 of each, in this order.
METADATA = (("scale", "offset"), ("scale",))
LINEAR_BITS = 8
_LINEAR_METADATA = ("scale",)
# With a smaller rms_to_scale the value of a lane of one value and 127 zeros would not fit the encoder's 16 bits.
SMALLEST_START = 0.45


_SIZE = f"a power of two in 8...{LARGEST_TILE}"
_Size = Annotated[int, Meta(ge=8, le=LARGEST_TILE, description=_SIZE)]
_Layout = Literal["lookup", "dot"]
_Kernel = Literal["lut", "dot"]
_Levels = tuple[Annotated[int, Meta(ge=-128, le=127, description="an int8 (-128...127)")], ...]
_Id = Annotated[
    int,
    Meta(ge=FIRST_FREE_ID, le=LAST_ID, description=f"in {FIRST_FREE_ID}...{LAST_ID} (lower ids are upstream's)"),
]


class Tile(Record, frozen=True):
    """The shape that all types share: `pack_size` lanes of `pack_size` codes, then the metadata of each lane.

    `metadata` is the default of types.
    """

    pack_size: _Size
    pack_chunk_size: _Size
    level_unit: Annotated[int, Meta(ge=1, le=127)]
    metadata: tuple[str, ...]

    def __post_init__(self) -> None:
        for key, value in (("pack_size", self.pack_size), ("pack_chunk_size", self.pack_chunk_size)):
            if value & (value - 1):
                raise ValueError(f"'{key}' must be {_SIZE}, not {value}")
        _check_metadata(self.metadata)


@dataclass(frozen=True)
class Codebook:
    """The levels of codes, by code, and their storage: of a bit width, or of a type with its own levels."""

    label: str
    bits: int
    levels: tuple[int, ...]
    rms_to_scale: float
    layout: _Layout
    kernel: _Kernel

    @property
    def is_linear(self) -> bool:
        """Whether a code is its own level, as int8."""
        return self.bits == LINEAR_BITS

    @property
    def level_factor(self) -> int:
        """The greatest common divisor of the levels."""
        return math.gcd(*self.levels)

    @property
    def factors(self) -> tuple[int, ...]:
        """The levels divided by their common divisor, as kernels use them."""
        return tuple(level // self.level_factor for level in self.levels)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """The thresholds between codes: the midpoints of levels, halves away from 0."""
        return tuple((abs(low + high) + 1) // 2 * (1 if low + high > 0 else -1) for low, high in pairwise(self.levels))


_LINEAR = Codebook("8bit", LINEAR_BITS, (*range(128), *range(-128, 0)), 0.0, "dot", "dot")


@dataclass(frozen=True)
class QuantType:
    """One tensor type."""

    name: str
    id: int
    side: str
    bits: int
    tile: Tile
    codebook: Codebook
    metadata: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name without the common parts: `k4`."""
        return self.name.split("_")[1]

    @property
    def has_offset(self) -> bool:
        """Whether a lane has an offset besides its scale."""
        return "offset" in self.metadata

    @property
    def enum(self) -> str:
        """The constant in ggml.h, in upper case up to the shape, as in GGML_TYPE_QLUTATTN_K4_128x128."""
        stem, _, shape = self.name.rpartition("_")
        return f"GGML_TYPE_{stem.upper()}_{shape}"

    @property
    def lanes(self) -> str:
        """The axis of a lane, which has its own scale."""
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
        return self.code_bytes + self.tile.pack_size * 2 * len(self.metadata)

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
        """The fraction of an f16 cache's memory that this type saves."""
        return 1 - self.bpw / F16_BITS


@dataclass(frozen=True)
class Formats:
    """All of `templates/formats.toml`."""

    tile: Tile
    codebooks: Mapping[int, Codebook]
    types: tuple[QuantType, ...]

    @property
    def books(self) -> tuple[Codebook, ...]:
        """Every codebook with levels of its own: those of the bit widths, then those of types."""
        shared = (_LINEAR, *self.codebooks.values())
        own = (found.codebook for found in self.types if not any(found.codebook is book for book in shared))
        return (*self.codebooks.values(), *own)


class _CodebookTable(Record, frozen=True):
    levels: _Levels
    rms_to_scale: float
    layout: _Layout
    kernel: _Kernel


class _CodebookTables(Record, frozen=True):
    """One for each bit width."""

    one: _CodebookTable | None = field(name="1", default=None)
    two: _CodebookTable | None = field(name="2", default=None)
    four: _CodebookTable | None = field(name="4", default=None)


class _TypeTable(Record, frozen=True):
    """A type; missing keys default to those of its bit width or of the tile."""

    name: Text
    id: _Id
    side: Literal["k", "v"]
    bits: Literal[1, 2, 4, 8]
    metadata: tuple[str, ...] | None = None
    levels: _Levels | None = None
    rms_to_scale: float | None = None
    layout: _Layout | None = None
    kernel: _Kernel | None = None

    def __post_init__(self) -> None:
        if (self.levels is None) != (self.rms_to_scale is None):
            raise ValueError("'levels' and 'rms_to_scale' must be given together")
        if self.bits == LINEAR_BITS:
            self._check_linear()

    def _check_linear(self) -> None:
        stated = [key for key in _CodebookTable.__struct_fields__ if getattr(self, key) is not None]
        if stated:
            raise ValueError(f"codes of {LINEAR_BITS} bits are their own levels in one order: leave out '{stated[0]}'")
        if self.metadata not in (None, _LINEAR_METADATA):
            raise ValueError(f"'metadata' must be ['scale'] for {LINEAR_BITS} bits, which have no offsets")


class _File(Versioned, frozen=True):
    tile: Tile
    codebook: _CodebookTables
    types: tuple[_TypeTable, ...] = field(name="type", default=())

    def __post_init__(self) -> None:
        if not self.types:
            raise ValueError("it has no [[type]]")


def load_formats(path: Path) -> Formats:
    """Read and check `templates/formats.toml`."""
    file = load(path, _File)
    place = ""
    try:
        codebooks = {}
        for bits, table in ((1, file.codebook.one), (2, file.codebook.two), (4, file.codebook.four)):
            place = f" [codebook.{bits}]"
            if table:
                codebooks[bits] = _codebook(f"{bits}bit", bits, table)
        types: list[QuantType] = []
        for number, stated in enumerate(file.types, 1):
            place = f" [[type]] {number}"
            types.append(_type(stated, file.tile, codebooks, types))
    except ValueError as failure:
        raise ExpectedError(f"{path}{place}: {failure}.", FIX) from None
    return Formats(file.tile, MappingProxyType(codebooks), tuple(types))


def _check_metadata(metadata: tuple[str, ...]) -> None:
    if metadata not in METADATA:
        known = " or ".join(f"[{_listed(tuple(map(repr, kinds)))}]" for kinds in METADATA)
        raise ValueError(f"'metadata' must be {known}, not [{_listed(tuple(map(repr, metadata)))}]")


def _codebook(label: str, bits: int, table: _CodebookTable) -> Codebook:
    book = Codebook(label, bits, table.levels, table.rms_to_scale, table.layout, table.kernel)
    _check_levels(book)
    if not SMALLEST_START <= book.rms_to_scale < 1000:  # nor NaN
        raise ValueError(
            f"'rms_to_scale' must be a small positive number, from {SMALLEST_START} on, not {book.rms_to_scale}"
        )
    return book


def _check_levels(book: Codebook) -> None:
    bits = book.bits
    if len(book.levels) != 2**bits:
        raise ValueError(f"{bits}-bit codes need {2**bits} levels, not {len(book.levels)}")
    if not all(low < high for low, high in pairwise(book.levels)):
        raise ValueError("the levels must be strictly increasing")
    if book.levels != tuple(-level for level in reversed(book.levels)):
        raise ValueError("the levels must be symmetric about 0")
    if book.factors[-1] > LARGEST_FACTOR[bits]:
        raise ValueError(
            f"the levels divided by their common divisor {book.level_factor} reach {book.factors[-1]}, more than the "
            f"{LARGEST_FACTOR[bits]} whose products with int8 add up in 16 bits"
        )
    # The vector packer of 4 bits finds a code by the upper nibble of a byte and one comparison.
    largest_below = [threshold - 1 for threshold in book.thresholds]
    crowded = Counter(limit // 16 for limit in largest_below if limit % 16 != 15)
    if bits == 4 and crowded.most_common(1)[0][1] > 1:
        start = 16 * crowded.most_common(1)[0][0]
        raise ValueError(
            f"more than one midpoint of two levels lies from {start + 1} to {start + 15}: 4-bit codes allow one "
            "between two multiples of 16"
        )


def _type(table: _TypeTable, tile: Tile, codebooks: Mapping[int, Codebook], before: Sequence[QuantType]) -> QuantType:
    for other in before:
        if other.id == table.id:
            raise ValueError(f"the id {table.id} of '{table.name}' is that of '{other.name}'")
        if other.name == table.name:
            raise ValueError(f"the name '{table.name}' is used twice")
    if table.bits not in codebooks and table.bits != LINEAR_BITS:
        raise ValueError(f"there is no [codebook.{table.bits}] for 'bits' = {table.bits}")
    shape = f"_{tile.pack_size}x{tile.pack_size}"
    stem = f"qlutattn_{table.side}{table.bits}"
    if not re.fullmatch(rf"{stem}[a-z]*{shape}", table.name):
        raise ValueError(
            f"the name must be '{stem}{shape}' for this side, bit width and tile, or have letters after the "
            f"bits ('{stem}x{shape}'), not '{table.name}'"
        )
    usual = _LINEAR_METADATA if table.bits == LINEAR_BITS else tile.metadata
    metadata = usual if table.metadata is None else table.metadata
    _check_metadata(metadata)
    book = _LINEAR if table.bits == LINEAR_BITS else codebooks[table.bits]
    stated = {key: getattr(table, key) for key in _CodebookTable.__struct_fields__ if getattr(table, key) is not None}
    if stated:
        shared = {key: getattr(book, key) for key in _CodebookTable.__struct_fields__}
        book = _codebook(table.name.split("_")[1], table.bits, _CodebookTable(**{**shared, **stated}))
    found = QuantType(table.name, table.id, table.side, table.bits, tile, book, metadata)
    if found.code_bytes % tile.pack_chunk_size or found.tile_bytes % tile.pack_size:
        raise ValueError(f"a tile of '{table.name}' does not divide into whole chunks and rows")
    return found


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)
