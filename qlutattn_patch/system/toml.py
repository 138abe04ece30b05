"""Strict reading of TOML into records; errors are one sentence with the place."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, inspect

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import is_of_git, is_plain_path
from qlutattn_patch.system.records import typed

T = TypeVar("T", bound=msgspec.Struct)

FIX = "fix that file, then run the same command again"
_LONGEST = 80  # characters shown of a value
_WORDS = {"str": "a string", "int": "an integer", "float": "a number", "array": "a list", "object": "a table"}

Text = Annotated[str, Meta(pattern=r"\S", description="a text that is not blank")]
Version = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.+!_-]*\Z", description="a version")]


class RepositoryPath(str):
    """A plain relative path with forward slashes, below the top of a repository."""

    def __new__(cls, value: str) -> RepositoryPath:
        if is_of_git(PurePosixPath(value)):
            raise ValueError(f"leads into a .git folder: {shown(value)}")
        if not is_plain_path(value):
            raise ValueError(f"is not a plain relative path: {shown(value)}")
        return super().__new__(cls, value)


def shown(value: str) -> str:
    """A value from a file, in quotes and on one line."""
    return f"'{value}'" if value.isprintable() else ascii(value)


def read_text(path: Path, hint: str | None = None) -> str:
    """Read a UTF-8 text file of the project, keeping line endings; else an ExpectedError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ExpectedError(f"There is no file {path}.", hint or "restore it: git checkout -- that file") from None
    except UnicodeDecodeError as failure:
        raise ExpectedError(f"{path} is not UTF-8 (byte {failure.start}).", FIX) from None
    except OSError as failure:
        raise ExpectedError(f"{path} cannot be read: {failure.strerror}.", FIX) from None


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file of the project into a record."""
    try:
        # TOML forbids a lone CR; a checkout with CRLF line endings reads the same as one without
        raw = msgspec.toml.decode(read_text(path).replace("\r\n", "\n"))
    except RecursionError:
        raise ExpectedError(f"{path} is not valid TOML: it is nested too deeply.", FIX) from None
    except ValueError as failure:  # invalid TOML, or a number with thousands of digits
        raise ExpectedError(f"{path} is not valid TOML: {failure}.", FIX) from None
    try:
        return typed(raw, kind)
    except msgspec.ValidationError as failure:
        raise ExpectedError(f"{path}{_sentence(str(failure), raw, kind)}.", FIX) from None


def _sentence(failure: str, raw: Any, kind: type[msgspec.Struct]) -> str:
    """msgspec's error as a sentence: ` [[type]] 4: 'id' must be ..., not 3` for `... - at $.type[3].id`."""
    found = re.fullmatch(r"(.*?)(?: - at `\$(.*)`)?", failure, re.DOTALL)
    assert found is not None
    value, kinds = raw, [inspect.type_info(kind)]
    place = header = key = label = ""
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", found[2] or ""):
        value, kinds = value[name or int(index)], _below(kinds, name)
        key = name or key
        label = "" if isinstance(value, dict) else f"'{key}' " + (f"at {int(index) + 1} " if index else "")
        if isinstance(value, dict) and name:
            header = f"{header}.{name}".strip(".")
        elif isinstance(value, dict):
            place, header = f"{place} [[{key}]] {int(index) + 1}", ""
    return f"{place}{f' [{header}]' if header else ''}: {label}{_wrong(found[1], value, kinds)}"


def _wrong(what: str, value: Any, kinds: list[inspect.Type]) -> str:
    """What is wrong with a value that may be of these kinds."""
    if missing := re.fullmatch("Object missing required field `(.*)`", what):
        return f"the key '{missing[1]}' is missing"
    if unknown := re.fullmatch("Object contains unknown field `(.*)`", what, re.DOTALL):
        structs = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
        meant = [kind for kind in structs if kind.tag_field is None or value[kind.tag_field] == kind.tag]
        known = ", ".join(field.encode_name for kind in meant for field in kind.fields)
        return f"unknown key {shown(unknown[1])} (known are {known})"
    if not what.startswith(("Expected ", "Invalid ", "Number ")):
        return what  # from a `__post_init__`
    expected = re.sub("^Expected |, got .*|^Number out of range$", "", what) or "`float`"
    expected = re.sub(r"`(\w+)[^`]*`", lambda at: _WORDS.get(at[1], at[1]), expected)
    return f"must be {' or '.join(_allowed(kinds)) or expected}, not {_value(value)}"


def _below(kinds: list[inspect.Type], name: str) -> list[inspect.Type]:
    """The kinds allowed at a key or, without a name, in a list."""
    found: list[inspect.Type] = []
    for kind in kinds:
        if isinstance(kind, inspect.StructType):
            found += [field.type for field in kind.fields if field.encode_name == name]
            found += [inspect.LiteralType((kind.tag,))] if name == kind.tag_field else []
        elif isinstance(kind, inspect.VarTupleType) and not name:
            found.append(kind.item_type)
    return [one for kind in found for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]


def _allowed(kinds: list[inspect.Type]) -> list[str]:
    """The descriptions of the allowed values, where their kinds have one."""
    described = [kind.extra_json_schema or {} for kind in kinds if isinstance(kind, inspect.Metadata)]
    literal = [repr(value) for kind in kinds if isinstance(kind, inspect.LiteralType) for value in kind.values]
    return [*(schema["description"] for schema in described if "description" in schema), *literal]


def _value(value: Any) -> str:
    if isinstance(value, str):
        return shown(value[:_LONGEST]) + ("..." if len(value) > _LONGEST else "")
    if isinstance(value, (bool, list, dict)):
        return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else str(value).lower()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # Python may refuse to print it
        return "a number of more than 64 bits"
    return str(value)
