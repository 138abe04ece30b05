"""TOML read strictly: one table at a time, unknown keys refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import is_of_git, is_plain_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
N = TypeVar("N", int, float)

MEND = "mend that file, then run the same command again"


class TomlTable:
    """One TOML table, taken apart key by key: a missing, mistyped or unknown key is an error that names its place."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise ExpectedError(f"{where} must be a table.", MEND)
        self._left: dict[str, Any] = dict(raw)
        self.where = where

    def wrong(self, text: str) -> ExpectedError:
        """The error that says what is wrong in this table."""
        return ExpectedError(f"{self.where}: {text}.", MEND)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def text(self, key: str, blank: bool = False, default: str | None = None) -> str:
        """A string, which must say something unless `blank` allows that it does not."""
        value: str = self._take(key, str, "a string", default)
        if not blank and not value.strip():
            raise self.wrong(f"'{key}' is empty")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value: int = self._take(key, int, "an integer", default)
        return self._small(key, value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._take(key, (int, float), "a number", default)
        return float(self._small(key, value))

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        return tuple(self._list(key, str, "strings", default))

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        return tuple(self._small(key, value) for value in self._list(key, int, "integers", default))

    def table(self, key: str) -> TomlTable:
        return TomlTable(self._take(key, dict, "a table", None), f"{self.where} [{key}]")

    def tables(self, key: str) -> list[TomlTable]:
        """The tables of an array `[[key]]`, which may be absent."""
        values = self._left.pop(key, [])
        if not isinstance(values, list):
            raise self.wrong(f"'{key}' must be an array of tables ([[{key}]])")
        return [TomlTable(value, f"{self.where} [[{key}]] {i}") for i, value in enumerate(values, 1)]

    def items(self, key: str) -> dict[str, TomlTable]:
        """The tables below a table: `[key.a]`, `[key.b]`."""
        below = self._take(key, dict, "a table", None)
        return {name: TomlTable(value, f"{self.where} [{key}.{name}]") for name, value in below.items()}

    def schema(self, expected: int = 1) -> None:
        """Refuse a file of another schema."""
        found = self.integer("schema")
        if found != expected:
            raise self.wrong(f"schema {found} is not known (this qlutattn reads schema {expected})")

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self._left:
            names = ", ".join(f"'{name}'" for name in self._left)
            raise self.wrong(f"unknown key {names}")

    def _take(self, key: str, kind: type | tuple[type, ...], named: str, default: Any) -> Any:
        value = self._left.pop(key, default)
        if value is None:
            raise self.wrong(f"the key '{key}' is missing")
        # bool is an int to Python, not to a reader of TOML
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(f"'{key}' must be {named}")
        return value

    def _small(self, key: str, value: N) -> N:
        """Refuse what does not fit in 64 bits, which Python may not even print."""
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self.wrong(f"'{key}' is a number of more than 64 bits")
        return value

    def _list(self, key: str, kind: type[T], named: str, default: Any) -> list[T]:
        values = self._take(key, (list, tuple), f"a list of {named}", default)
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            raise self.wrong(f"'{key}' must be a list of {named}")
        return list(values)


def shown(value: str) -> str:
    """A value from a file, in quotes and on one line."""
    return f"'{value}'" if value.isprintable() else ascii(value)


def read_text(path: Path, hint: str | None = None) -> str:
    """A text file of ours: UTF-8, or one sentence that says why not. Line ends are kept."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ExpectedError(f"There is no file {path}.", hint or "get it back: git checkout -- that file") from None
    except UnicodeDecodeError as failure:
        raise ExpectedError(f"{path} is not UTF-8 (byte {failure.start}).", MEND) from None
    except OSError as failure:
        raise ExpectedError(f"{path} cannot be read: {failure.strerror}.", MEND) from None


def read_toml(path: Path) -> TomlTable:
    """Read a TOML file of ours."""
    try:
        # TOML forbids a lone CR; a checkout with CRLF line ends reads the same as one without
        return TomlTable(tomllib.loads(read_text(path).replace("\r\n", "\n")), str(path))
    except RecursionError:
        raise ExpectedError(f"{path} is not valid TOML: it is nested too deeply.", MEND) from None
    except ValueError as failure:  # that it is no TOML, or has a number of thousands of digits
        raise ExpectedError(f"{path} is not valid TOML: {failure}.", MEND) from None


def repository_path(fields: TomlTable, key: str, value: str) -> str:
    """Check that a value is a plain relative path with forward slashes, below the top of a repository."""
    if is_of_git(PurePosixPath(value)):
        raise fields.wrong(f"'{key}': '{value}' leads into a .git folder")
    if not is_plain_path(value):
        raise fields.wrong(f"'{key}': {shown(value)} is not a plain relative path")
    return value


def version(fields: TomlTable, key: str) -> str:
    """The version of a release."""
    return matching(fields, key, r"[A-Za-z0-9][A-Za-z0-9.+!_-]*", "a version")


def matching(fields: TomlTable, key: str, pattern: str, named: str) -> str:
    """A string of a pattern."""
    value = fields.text(key)
    if not re.fullmatch(pattern, value):
        raise fields.wrong(f"'{key}' must be {named}, not '{value}'")
    return value
