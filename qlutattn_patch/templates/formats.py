"""The types as `templates/formats.toml` describes them: checked, and with what follows from them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from qlutattn_patch.system.toml import TomlTable, read_toml

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
# What a lane may have of its own: one f16 of each, in this order.
METADATA = (("scale", "offset"), ("scale",))
# With a smaller rms_to_scale the value of a lane of one value and 127 zeros would not fit the encoder's 16 bits.
SMALLEST_START = 0.45


@dataclass(frozen=True)
class Tile:
    """The shape that all types share: `pack_size` lanes of `pack_size` codes, then the metadata of each lane.

    `metadata` is that of a type that states none.
    """

    pack_size: int
    pack_chunk_size: int
    level_unit: int
    metadata: tuple[str, ...]


@dataclass(frozen=True)
class Codebook:
    """What codes stand for, and how they are stored: of a bit width, or of a type that states levels of its own."""

    label: str
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

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Where the next code begins: the midpoints of levels, halves away from 0."""
        return tuple((abs(low + high) + 1) // 2 * (1 if low + high > 0 else -1) for low, high in pairwise(self.levels))


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
        """What is left of the name without what all share: `k4`."""
        return self.name.split("_")[1]

    @property
    def has_offset(self) -> bool:
        """Whether a lane has an offset beside its scale."""
        return "offset" in self.metadata

    @property
    def enum(self) -> str:
        """The constant in ggml.h: upper case up to the shape, as in GGML_TYPE_QLUTATTN_K4_128x128."""
        stem, _, shape = self.name.rpartition("_")
        return f"GGML_TYPE_{stem.upper()}_{shape}"

    @property
    def lanes(self) -> str:
        """What a lane is: the axis that has a scale of its own."""
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
        """The part of an f16 cache's memory that this type saves."""
        return 1 - self.bpw / F16_BITS


@dataclass(frozen=True)
class Formats:
    """All of `templates/formats.toml`."""

    tile: Tile
    codebooks: Mapping[int, Codebook]
    types: tuple[QuantType, ...]

    @property
    def books(self) -> tuple[Codebook, ...]:
        """Every codebook: those of the bit widths, then those that types have of their own."""
        own = (found.codebook for found in self.types if found.codebook is not self.codebooks[found.bits])
        return (*self.codebooks.values(), *own)


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


def _tile(fields: TomlTable) -> Tile:
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
    _check_metadata(fields, tile.metadata)
    fields.done()
    return tile


def _check_metadata(fields: TomlTable, metadata: tuple[str, ...]) -> None:
    if metadata not in METADATA:
        known = " or ".join(f"[{_listed(tuple(map(repr, kinds)))}]" for kinds in METADATA)
        raise fields.wrong(f"'metadata' must be {known}, not [{_listed(tuple(map(repr, metadata)))}]")


def _codebook(name: str, fields: TomlTable) -> Codebook:
    if name not in (str(bits) for bits in BIT_WIDTHS):
        raise fields.wrong(f"the bit width must be one of {_listed(BIT_WIDTHS)}")
    book = _own_codebook(fields, f"{name}bit", int(name))
    fields.done()
    return book


def _own_codebook(fields: TomlTable, label: str, bits: int, base: Codebook | None = None) -> Codebook:
    """The codebook that a table states; what it leaves out is that of `base`."""
    book = Codebook(
        label=label,
        bits=bits,
        levels=fields.integers("levels", base.levels if base else None),
        rms_to_scale=fields.number("rms_to_scale", base.rms_to_scale if base else None),
        layout=fields.text("layout", default=base.layout if base else None),
        kernel=fields.text("kernel", default=base.kernel if base else None),
    )
    _check_levels(fields, book)
    if not SMALLEST_START <= book.rms_to_scale < 1000:
        raise fields.wrong(
            f"'rms_to_scale' must be a small positive number, from {SMALLEST_START} on, not {book.rms_to_scale}"
        )
    if book.layout not in LAYOUTS:
        raise fields.wrong(f"'layout' must be one of {_listed(LAYOUTS)}, not '{book.layout}'")
    if book.kernel not in KERNELS:
        raise fields.wrong(f"'kernel' must be one of {_listed(KERNELS)}, not '{book.kernel}'")
    return book


def _check_levels(fields: TomlTable, book: Codebook) -> None:
    bits = book.bits
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
    # The vector packer of 4 bits finds a code by the upper nibble of a byte and one comparison.
    largest_below = [threshold - 1 for threshold in book.thresholds]
    crowded = Counter(limit // 16 for limit in largest_below if limit % 16 != 15)
    if bits == 4 and crowded.most_common(1)[0][1] > 1:
        start = 16 * crowded.most_common(1)[0][0]
        raise fields.wrong(
            f"more than one midpoint of two levels lies from {start + 1} to {start + 15}: 4-bit codes allow one "
            "between two multiples of 16"
        )


def _type(fields: TomlTable, tile: Tile, codebooks: Mapping[int, Codebook]) -> QuantType:
    name, number, side, bits = fields.text("name"), fields.integer("id"), fields.text("side"), fields.integer("bits")
    if side not in LANES:
        raise fields.wrong(f"'side' must be 'k' or 'v', not '{side}'")
    if bits not in codebooks:
        raise fields.wrong(f"there is no [codebook.{bits}] for 'bits' = {bits}")
    shape = f"_{tile.pack_size}x{tile.pack_size}"
    stem = f"qlutattn_{side}{bits}"
    if not re.fullmatch(rf"{stem}[a-z]*{shape}", name):
        raise fields.wrong(
            f"the name must be '{stem}{shape}' for this side, bit width and tile, or have letters after the "
            f"bits ('{stem}x{shape}'), not '{name}'"
        )
    if number > LAST_ID:
        raise fields.wrong(f"the id {number} is too large (the last one is {LAST_ID})")
    if number < FIRST_FREE_ID:
        raise fields.wrong(f"the id {number} is upstream's (ours start at {FIRST_FREE_ID})")
    metadata = fields.texts("metadata", tile.metadata)
    _check_metadata(fields, metadata)
    book = codebooks[bits]
    if ("levels" in fields) != ("rms_to_scale" in fields):
        raise fields.wrong("'levels' and 'rms_to_scale' belong together: a start is for its levels")
    if any(key in fields for key in ("levels", "layout", "kernel")):
        book = _own_codebook(fields, name.split("_")[1], bits, book)
    fields.done()
    found = QuantType(name, number, side, bits, tile, book, metadata)
    if found.code_bytes % tile.pack_chunk_size or found.tile_bytes % tile.pack_size:
        raise fields.wrong(f"a tile of '{name}' does not divide into whole chunks and rows")
    return found


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)
