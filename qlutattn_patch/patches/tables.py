"""Checks of the tables of a llama.cpp tree that the patch set depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qlutattn_patch.templates.formats import Formats
from qlutattn_patch.upstream.layout import CONSTANTS_PY, GGML_C, GGML_H, LLAMA_H, RPC_H, TRAITS_INC

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANT = re.compile(r"((?:GGML|LLAMA)_\w+)\s*(?:=\s*(-?\d+))?\s*(?:,|$)")
_TYPE_NAME = re.compile(r"\.type_name\s*=\s*\"([^\"]+)\"")
_TRAIT = re.compile(r"^\s*\[(GGML_TYPE_\w+)\]\s*=\s*\{", re.MULTILINE)
_TRAITS = re.compile(r"\btype_traits\[GGML_TYPE_COUNT\]\s*=\s*\{(.*?)\n\};", re.DOTALL)
_OP_TABLE = r"\bGGML_OP_{}\[GGML_OP_COUNT\]\s*=\s*\{{(.*?)\n\}};"
_OP_ASSERT = re.compile(r"static_assert\(GGML_OP_COUNT\s*==\s*(\d+)")
_RPC_VERSION = r"^#define\s+RPC_PROTO_{}_VERSION\s+(\d+)"
_GGUF_CLASS = r"^class {}\(IntEnum\):\n(.*?)(?=^\S)"
_GGUF_TYPE = re.compile(r"^    (\w+)\s*=\s*(\d+)", re.MULTILINE)
_GGUF_SIZE = re.compile(r"^    GGMLQuantizationType\.(\w+):", re.MULTILINE)


def facts(texts: Mapping[str, str]) -> dict[str, int]:
    """The numbers that hooks may name as `{{ upstream.NAME }}`, if this upstream has them."""
    types, ops = constants(texts[GGML_H], "ggml_type"), constants(texts[GGML_H], "ggml_op")
    rpc = rpc_version(texts.get(RPC_H, ""))
    found = {"type_count": types.get("GGML_TYPE_COUNT"), "op_count": ops.get("GGML_OP_COUNT")}
    found["rpc_patch"] = rpc[2] if rpc else None
    return {name: value for name, value in found.items() if value is not None}


def constants(ggml_h: str, enum: str) -> dict[str, int]:
    """The constants of an enum in a header, including its COUNT; empty without such an enum."""
    body = re.search(rf"\benum\s+{enum}\s*\{{(.*?)\}}", ggml_h, re.DOTALL)
    found: dict[str, int] = {}
    following = 0
    for name, value in _CONSTANT.findall(_COMMENT.sub("", body[1]).strip() if body else ""):
        found[name] = int(value) if value else following
        following = found[name] + 1
    return found


def rpc_version(rpc_h: str) -> tuple[int, int, int] | None:
    """The version of ggml-rpc's protocol."""
    parts = [re.search(_RPC_VERSION.format(part), rpc_h, re.MULTILINE) for part in ("MAJOR", "MINOR", "PATCH")]
    major, minor, patch = (int(part[1]) if part else None for part in parts)
    return None if major is None or minor is None or patch is None else (major, minor, patch)


def file_types(texts: Mapping[str, str], what: str) -> dict[str, int]:
    """The types of files in `ggml_ftype`, `llama_ftype` or gguf-py's `LlamaFileType`."""
    if what == "LlamaFileType":
        return _gguf_class(texts.get(CONSTANTS_PY, ""), what)
    return constants(texts.get(LLAMA_H if what == "llama_ftype" else GGML_H, ""), what)


def collisions(formats: Formats, texts: Mapping[str, str]) -> list[str]:
    """The ids, constants and names of QLUTATTN that an upstream already uses."""
    ids, ops = (constants(texts[GGML_H], enum) for enum in ("ggml_type", "ggml_op"))
    if "GGML_TYPE_COUNT" not in ids:
        return [f"{GGML_H} has no 'enum ggml_type {{' with a GGML_TYPE_COUNT"]
    found = [f"{GGML_H} already has the op GGML_OP_{_OURS}"] if f"GGML_OP_{_OURS}" in ops else []
    names = set(_TYPE_NAME.findall(texts[GGML_C]))
    gguf = _gguf_types(texts.get(CONSTANTS_PY, ""))
    taken = {value: name for name, value in ids.items() if name != "GGML_TYPE_COUNT"}
    taken = {value: f"GGMLQuantizationType.{name} of {CONSTANTS_PY}" for name, value in gguf.items()} | taken
    for ours in formats.types:
        if ours.enum in ids:
            found.append(f"{GGML_H} already has the type {ours.enum} (id {ids[ours.enum]})")
        elif ours.id in taken:
            found.append(f"there is already a type with the id {ours.id} of '{ours.name}': {taken[ours.id]}")
        if ours.name in names:
            found.append(f"{GGML_C} already has a type named '{ours.name}'")
        if ours.name.upper() in gguf:
            found.append(f"{CONSTANTS_PY} already has GGMLQuantizationType.{ours.name.upper()}")
    lowest = min(ours.id for ours in formats.types)
    if not found and ids["GGML_TYPE_COUNT"] > lowest:
        found.append(f"GGML_TYPE_COUNT is {ids['GGML_TYPE_COUNT']}, above QLUTATTN's lowest id {lowest}")
    return found


def mismatches(texts: Mapping[str, str]) -> list[str]:
    """The contradictions between the tables of a tree, pristine or patched; missing tables are skipped."""
    types, ops = constants(texts[GGML_H], "ggml_type"), constants(texts[GGML_H], "ggml_op")
    return [
        *_repeated(types, "ggml_type"),
        *_trait_mismatches(types, texts),
        *_gguf_mismatches(types, texts.get(CONSTANTS_PY, "")),
        *_op_mismatches(ops, texts),
        *_file_type_mismatches(texts),
    ]


