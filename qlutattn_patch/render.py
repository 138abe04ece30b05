"""What the templates say, worked out: jinja2 texts, and hooks placed at their anchors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import jinja2

from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.formats import Formats
from qlutattn_patch.hooks import Hook

_CANDIDATES = 3


class Renderer:
    """Renders overlay and hook texts from the formats."""

    def __init__(self, formats: Formats) -> None:
        self._environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._context = {"types": formats.types, "tile": formats.tile, "codebooks": dict(formats.codebooks)}

    def text(self, template: str, where: str) -> str:
        """Render a template; `where` is named if it is wrong."""
        try:
            return self._environment.from_string(template).render(self._context)
        except jinja2.TemplateSyntaxError as failure:
            raise ExpectedError(f"{where}, line {failure.lineno} of the template: {failure.message}.") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as failure:
            raise ExpectedError(f"{where}: the template fails: {failure}.") from None


@dataclass(frozen=True)
class AnchorFailure:
    """A hook that does not fit: what was found, and the hook that is to blame if it only follows from another."""

    hook: Hook
    found: int | None  # None: there is no such file
    candidates: tuple[tuple[int, str], ...] = ()
    cascade_of: Hook | None = None


class Placer:
    """Places hooks one after another into the texts of files, and collects every one that does not fit."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._failed: list[tuple[Hook, str]] = []
        self.failures: list[AnchorFailure] = []

    def place(self, hook: Hook, texts: Mapping[str, str]) -> str | None:
        """The text of the hook's file with the hook in it, or None if it does not fit."""
        new = self._renderer.text(hook.text, hook.where)
        text = texts.get(hook.file)
        found = None if text is None else text.count(hook.anchor)
        if text is None or found != hook.count:
            candidates = () if text is None or found else nearest_lines(text, hook.anchor)
            self.failures.append(AnchorFailure(hook, found, candidates, self._blame(hook, found)))
            self._failed.append((hook, new))
            return None
        replacement = {"after": hook.anchor + new, "before": new + hook.anchor, "replace": new}[hook.place]
        return text.replace(hook.anchor, replacement)

    def _blame(self, hook: Hook, found: int | None) -> Hook | None:
        """The earlier failure that this one follows from: its text has the anchor, or the same file is missing."""
        for earlier, text in self._failed:
            if earlier.file == hook.file and (found is None or hook.anchor in text):
                return earlier
        return None

    def check(self, upstream: str) -> None:
        """Raise one error that lists every failure, the root causes before those that follow from them."""
        roots = [failure for failure in self.failures if failure.cascade_of is None]
        cascades = [failure for failure in self.failures if failure.cascade_of is not None]
        if not roots:
            return
        count = f"{len(self.failures)} hook does" if len(self.failures) == 1 else f"{len(self.failures)} hooks do"
        lines = [f"{count} not fit {upstream}:"]
        lines += [line for failure in roots for line in _described(failure)]
        if cascades:
            lines.append("  These follow from the ones above:")
            lines += [line for failure in cascades for line in _described(failure)]
        raise ExpectedError("\n".join(lines), "mend the anchors that are named, then: qlutattn generate")


def nearest_lines(text: str, anchor: str) -> tuple[tuple[int, str], ...]:
    """The lines of a text (numbered from 1) that look most like the first line of an anchor."""
    wanted = first_line(anchor)
    numbered: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        numbered.setdefault(line.strip(), number)
    near = difflib.get_close_matches(wanted, numbered, n=_CANDIDATES, cutoff=0.6)
    return tuple((numbered[line], line) for line in near)


def first_line(anchor: str) -> str:
    """The first line of an anchor that is not blank."""
    return next(line.strip() for line in anchor.splitlines() if line.strip())


def _described(failure: AnchorFailure) -> list[str]:
    hook = failure.hook
    if failure.found is None:
        found = "there is no such file"
    else:
        times = "once" if hook.count == 1 else f"{hook.count} times"
        found = f"the anchor '{first_line(hook.anchor)}' must be there {times}, and is there {failure.found} times"
    because = f" (follows from {failure.cascade_of.where})" if failure.cascade_of else ""
    lines = [f"  {hook.where}: {hook.file}: {found}{because}"]
    lines += [f"      near it, line {number}: {line}" for number, line in failure.candidates]
    return lines
