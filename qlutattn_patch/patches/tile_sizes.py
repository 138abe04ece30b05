"""The tile sizes in the tables that the compiler does not check: ggml's type traits and gguf-py's sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qlutattn_patch.templates.formats import Formats
from qlutattn_patch.upstream.layout import CONSTANTS_PY, TRAITS_INC

_TRAIT = re.compile(
    r"\.type_name\s*=\s*\"(?P<name>\w+)\",\s*\.blck_size\s*=\s*(?P<block>\d+),\s*\.type_size\s*=\s*(?P<size>\d+),"
)
_GGUF = re.compile(r"^    GGMLQuantizationType\.(?P<name>QLUTATTN_\w+):\s*\((?P<block>\d+), (?P<size>\d+)\),", re.M)
_ROWS = {TRAITS_INC: _TRAIT, CONSTANTS_PY: _GGUF}


def disagreements(texts: Mapping[str, str], formats: Formats | None = None) -> list[str]:
    """Where the existing tables of a patched tree disagree with formats.toml or with each other.

    The compiler compares the sizes of the types, the kernels and align_attn by their static_asserts.
    """
    stated = {file: _tile_bytes(row, texts[file]) for file, row in _ROWS.items() if file in texts}
    if not stated.get(CONSTANTS_PY):
        stated.pop(CONSTANTS_PY, None)  # types missing from gguf-py are reported by `tables`
    first, wanted = next(iter(stated.items()), ("", {}))
    if formats:
        first, wanted = "formats.toml", {kind.name: kind.tile_bytes for kind in formats.types}
    return [
        f"a tile of '{name}' has {_bytes(sizes.get(name))} in {file}, and {_bytes(wanted.get(name))} in {first}"
        for file, sizes in stated.items()
        for name in dict.fromkeys((*wanted, *sizes))
        if sizes.get(name) != wanted.get(name)
    ]


def _tile_bytes(row: re.Pattern[str], text: str) -> dict[str, int]:
    """Bytes of a tile by type: a tile has as many blocks as a block has values."""
    return {found["name"].lower(): int(found["size"]) * int(found["block"]) for found in row.finditer(text)}


def _bytes(size: int | None) -> str:
    return "no size" if size is None else f"{size} bytes"
