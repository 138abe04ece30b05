"""A generated file in parts: llama.cpp's own, each hook's, the overlay's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qlutattn_patch.export.diff import Part
from qlutattn_patch.patches.generate import Layout
from qlutattn_patch.templates.anchors import Placed


@dataclass(frozen=True)
class Owner:
    """The owner of a part: a hook, once per place of its anchor, or (no `placed`) the overlay file."""

    placed: Placed | None
    turn: int = 0


@dataclass(frozen=True)
class PatchedFile:
    """The text of a file in parts; a part without an owner is llama.cpp's own."""

    path: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def owners(self) -> list[Owner]:
        """Every owner of a part, in the order of the file."""
        return list(dict.fromkeys(part.key for part in self.parts if isinstance(part.key, Owner)))

    def range_of(self, owner: Owner) -> tuple[int, int]:
        """The range from the first to the last part of an owner."""
        starts, at = [], 0
        for part in self.parts:
            if part.key == owner:
                starts += [at, at + len(part.text)]
            at += len(part.text)
        return starts[0], starts[-1]

    def anchor_of(self, owner: Owner) -> tuple[int, int]:
        """The range of a hook's anchor, if the hook keeps it in the file; else an empty range."""
        start, end = self.range_of(owner)
        assert owner.placed is not None
        anchor, place = owner.placed.anchor, owner.placed.variant.place
        if place == "after" and self.text.endswith(anchor, 0, start):
            return start - len(anchor), start
        if place == "before" and self.text.startswith(anchor, end):
            return end, end + len(anchor)
        return start, start


def patched_file(layout: Layout, path: str) -> PatchedFile:
    """A file that the templates touch, with all hooks applied."""
    first = Part(layout.overlay[path], Owner(None)) if path in layout.overlay else Part(layout.before[path])
    parts: list[Part] = [first]
    for placed in layout.placed:
        if placed.variant.file == path:
            parts = _with_hook(parts, placed)
    return PatchedFile(path, tuple(parts))


def _with_hook(parts: Sequence[Part], placed: Placed) -> list[Part]:
    text = "".join(part.text for part in parts)
    result: list[Part] = []
    done, turn = 0, 0
    at = text.find(placed.anchor)
    while at >= 0:
        end = at + len(placed.anchor)
        kept_until = {"after": end, "before": at, "replace": at}[placed.variant.place]
        result += [*_cut(parts, done, kept_until), Part(placed.text, Owner(placed, turn))]
        done = end if placed.variant.place == "replace" else kept_until
        turn += 1
        at = text.find(placed.anchor, end)
    return [*result, *_cut(parts, done, len(text))]


def _cut(parts: Sequence[Part], start: int, end: int) -> list[Part]:
    """The parts between two offsets; parts that cross one are cut."""
    found, at = [], 0
    for part in parts:
        low, high = max(start - at, 0), min(end - at, len(part.text))
        if low < high or (not part.text and start <= at < end):
            found.append(Part(part.text[low:high], part.key, part.at + low))
        at += len(part.text)
    return found
