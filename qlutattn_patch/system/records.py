"""Typed records: what the tables, files and documents of ours hold, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

Number = int | float  # as it was written: 0 stays 0
Count = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of TOML or an object of JSON; unknown keys are refused."""


class Versioned(Record, frozen=True, tag_field="schema", tag=1):
    """A whole file, which says by which schema it is written."""


def doc(description: str) -> msgspec.Meta:
    """What the schema says of a key."""
    return msgspec.Meta(description=description)


def typed(raw: object, kind: type[T]) -> T:
    """What was read, as a record; msgspec.ValidationError says why it is none, and where."""
    tag = kind.__struct_config__.tag_field
    if tag and isinstance(raw, dict) and tag not in raw:  # msgspec does without where there is no choice
        raise msgspec.ValidationError(f"Object missing required field `{tag}`")
    return msgspec.convert(raw, kind, dec_hook=_text)


def plain(value: object) -> Any:
    """A record as JSON has it: numbers that JSON does not have, such as NaN, are null."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_plain_text))


def encoded(record: msgspec.Struct, is_sorted: bool = False) -> bytes:
    """The contents of the JSON file that holds a record."""
    data = msgspec.json.encode(record, enc_hook=_plain_text, order="sorted" if is_sorted else None)
    return msgspec.json.format(data, indent=1) + b"\n"


def read(path: Path, kind: type[T]) -> T:
    """The record that a JSON file holds; ValueError if it holds none."""
    data = path.read_bytes()
    try:
        return typed(msgspec.json.decode(data), kind)
    except (ValueError, RecursionError) as failure:  # msgspec's errors are ValueErrors
        raise ValueError(f"{path.name}: {failure}") from None


def _text(kind: type[Any], value: object) -> object:
    """A string of a kind of its own, such as RepositoryPath, which raises ValueError for what is none."""
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return kind(value)


def _plain_text(value: object) -> str:
    """A string of a kind of its own as a string."""
    if not isinstance(value, str):
        raise NotImplementedError(f"{type(value)} is not for JSON")
    return str(value)
