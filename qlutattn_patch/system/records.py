"""Typed records: what the tables, files and documents of ours hold, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of TOML or an object of JSON; unknown keys are refused."""


class Versioned(Record, frozen=True, tag_field="schema", tag=1):
    """A whole file, which says by which schema it is written."""


def typed(raw: object, kind: type[T]) -> T:
    """What was read, as a record; msgspec.ValidationError says why it is none, and where."""
    tag = kind.__struct_config__.tag_field
    if tag and isinstance(raw, dict) and tag not in raw:  # msgspec does without where there is no choice
        raise msgspec.ValidationError(f"Object missing required field `{tag}`")
    return msgspec.convert(raw, kind, dec_hook=_text)


def plain(value: object) -> Any:
    """A record as JSON has it: numbers that JSON does not have, such as NaN, are null."""
    return msgspec.json.decode(msgspec.json.encode(value))


def read(path: Path, kind: type[T]) -> T:
    """The record that a JSON file holds; ValueError if it holds none."""
    data = path.read_bytes()
    try:
        return typed(msgspec.json.decode(data), kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as failure:
        raise ValueError(f"{path.name}: {failure}") from None


def _text(kind: type[Any], value: object) -> object:
    """A string of a kind of its own, such as RepositoryPath, which raises ValueError for what is none."""
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return kind(value)
