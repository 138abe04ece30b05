"""How large a tile is, in every place of a patched tree that says so: all must say the same, before a compiler does."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from qlutattn_patch.templates.formats import Formats
from qlutattn_patch.upstream.layout import CONSTANTS_PY, TRAITS_INC

TYPES_CPP = "ggml/src/ggml-qlutattn-types.cpp"
CONFIG_CPP = "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp"
ALIGN_CPP = "tools/align-attn/formats-table.cpp"
STATEMENTS = (TRAITS_INC, TYPES_CPP, CONFIG_CPP, ALIGN_CPP)

_TRAIT = re.compile(
    r"\[(?P<enum>GGML_TYPE_\w+)\]\s*=\s*\{\s*\.type_name\s*=\s*\"(?P<name>\w+)\",\s*"
    r"\.blck_size\s*=\s*(?P<block>\d+),\s*\.type_size\s*=\s*(?P<size>\d+),"
)
_ASSERT = re.compile(
    r"static_assert\((?P<size>\d+) \* (?P<block>\d+) == (?P<lanes>\d+) \* (?P<depth>\d+) \* (?P<bits>\d+) / 8 \+ "
    r"(?P<kinds>\d+) \* (?P<each>\d+) \* sizeof\(ggml_fp16_t\), \"(?P<name>\w+): bytes of a tile\"\);"
)
_CONFIG = re.compile(r"\.tile_bytes\(\) == (?P<bytes>\d+), \"(?P<name>\w+): bytes of a tile\"\);")
_PYTHON = re.compile(r"^    GGMLQuantizationType\.(?P<name>QLUTATTN_\w+):\s*\((?P<block>\d+), (?P<size>\d+)\),", re.M)
_ALIGN = re.compile(r"\{ (?P<enum>GGML_TYPE_QLUTATTN_\w+), \"\w+\", \w+, (?P<bits>\d), (?P<offset>true|false),")
_HALF = 2  # sizeof(ggml_fp16_t)


def disagreements(texts: Mapping[str, str], formats: Formats | None = None) -> list[str]:
    """Where files of a patched tree, as far as they are there, disagree about a tile, with each other or the table."""
    stated: dict[str, dict[str, int]] = defaultdict(dict)  # bytes of a tile by type and file
    found: list[str] = []
    for file, name, size in _statements(texts, found):
        stated[name][file] = size
    wanted = {kind.name: kind.tile_bytes for kind in formats.types} if formats else {}
    there = sorted({file for said in stated.values() for file in said} | {*STATEMENTS} & {*texts})
    for name in dict.fromkeys((*wanted, *stated)):
        said = stated[name]
        if wanted and name not in wanted:
            found.append(f"{min(said)} has '{name}', which formats.toml lacks")
            continue
        found += [f"{file} does not say how large a tile of '{name}' is" for file in there if file not in said]
        right = wanted.get(name, next(iter(said.values()), 0))
        first = "formats.toml" if wanted else next(iter(said), "")
        found += [
            f"a tile of '{name}' has {size} bytes in {file}, and {right} in {first}"
            for file, size in said.items()
            if size != right
        ]
    return found


def _statements(texts: Mapping[str, str], wrong: list[str]) -> Iterable[tuple[str, str, int]]:
    """What each file says of each type; what contradicts itself goes to `wrong`."""
    for row in _TRAIT.finditer(texts.get(TRAITS_INC, "")):
        if row["enum"].removeprefix("GGML_TYPE_").lower() != row["name"]:
            wrong.append(f"{TRAITS_INC} gives {row['enum']} the name '{row['name']}'")
        yield TRAITS_INC, row["name"], int(row["size"]) * int(row["block"])
    for row in _ASSERT.finditer(texts.get(TYPES_CPP, "")):
        codes = int(row["lanes"]) * int(row["depth"]) * int(row["bits"]) // 8
        made = codes + int(row["kinds"]) * int(row["each"]) * _HALF
        said = int(row["size"]) * int(row["block"])
        if made != said:
            wrong.append(f"{TYPES_CPP} asserts of '{row['name']}' that {said} bytes are {made}")
        yield TYPES_CPP, row["name"], said
    for row in _CONFIG.finditer(texts.get(CONFIG_CPP, "")):
        yield CONFIG_CPP, row["name"], int(row["bytes"])
    for row in _ALIGN.finditer(texts.get(ALIGN_CPP, "")):
        name = row["enum"].removeprefix("GGML_TYPE_").lower()
        yield ALIGN_CPP, name, 2048 * int(row["bits"]) + (512 if row["offset"] == "true" else 256)
    for row in _PYTHON.finditer(texts.get(CONSTANTS_PY, "")):
        yield CONSTANTS_PY, row["name"].lower(), int(row["size"]) * int(row["block"])