def _repeated(ids: Mapping[str, int], enum: str) -> list[str]:
    seen: dict[int, str] = {}
    return [
        f"{GGML_H}: {name} and {first} of enum {enum} are both {value}"
        for name, value in ids.items()
        if not name.endswith("_COUNT") and (first := seen.setdefault(value, name)) != name
    ]


def _trait_mismatches(types: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """type_traits against enum ggml_type: a type without traits is read as zeros."""
    table = _TRAITS.search(texts[GGML_C])
    if table is None:
        return []
    rows = _TRAIT.findall(_COMMENT.sub("", table[1]))
    rows += _TRAIT.findall(_COMMENT.sub("", texts.get(TRAITS_INC, "")))
    wanted = [name for name in types if name != "GGML_TYPE_COUNT"]
    found = [f"{GGML_C}: type_traits has no row for {name} of {GGML_H}" for name in wanted if name not in rows]
    found += [f"{GGML_C}: type_traits has a row for {name}, which {GGML_H} lacks" for name in rows if name not in types]
    twice = sorted({name for name in rows if rows.count(name) > 1})
    return found + [f"{GGML_C}: type_traits has more than one row for {name}" for name in twice]


def _gguf_mismatches(types: Mapping[str, int], constants_py: str) -> list[str]:
    """gguf-py's types and sizes against enum ggml_type."""
    gguf = _gguf_types(constants_py)
    if not gguf:
        return []
    found = []
    for name, value in types.items():
        theirs = gguf.get(name.removeprefix("GGML_TYPE_").upper())  # gguf-py writes every name in capitals
        if theirs != value and name != "GGML_TYPE_COUNT":
            finding = "does not have it" if theirs is None else f"has {theirs}"
            found.append(f"{name} is {value} in {GGML_H}, and {CONSTANTS_PY} {finding}")
    found += [
        f"{CONSTANTS_PY}: GGMLQuantizationType.{name} is not a type of {GGML_H}"
        for name in gguf
        if f"GGML_TYPE_{name}" not in {kind.upper() for kind in types}
    ]
    sized = _GGUF_SIZE.findall(constants_py)
    found += [f"{CONSTANTS_PY}: GGML_QUANT_SIZES has no row for {name}" for name in gguf if name not in sized]
    return found + [f"{CONSTANTS_PY}: GGML_QUANT_SIZES has a row for {n}, not a type" for n in sized if n not in gguf]


def _gguf_types(constants_py: str) -> dict[str, int]:
    return _gguf_class(constants_py, "GGMLQuantizationType")


def _gguf_class(constants_py: str, name: str) -> dict[str, int]:
    body = re.search(_GGUF_CLASS.format(name), constants_py, re.DOTALL | re.MULTILINE)
    return {name: int(value) for name, value in _GGUF_TYPE.findall(body[1] if body else "")}


def _file_type_mismatches(texts: Mapping[str, str]) -> list[str]:
    """Contradictions of the file types: repeated numbers, and gguf-py against llama.h."""
    found = []
    enums = {what: file_types(texts, what) for what in ("ggml_ftype", "llama_ftype", "LlamaFileType")}
    for what, numbers in enums.items():
        seen: dict[int, str] = {}
        found += [
            f"{name} and {first} of {what} are both {value}"
            for name, value in numbers.items()
            if (first := seen.setdefault(value, name)) != name
        ]
    theirs = enums["LlamaFileType"]
    for name, value in enums["llama_ftype"].items():
        python = theirs.get(name.removeprefix("LLAMA_FTYPE_"))
        if theirs and python != value:
            finding = "does not have it" if python is None else f"has {python}"
            found.append(f"{name} is {value} in {LLAMA_H}, and {CONSTANTS_PY} {finding}")
    return found


def _op_mismatches(ops: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """The ops' names and symbols against enum ggml_op, and every assertion of their number."""
    if not ops:
        return []
    found = []
    count = ops.get("GGML_OP_COUNT")
    wanted = [name.removeprefix("GGML_OP_") for name in ops if name != "GGML_OP_COUNT"]
    for table in ("NAME", "SYMBOL"):
        body = re.search(_OP_TABLE.format(table), texts[GGML_C], re.DOTALL)
        rows = re.findall(r'"([^"]*)"', _COMMENT.sub("", body[1])) if body else []
        if body and len(rows) != len(wanted):
            found.append(f"{GGML_C}: GGML_OP_{table} has {len(rows)} rows, and enum ggml_op has {len(wanted)} ops")
        elif table == "NAME":
            found += [
                f"{GGML_C}: GGML_OP_NAME has '{row}' where enum ggml_op has GGML_OP_{name}"
                for row, name in zip(rows, wanted, strict=False)
                if row != name
            ]
        elif _OURS in wanted and rows and rows[wanted.index(_OURS)] != _OUR_SYMBOL:
            found.append(f"{GGML_C}: GGML_OP_SYMBOL has '{rows[wanted.index(_OURS)]}' where {_OUR_SYMBOL} belongs")
    for file in (GGML_C, RPC_H):
        counts = sorted({int(number) for number in _OP_ASSERT.findall(texts.get(file, ""))} - {count})
        found += [f"{file} asserts that GGML_OP_COUNT is {number}, and {GGML_H} makes it {count}" for number in counts]
    return found


_OURS, _OUR_SYMBOL = "FLASH_ATTN_EXT_MIXED", "flash_attn_ext_mixed(x)"
