"""The edits between two texts, and the part of the first text that each edit belongs to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_WORD = re.compile(r"\w+|\n|[^\S\n]+|[^\w\s]")
_COMPARED = 4_000_000  # pairs of words; a larger passage becomes one edit
_SLIDES = 1000


@dataclass(frozen=True)
class Edit:
    """The characters from `start` to `end` of a text become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Part:
    """A part of a text: its owner (None: not editable), and its offset in the owner's text."""

    text: str
    key: Hashable = None
    at: int = 0


def edits(old: str, new: str) -> list[Edit]:
    """The edits from one text to another: by lines, then words of changed lines, then characters of words."""
    found = []
    for lines in _matched(_LINE.findall(old), _LINE.findall(new), 0):
        if lines.start == lines.end or not lines.text:
            found.append(lines)
            continue
        was, now = _WORD.findall(old[lines.start : lines.end]), _WORD.findall(lines.text)
        words = _matched(was, now, lines.start) if len(was) * len(now) <= _COMPARED else [lines]
        found += [_trimmed(old, word) for word in words]
    return found


def apply_edits(text: str, found: Iterable[Edit]) -> str | None:
    """The text with the edits applied, or None if two of them overlap."""
    ordered = sorted(set(found), key=lambda edit: (edit.start, edit.end))
    parts, at = [], 0
    for number, edit in enumerate(ordered):
        same_point = number > 0 and ordered[number - 1].start == edit.start
        if edit.start < at or same_point:
            return None
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def slides(text: str, edit: Edit) -> Iterator[Edit]:
    """The edit, and its equivalent positions: inserting a line after an equal one is inserting it before."""
    yield edit
    if bool(edit.text) == (edit.start < edit.end):
        return
    left: Edit | None = edit
    right: Edit | None = edit
    for _ in range(_SLIDES):
        right, left = _slid(text, right, 1), _slid(text, left, -1)
        if left:
            yield left
        if right:
            yield right
        if not left and not right:
            return


def owned(parts: Sequence[Part], edit: Edit) -> tuple[Hashable, Edit] | None:
    """The owner of the part that an edit is in, and the edit there; an insertion between two belongs to the first."""
    if all(part.key is None for part in parts):
        return None
    text = "".join(part.text for part in parts)
    for slid in slides(text, edit):
        found = next((one for one in _owners(parts, slid) if one is not None), None)
        if found:
            return found
    return None


def _owners(parts: Sequence[Part], edit: Edit) -> Iterator[tuple[Hashable, Edit] | None]:
    start = 0
    for number, part in enumerate(parts):
        end = start + len(part.text)
        at = part.at + edit.start - start
        if edit.start == edit.end:
            if part.key is not None and start <= edit.start <= end:
                yield part.key, Edit(at, at, edit.text)
        elif start <= edit.start < end:
            yield (
                (part.key, Edit(at, at + edit.end - edit.start, edit.text))
                if _reaches(parts[number:], edit.end - start)
                else None
            )
        start = end


def _reaches(parts: Sequence[Part], length: int) -> bool:
    """Whether this many characters from the first part on are one contiguous range of one owner."""
    key, at = parts[0].key, parts[0].at
    for part in parts:
        if length <= 0:
            break
        if part.key is None or part.key != key or (part.text and part.at != at):
            return False
        at += len(part.text)
        length -= len(part.text)
    return True


def _matched(old: list[str], new: list[str], at: int) -> list[Edit]:
    """The edits between two lists of text pieces; the first list begins at offset `at`."""
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    at += sum(map(len, old[:same]))
    old, new = old[same : len(old) - tail], new[same : len(new) - tail]
    offsets = [at]
    for piece in old:
        offsets.append(offsets[-1] + len(piece))
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [Edit(offsets[a], offsets[b], "".join(new[c:d])) for kind, a, b, c, d in codes if kind != "equal"]


def _trimmed(text: str, edit: Edit) -> Edit:
    """An edit without the unchanged characters at its ends."""
    start, end, new = edit.start, edit.end, edit.text
    while start < end and new and text[start] == new[0]:
        start, new = start + 1, new[1:]
    while start < end and new and text[end - 1] == new[-1]:
        end, new = end - 1, new[:-1]
    return Edit(start, end, new)


def _slid(text: str, edit: Edit | None, by: int) -> Edit | None:
    """An insertion or deletion moved by one character, if the result is the same."""
    if edit is None:
        return None
    out, into = (edit.start, edit.end) if by > 0 else (edit.end - 1, edit.start - 1)
    if edit.text:
        if not 0 <= into < len(text) or text[into] != edit.text[0 if by > 0 else -1]:
            return None
        turned = edit.text[1:] + edit.text[0] if by > 0 else edit.text[-1] + edit.text[:-1]
        return Edit(edit.start + by, edit.end + by, turned)
    if not 0 <= into < len(text) or text[into] != text[out]:
        return None
    return Edit(edit.start + by, edit.end + by, "")
