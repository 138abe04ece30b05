"""Typed records of TOML tables, files and JSON documents, validated on reading."""

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
    """A file or document with its schema version."""


def doc(description: str) -> msgspec.Meta:
    """The schema's description of a key."""
    return msgspec.Meta(description=description)


def typed(raw: object, kind: type[T]) -> T:
    """Parsed data as a record; msgspec.ValidationError names the problem and its place."""
    tag = kind.__struct_config__.tag_field
    if tag and isinstance(raw, dict) and tag not in raw:  # msgspec accepts a missing tag outside of unions
        raise msgspec.ValidationError(f"Object missing required field `{tag}`")
    return msgspec.convert(raw, kind, dec_hook=_text)


def plain(value: object) -> Any:
    """A record as JSON values; numbers that JSON lacks, such as NaN, become null."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_plain_text))


def encoded(record: msgspec.Struct, is_sorted: bool = False) -> bytes:
    """A record as the contents of a JSON file."""
    data = msgspec.json.encode(record, enc_hook=_plain_text, order="sorted" if is_sorted else None)
    return msgspec.json.format(data, indent=1) + b"\n"


def read(path: Path, kind: type[T]) -> T:
    """Read a record from a JSON file; ValueError if it is invalid."""
    data = path.read_bytes()
    try:
        return typed(msgspec.json.decode(data), kind)
    except (ValueError, RecursionError) as failure:  # msgspec's errors are ValueErrors
        raise ValueError(f"{path.name}: {failure}") from None


def _text(kind: type[Any], value: object) -> object:
    """A validated string type such as RepositoryPath, which raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return kind(value)


def _plain_text(value: object) -> str:
    """A validated string type as a string."""
    if not isinstance(value, str):
        raise NotImplementedError(f"{type(value)} cannot be written as JSON")
    return str(value)
