"""`qlutattn size`: what each cache of a model would take, as a document and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from qlutattn_patch.measure.attention_layers import Model
from qlutattn_patch.measure.cache_size import SINK, WINDOW, Context, Size, size_of
from qlutattn_patch.measure.caches import UPSTREAM, Cache
from qlutattn_patch.system.records import Count, Number, Record, Versioned, doc
from qlutattn_patch.templates.formats import QuantType

COLUMNS = ("cache", "size", "of f16", "f16 part", "packed part", "f16 cells", "tiles")
RIGHT = COLUMNS[1:]


class SizeRow(Record, frozen=True, kw_only=True):
    """A cache of a model."""

    cache: Annotated[str, doc("such as q8_0 or K4V4+w512")]
    type_k: Annotated[str, doc("the type for -ctk")]
    type_v: Annotated[str, doc("the type for -ctv")]
    window: Annotated[Count | None, doc("newest tokens kept in f16; null where nothing is packed")]
    sink: Annotated[Count | None, doc("first tokens kept in f16; null where nothing is packed")]
    bytes: Annotated[Count | None, doc("of the whole cache; null where it is refused")]
    vs_f16: Annotated[Number | None, doc("bytes over those of f16; null where one of the two is refused")]
    f16_bytes: Annotated[Count, doc("f16 cells beside tiles, and layers with a sliding window; 0 without tiles")]
    packed_bytes: Annotated[Count, doc("tiles")]
    f16_cells: Annotated[Count, doc("of a stream")]
    tiles: Annotated[Count, doc("of a stream")]
    refused: Annotated[str | None, doc("why llama.cpp refuses it")]
    note: Annotated[str | None, doc("what is unusual about it")]


class SizedModel(Record, frozen=True, kw_only=True):
    """A model with its caches."""

    name: str
    arch: Annotated[str, doc("as llama.cpp names it")]
    layers: Annotated[int, doc("layers with keys and values of their own")]
    sliding_window: Annotated[Count, doc("tokens of it; 0 without one")]
    tokens: Annotated[int, doc("of the context, as -c")]
    per_sequence: Annotated[int, doc("tokens that a sequence has room for")]
    caches: list[SizeRow]


class SizeDocument(Versioned, frozen=True, kw_only=True):
    """What caches would take."""

    sequences: Annotated[int, doc("as -np")]
    unified: Annotated[bool, doc("whether sequences share one cache, as --kv-unified")]
    ubatch: Annotated[int, doc("as -ub")]
    models: list[SizedModel]


def sized(model: Model, context: Context, caches: Sequence[Cache], types: Sequence[QuantType]) -> SizedModel:
    """Each cache of a model in such a context."""
    f16 = size_of(model, Cache("f16", "f16", "f16", UPSTREAM["f16"]), context, types).total
    return SizedModel(
        name=model.name,
        arch=model.arch,
        layers=len(model.layers),
        sliding_window=model.window,
        tokens=context.tokens,
        per_sequence=context.per_sequence,
        caches=[_row(cache, size_of(model, cache, context, types), f16) for cache in caches],
    )


def table(model: SizedModel) -> list[list[str]]:
    """A row for each cache of one model."""
    return [
        [row.cache, shown(row), "" if row.vs_f16 is None else f"{row.vs_f16:.1%}", *_parts(row)] for row in model.caches
    ]


def _parts(row: SizeRow) -> list[str]:
    """The parts of a packed cache."""
    if not row.tiles:
        return [""] * 4
    return [mib(row.f16_bytes), mib(row.packed_bytes), str(row.f16_cells), str(row.tiles)]


def remarks(model: SizedModel) -> list[str]:
    """Why caches are refused, or unusual."""
    return [f"{row.cache}: {row.refused or row.note}" for row in model.caches if row.refused or row.note]


def shown(row: SizeRow) -> str:
    """The size of a cache in a table."""
    return "refused" if row.bytes is None else mib(row.bytes)


def mib(size: int) -> str:
    return f"{size / 2**20:.{1 if size < 100 << 20 else 0}f} MiB"


def _row(cache: Cache, size: Size, f16: int) -> SizeRow:
    is_packed = cache.name not in UPSTREAM
    total = None if size.refused else size.total
    return SizeRow(
        cache=cache.name,
        type_k=cache.type_k,
        type_v=cache.type_v,
        window=(WINDOW if cache.window is None else cache.window) if is_packed else None,
        sink=(SINK if cache.sink is None else cache.sink) if is_packed else None,
        bytes=total,
        vs_f16=None if total is None else total / f16,
        f16_bytes=size.f16 if size.tiles else 0,
        packed_bytes=size.packed,
        f16_cells=size.cells if size.tiles else 0,
        tiles=size.tiles,
        refused=size.refused,
        note=size.note,
    )
