"""What the patch set takes for granted about a llama.cpp tree, checked before anything is made from it."""

from __future__ import annotations

import re
from collections.abc import Collection

from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.formats import Formats

GGML_H = "ggml/include/ggml.h"
GGML_C = "ggml/src/ggml.c"
LANDMARKS = ("CMakeLists.txt", GGML_H, GGML_C)

_ENUM = re.compile(r"enum\s+ggml_type\s*\{(.*?)\}", re.DOTALL)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANT = re.compile(r"(GGML_TYPE_\w+)\s*(?:=\s*(\d+))?\s*(?:,|$)")
_TYPE_NAME = re.compile(r"\.type_name\s*=\s*\"([^\"]+)\"")


def check_is_llama_cpp(files: Collection[str], what: str) -> None:
    """Refuse a tree that is not llama.cpp."""
    for landmark in LANDMARKS:
        if landmark not in files:
            raise ExpectedError(f"{what} is no llama.cpp: it has no {landmark}.")


def type_ids(ggml_h: str) -> dict[str, int]:
    """The constants of `enum ggml_type`, GGML_TYPE_COUNT among them."""
    enum = _ENUM.search(ggml_h)
    if enum is None:
        raise ExpectedError(f"{GGML_H} of this llama.cpp has no 'enum ggml_type {{'.", "pin a llama.cpp that has it")
    found: dict[str, int] = {}
    following = 0
    for name, value in _CONSTANT.findall(_COMMENT.sub("", enum[1]).strip()):
        found[name] = int(value) if value else following
        following = found[name] + 1
    return found


def check_types_are_free(formats: Formats, ggml_h: str, ggml_c: str) -> None:
    """Refuse an upstream that already uses an id, a constant or a name of ours."""
    ids = type_ids(ggml_h)
    hint = "give our types other ids or names in templates/formats.toml, or pin another llama.cpp"
    names = set(_TYPE_NAME.findall(ggml_c))
    taken = {value: name for name, value in ids.items() if name != "GGML_TYPE_COUNT"}
    for ours in formats.types:
        if ours.enum in ids:
            raise ExpectedError(f"This llama.cpp already has the type {ours.enum} (id {ids[ours.enum]}).", hint)
        if ours.id in taken:
            raise ExpectedError(
                f"This llama.cpp already has a type with the id {ours.id} of '{ours.name}': {taken[ours.id]}.",
                hint,
            )
        if ours.name in names:
            raise ExpectedError(f"This llama.cpp already has a type named '{ours.name}'.", hint)
    count, lowest = ids.get("GGML_TYPE_COUNT"), min(ours.id for ours in formats.types)
    if count is None:
        raise ExpectedError(f"{GGML_H} of this llama.cpp has no GGML_TYPE_COUNT.", "pin a llama.cpp that has it")
    if count > lowest:
        raise ExpectedError(f"GGML_TYPE_COUNT of this llama.cpp is {count}, above our lowest id {lowest}.", hint)
