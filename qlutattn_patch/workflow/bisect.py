"""Find the first llama.cpp version, between a good and a bad one, on which a stage of the matrix fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Repository
from qlutattn_patch.upstream import releases
from qlutattn_patch.upstream.pin import Pin
from qlutattn_patch.upstream.releases import Upstream
from qlutattn_patch.workflow.documents import Row
from qlutattn_patch.workflow.matrix import Checker


@dataclass(frozen=True)
class Found:
    """The first upstream that fails, the last one before it, and every tested row."""

    first_bad: Row
    last_good: Row
    tried: tuple[Row, ...]


def candidates(pin: Pin, good: str, bad: str, clone: Path | None) -> list[str]:
    """The versions from good to bad: releases in order, or commits of a clone along first parents."""
    if releases.is_version(good) and releases.is_version(bad):
        between = releases.between(pin, good, bad)
        if not between:
            raise ExpectedError(f"{bad} is older than {good}.", f"qlutattn bisect {bad} {good}")
        return between
    if clone is None:
        raise ExpectedError(f"'{good}' and '{bad}' are not both versions, and commits need a clone.", "add --clone DIR")
    repository = Repository.open(clone)
    ends = [repository.commit_id(revision) for revision in (good, bad)]
    for name, commit in zip((good, bad), ends, strict=True):
        if commit is None:
            raise ExpectedError(f"The clone {clone} has no commit '{name}'.", f"git -C '{clone}' fetch --all")
    first, last = str(ends[0]), str(ends[1])
    if not repository.is_ancestor(first, last):
        raise ExpectedError(f"'{bad}' does not descend from '{good}' in {clone}.", "name an older good commit")
    return [first, *repository.first_parents(first, last)]


def bisect(checker: Checker, names: Sequence[str], find: Callable[[str], Upstream]) -> Found:
    """Bisect the candidates until the first bad one follows the last good one."""
    rows: dict[int, Row] = {}

    def is_good(at: int) -> bool:
        console.step(f"{names[at]} ({len(rows) + 1} tried)")
        row = rows[at] = checker.check(find(names[at]))
        console.step(f"{names[at]}: {row.stage} {'ok' if row.ok else 'FAILED'}")
        return row.ok

    good, bad = 0, len(names) - 1
    if not is_good(good):
        row = rows[good]
        raise ExpectedError(f"{names[good]} is not good: {row.stage}: {row.detail}", "name an older one as GOOD")
    if good == bad or is_good(bad):
        raise ExpectedError(f"{names[bad]} is not bad: everything passes until {checker.until}.", "name another BAD")
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_good(middle):
            good = middle
        else:
            bad = middle
    return Found(rows[bad], rows[good], tuple(rows[at] for at in sorted(rows)))
