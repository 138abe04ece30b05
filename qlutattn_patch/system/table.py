"""Tables as text that fit a width: cells wrap, then columns continue below, and at last a row is a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from unicodedata import east_asian_width

GAP = 2
_NARROWEST = 60  # characters; what is narrower gets lists where cells cannot wrap enough
# where a cell may end a line: at a space, and behind what joins the parts of a kernel's name, a list or a path
_BREAKS = re.compile(r"[^ +/,]+[+/,]?|[+/,]")
Paint = Callable[[str, str], str]  # a text as it is shown, and the cell or the heading that it is of


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; `right` are aligned to the right, and the first `groups` columns name a row's group.

    A row of empty cells is an empty line.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    groups: int = 0

    def lines(self, width: int | None, paint: Paint) -> list[str]:
        """The lines of the table, in no more than `width` characters (None: any number)."""
        natural = [max(map(_width, (name, *cells))) for name, cells in self._by_column()]
        if width is None or sum(natural) + GAP * (len(natural) - 1) <= width:
            return self._drawn(natural, GAP, paint)
        if self.groups:
            return self._grouped(width, paint)
        least = [max(map(_longest_part, (name, *cells))) for name, cells in self._by_column()]
        for gap in (GAP, 1):
            if sum(least) + gap * (len(least) - 1) <= width:
                cells = [(name, *cells) for name, cells in self._by_column()]
                return self._drawn(_shared(cells, least, width - gap * (len(least) - 1)), gap, paint)
        if width >= _NARROWEST and len(self.columns) > 2 and (bands := self._bands(least, width)):
            return [line for band in bands for line in (*band.lines(width, paint), "")][:-1]
        return self._lists(width, paint)

    def _by_column(self) -> list[tuple[str, list[str]]]:
        return [(name, [row[at] for row in self.rows]) for at, name in enumerate(self.columns)]

    def _part(self, at: Sequence[int], rows: Sequence[tuple[str, ...]]) -> Table:
        cut = tuple(tuple(row[i] for i in at) for row in rows)
        return Table(tuple(self.columns[i] for i in at), cut, self.right)

    def _grouped(self, width: int, paint: Paint) -> list[str]:
        """A heading for each group, and a table of the other columns that begins once."""
        rest = range(self.groups, len(self.columns))
        rows = [row for row in self.rows if any(row)]
        found: list[str] = []
        for key, members in groupby(rows, lambda row: row[: self.groups]):
            heading = ", ".join(f"{name} {value}" for name, value in zip(self.columns, key, strict=False))
            part = self._part(rest, list(members)).lines(width, paint)
            found += ["" if found else None, paint(heading, "heading"), *part]  # type: ignore[list-item]
        return [line for line in found if line is not None]

    def _bands(self, least: Sequence[int], width: int) -> list[Table] | None:
        """The columns in several tables, each with the first one; None if one of them does not fit."""
        bands: list[list[int]] = [[0]]
        for at in range(1, len(self.columns)):
            taken = sum(least[i] + 1 for i in bands[-1]) + least[at]
            if taken > width and len(bands[-1]) > 1:
                bands.append([0])
            bands[-1].append(at)
        if any(sum(least[i] + 1 for i in band) - 1 > width for band in bands):
            return None
        return [self._part(band, self.rows) for band in bands]

    def _drawn(self, widths: Sequence[int], gap: int, paint: Paint) -> list[str]:
        lines = self._line(self.columns, widths, gap, lambda text, _: paint(text, "heading"))
        for row in self.rows:
            lines += self._line(row, widths, gap, paint)
        return lines

    def _line(self, cells: Sequence[str], widths: Sequence[int], gap: int, paint: Paint) -> list[str]:
        """The lines of one row; what is wrapped continues below."""
        parts = [wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
        lines = []
        for number in range(max(map(len, parts))):
            line = ""
            for column, cell, part, width in zip(self.columns, cells, parts, widths, strict=True):
                text = part[number] if number < len(part) else ""
                blank = " " * (width - _width(text))
                shown = paint(text, cell) if text else ""
                line += (blank + shown if column in self.right else shown + blank) + " " * gap
            lines.append(line.rstrip())
        return lines

    def _lists(self, width: int, paint: Paint) -> list[str]:
        """A list for each row: the first cell, then a line for each other one."""
        label = max(map(_width, self.columns[1:]), default=0)
        found: list[str] = []
        for row in self.rows:
            if not any(row):
                continue
            head = 1 if self.columns[0] or len(row) == 1 else 2  # a mark without a heading stands before the name
            title = wrapped(f"{self.columns[head - 1]} {row[head - 1]}".strip(), width)
            mark = [paint(row[0], row[0]) + " "] if head == 2 else [""]
            found += [before + paint(line, "heading") for before, line in zip_longest(mark, title, fillvalue="")]
            for name, cell in zip(self.columns[head:], row[head:], strict=True):
                for number, text in enumerate(wrapped(cell, max(width - label - 4, 8)) if cell else []):
                    found.append(f"  {name if number == 0 else '':{label}}  {paint(text, cell)}")
        return found


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` characters; a part that is longer than that is cut."""
    lines = [""]
    at = 0
    for found in _BREAKS.finditer(text):
        space, part = text[at : found.start()], found[0]
        at = found.end()
        if lines[-1] and _width(lines[-1] + space + part) > width:
            lines.append("")
        elif lines[-1]:
            lines[-1] += space
        while _width(part) > width:
            lines[-1] += part[:width]
            part = part[width:]
            lines.append("")
        lines[-1] += part
    return lines


def _width(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _longest_part(text: str) -> int:
    return max((_width(part) for part in _BREAKS.findall(text)), default=0)


def _shared(cells: Sequence[Sequence[str]], least: Sequence[int], width: int) -> list[int]:
    """Widths of columns from the least on: each character that is left goes where most lines continue below."""
    widths = list(least)
    extra = [_continued(column, at) for column, at in zip(cells, widths, strict=True)]
    for _ in range(width - sum(widths)):
        most = max(range(len(widths)), key=extra.__getitem__)
        widths[most] += 1
        extra[most] = _continued(cells[most], widths[most])
    return widths


def _continued(cells: Sequence[str], width: int) -> int:
    return sum(len(wrapped(cell, width)) - 1 for cell in cells)
