"""Parse a patch file: its files and hunks, and the lines that it adds and removes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_FILE = re.compile(rb"^diff --git ", re.MULTILINE)
_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@", re.MULTILINE)


@dataclass(frozen=True)
class Hunk:
    """One hunk: where it starts in the old file, how many lines it adds and removes, and its bytes."""

    line: int
    changed: int
    data: bytes


@dataclass(frozen=True)
class FilePatch:
    """The part of a patch that concerns one file."""

    path: str
    is_new: bool
    head: bytes
    hunks: tuple[Hunk, ...]

    @property
    def data(self) -> bytes:
        return self.head + b"".join(hunk.data for hunk in self.hunks)

    @property
    def changed_lines(self) -> int:
        """Lines added and lines removed."""
        return sum(hunk.changed for hunk in self.hunks)


def split_patch(data: bytes) -> list[FilePatch]:
    """The files of a patch, in order."""
    starts = [match.start() for match in _FILE.finditer(data)]
    return [_file(data[start:end]) for start, end in pairwise([*starts, len(data)])]


def _file(data: bytes) -> FilePatch:
    hunks: list[Hunk] = []
    first = _HUNK.search(data)
    at = first.start() if first else len(data)
    head = data[:at]
    while match := _HUNK.match(data, at):
        end, changed = _hunk_end(data, match)
        hunks.append(Hunk(int(match[1]), changed, data[at:end]))
        at = end
    return FilePatch(_path(head), b"\nnew file mode " in head, head, tuple(hunks))


def _hunk_end(data: bytes, match: re.Match[bytes]) -> tuple[int, int]:
    """The end of a hunk, from the line counts in its header, and its number of changed lines."""
    old, new = (int(match[group]) if match[group] is not None else 1 for group in (2, 4))
    at, changed = _next_line(data, match.end()), 0
    while at < len(data) and (old > 0 or new > 0 or data[at : at + 1] == b"\\"):
        kind = data[at : at + 1]
        old -= kind in (b" ", b"-", b"\n")
        new -= kind in (b" ", b"+", b"\n")
        changed += kind in (b"+", b"-")
        at = _next_line(data, at)
    return at, changed


def _next_line(data: bytes, at: int) -> int:
    """The offset of the next line."""
    end = data.find(b"\n", at)
    return end + 1 if end >= 0 else len(data)


def _path(head: bytes) -> str:
    for prefix in (b"\n+++ b/", b'\n+++ "b/', b"\n--- a/", b'\n--- "a/'):
        at = head.find(prefix)
        if at >= 0:
            name = head[at + len(prefix) : _next_line(head, at + 1)].rstrip(b"\t\n")
            if prefix.endswith(b'"b/') or prefix.endswith(b'"a/'):  # git quotes a name that contains quotes
                name = name.rstrip(b'"').replace(b'\\"', b'"')
            return name.decode("utf-8", "surrogateescape")
    name = (
        head[: _next_line(head, 0)].rstrip(b"\n").rpartition(b" b/")[2]
    )  # an empty file or a change of mode has no such lines
    return name.decode("utf-8", "surrogateescape")
