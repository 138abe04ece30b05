"""Hooks placed at their anchors: each anchor is counted, and every hook that does not fit is reported."""

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
    """A variant of a hook in its place: its anchor and its text as they are in this upstream."""

    variant: Hook
    anchor: str
    text: str

    def into(self, text: str) -> str:
        """The text of the file with the hook in it."""
        return text.replace(self.anchor, self.replacement)

    @property
    def replacement(self) -> str:
        """What stands where the anchor stood."""
        new = {"after": self.anchor + self.text, "before": self.text + self.anchor, "replace": self.text}
        return new[self.variant.place]


@dataclass(frozen=True)
class Tried:
    """A variant of a hook that was tried: its anchor as it must be in this upstream, and what was found."""

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
        return f"the anchor '{first_line(self.anchor)}' must be there {times}, and is there {self.found} times"


@dataclass(frozen=True)
class AnchorFailure:
    """A hook that does not fit in any variant, or in several, and the hook to blame if it only follows from another."""

    hook: Hook
    tried: tuple[Tried, ...]
    cascade_of: Hook | None = None

    @property
    def lines(self) -> list[str]:
        """What is wrong, in words: one line, and more for what was found near it."""
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
    """An upstream that the templates do not fit: what its own tables say against it, and the hooks' failures."""

    def __init__(self, upstream: str, problems: Sequence[str], failures: Sequence[AnchorFailure]) -> None:
        self.problems = tuple(problems)
        self.failures = tuple(failures)
        lines = []
        if problems:
            lines += [f"The tables of {upstream} do not suit:", *(f"  {problem}" for problem in problems)]
        if failures:
            lines += _listed(upstream, failures)
        if problems and not failures:
            hint = "give our types other ids or names in templates/formats.toml, or pin another llama.cpp"
        else:
            hint = "mend the anchors that are named, then: qlutattn generate"
        super().__init__("\n".join(lines), hint)


class Placer:
    """Places hooks one after another into the texts of files, and collects every one that does not fit."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._failed: list[tuple[Hook, str]] = []
        self.failures: list[AnchorFailure] = []
        self.placed: list[Placed] = []

    def place(self, hook: Hook, texts: Mapping[str, str]) -> tuple[str, str] | None:
        """The file that the hook edits and its text with the hook in it, or None if the hook does not fit."""
        tried = tuple(self._try(variant, texts) for variant in (hook, *hook.variants))
        fitting = [one for one in tried if one.fits]
        if len(fitting) != 1:
            self.failures.append(AnchorFailure(hook, tried, self._blame(hook, tried)))
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

    def _blame(self, hook: Hook, tried: tuple[Tried, ...]) -> Hook | None:
        """The earlier failure that this one follows from: its text has the anchor, or the same file is missing."""
        for earlier, text in self._failed:
            for one in tried:
                if earlier.file == one.variant.file and (one.found is None or one.anchor in text):
                    return earlier
        return None

    def check(self, upstream: str, problems: Sequence[str] = ()) -> None:
        """Raise one error that lists every failure, the root causes before those that follow from them."""
        if self.failures or problems:
            raise HooksDoNotFit(upstream, problems, self.failures)


def nearest_lines(text: str, anchor: str) -> tuple[tuple[int, str], ...]:
    """The lines of a text (numbered from 1) that an anchor should be mended to.

    Where the anchor begins in the text, that is the first line in which the two differ; else the lines that look most
    like the anchor's first one.
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
    """How many lines from the first on are the same; at least that one, which may differ in its indentation."""
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
