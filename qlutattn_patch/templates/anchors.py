"""Place hooks at their anchors, and report every hook that does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.render import Renderer
from qlutattn_patch.templates.spec import Hook

_CANDIDATES = 3


@dataclass(frozen=True)
class Placed:
    """A placed variant of a hook: its anchor and text for this upstream."""

    variant: Hook
    anchor: str
    text: str

    def into(self, text: str) -> str:
        """The text of the file with the hook applied."""
        return text.replace(self.anchor, self.replacement)

    @property
    def replacement(self) -> str:
        """The replacement of the anchor."""
        new = {"after": self.anchor + self.text, "before": self.text + self.anchor, "replace": self.text}
        return new[self.variant.place]


@dataclass(frozen=True)
class Tried:
    """A tried variant of a hook: its anchor for this upstream, and the number of matches."""

    variant: Hook
    anchor: str
    found: int | None  # None: there is no such file
    candidates: tuple[tuple[int, str], ...] = ()

    @property
    def fits(self) -> bool:
        return self.found == self.variant.count

    def __str__(self) -> str:
        if self.found is None:
            return "there is no such file"
        times = "once" if self.variant.count == 1 else f"{self.variant.count} times"
        found = "once" if self.found == 1 else f"{self.found} times"
        return f"the anchor '{first_line(self.anchor)}' must occur {times}, but occurs {found}"


@dataclass(frozen=True)
class AnchorFailure:
    """A hook of which no variant fits, or several do, and the failed hook that caused it, if any."""

    hook: Hook
    tried: tuple[Tried, ...]
    cascade_of: Hook | None = None

    @property
    def lines(self) -> list[str]:
        """The failure as lines: the cause, and similar lines of the file."""
        because = f" (follows from {self.cascade_of.where})" if self.cascade_of else ""
        fitting = [tried for tried in self.tried if tried.fits]
        if fitting:
            anchors = " and ".join(f"'{first_line(tried.anchor)}'" for tried in fitting)
            return [f"{self.hook.where}: {self.hook.file}: more than one of its variants fits: {anchors}{because}"]
        lines = []
        for tried in self.tried:
            lines.append(f"{tried.variant.where}: {tried.variant.file}: {tried}{because}")
            lines += [f"    near it, line {number}: {line}" for number, line in tried.candidates]
        return lines


class HooksDoNotFit(ExpectedError):
    """The templates do not fit an upstream: conflicts with its tables, and the hooks' failures."""

    def __init__(self, upstream: str, problems: Sequence[str], failures: Sequence[AnchorFailure]) -> None:
        self.problems = tuple(problems)
        self.failures = tuple(failures)
        lines = []
        if problems:
            lines += [
                f"The tables of {upstream} are incompatible:",
                *(f"  {problem}" for problem in problems),
            ]
        if failures:
            lines += _listed(upstream, failures)
        if problems and not failures:
            hint = "change the ids or names in templates/formats.toml, or pin another llama.cpp"
        else:
            hint = "fix the anchors that are named, then: qlutattn generate"
        super().__init__("\n".join(lines), hint)


class Placer:
    """Places hooks one after another in the texts of files, and collects every failure."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._failed: list[tuple[Hook, str]] = []
        self.failures: list[AnchorFailure] = []
        self.placed: list[Placed] = []

    def place(self, hook: Hook, texts: Mapping[str, str]) -> tuple[str, str] | None:
        """The file that the hook edits and its text with the hook applied, or None if the hook does not fit."""
        tried = tuple(self._try(variant, texts) for variant in (hook, *hook.variants))
        fitting = [one for one in tried if one.fits]
        if len(fitting) != 1:
            self.failures.append(AnchorFailure(hook, tried, self._cause(hook, tried)))
            self._failed += [(one.variant, self._renderer.text(one.variant.text, one.variant.where)) for one in tried]
            return None
        variant = fitting[0].variant
        placed = Placed(variant, fitting[0].anchor, self._renderer.text(variant.text, variant.where))
        self.placed.append(placed)
        return variant.file, placed.into(texts[variant.file])

    def _try(self, variant: Hook, texts: Mapping[str, str]) -> Tried:
        anchor = self._renderer.anchor(variant.anchor, variant.where)
        text = texts.get(variant.file)
        found = None if text is None else text.count(anchor)
        return Tried(variant, anchor, found, () if text is None or found else nearest_lines(text, anchor))

    def _cause(self, hook: Hook, tried: tuple[Tried, ...]) -> Hook | None:
        """The earlier failure that caused this one: its text contains the anchor, or the same file is missing."""
        for earlier, text in self._failed:
            for one in tried:
                if earlier.file == one.variant.file and (one.found is None or one.anchor in text):
                    return earlier
        return None

    def check(self, upstream: str, problems: Sequence[str] = ()) -> None:
        """Raise one error that lists every failure, root causes first."""
        if self.failures or problems:
            raise HooksDoNotFit(upstream, problems, self.failures)


def nearest_lines(text: str, anchor: str) -> tuple[tuple[int, str], ...]:
    """The lines of a text (numbered from 1) that are most similar to an anchor.

    If the anchor's beginning occurs in the text, the first line that differs; else the lines most similar to the
    anchor's first one.
    """
    lines, wanted = text.splitlines(), anchor.splitlines()
    skipped = next(at for at, line in enumerate(wanted) if line.strip())
    starts = [at for at, line in enumerate(lines) if line.strip() == wanted[skipped].strip()]
    parted = {at + _agreeing(lines[at:], wanted[skipped:]) for at in starts}
    if parted and len(wanted) > skipped + 1:
        there = [at for at in sorted(parted) if at < len(lines)]
        return tuple((at + 1, lines[at].strip()) for at in there[:_CANDIDATES])
    numbered: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        numbered.setdefault(line.strip(), number)
    near = difflib.get_close_matches(first_line(anchor), numbered, n=_CANDIDATES, cutoff=0.6)
    return tuple((numbered[line], line) for line in near)


def _agreeing(lines: list[str], wanted: list[str]) -> int:
    """The number of equal lines from the first on; at least 1, as the first may differ in indentation."""
    pairs = enumerate(zip(lines[1:], wanted[1:], strict=False), 1)
    return next((at for at, (line, ours) in pairs if line != ours), min(len(lines), len(wanted)))


def first_line(anchor: str) -> str:
    """The first line of an anchor that is not blank."""
    return next(line.strip() for line in anchor.splitlines() if line.strip())


def _listed(upstream: str, failures: Sequence[AnchorFailure]) -> list[str]:
    roots = [failure for failure in failures if failure.cascade_of is None]
    cascades = [failure for failure in failures if failure.cascade_of is not None]
    count = f"{len(failures)} hook does" if len(failures) == 1 else f"{len(failures)} hooks do"
    lines = [f"{count} not fit {upstream}:", *(f"  {line}" for failure in roots for line in failure.lines)]
    if cascades:
        lines.append("  These follow from the ones above:")
        lines += [f"  {line}" for failure in cascades for line in failure.lines]
    return lines
