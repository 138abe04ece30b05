"""A template edited so that it renders to a wanted text; rendering it again is what says that it does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qlutattn_patch.export.diff import Edit, Part, apply_edits, edits, owned
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.render import Renderer, Span

_TAG = re.compile(r"\{(?=[{%#])")
_TRIED_AT_SEAMS = 20


@dataclass(frozen=True)
class Made:
    """An edit that no template can have as it is: in what is made by an expression, or in one turn of a loop."""

    at: int  # the offset in the rendered text
    text: str  # what stands there
    template_line: int
    expression: bool  # False: the template's own text, which is rendered more than once


def carried(renderer: Renderer, template: str, wanted: str, where: str) -> str | Made:
    """The template with the edits that make it render to the wanted text, or the first edit that it cannot have."""
    spans = renderer.spans(template, where)
    rendered = "".join(span.text for span in spans)
    if rendered == wanted:
        return template
    found = edits(rendered, wanted)
    for candidate in _candidates(renderer, template, spans, found):
        try:
            if candidate != template and renderer.text(candidate, where) == wanted:
                return candidate
        except ExpectedError:  # an edit that makes no template of it
            continue
    return _made(template, spans, rendered, found)


def escaped(text: str) -> str:
    """A text as it must be written in a template to come out as it is."""
    return _TAG.sub("{{ '{' }}", text)


def _candidates(renderer: Renderer, template: str, spans: Sequence[Span], found: list[Edit]) -> Iterator[str]:
    parts = _parts(spans)
    if [span.text for span in spans] == [template]:
        yield escaped(apply_edits(template, found) or "")
        return
    for first in (True, False):
        mapped = [_mapped(parts, edit, first) for edit in found]
        yield from _applied(template, mapped)
    if len(found) > _TRIED_AT_SEAMS:
        return
    # between two tags there is no text of the template's to which an insertion could belong
    for number, edit in enumerate(found):
        if edit.start == edit.end and not _glued(parts, edit):
            others = [_mapped(parts, other, True) for other in found if other != edit]
            for seam in renderer.seams(template):
                yield from _applied(template, [*others[:number], Edit(seam, seam, edit.text), *others[number:]])


def _applied(template: str, mapped: Sequence[Edit | None]) -> Iterator[str]:
    """The template with the edits, if all have a place in it; with what looks like a tag escaped, or as it is."""
    known = [edit for edit in mapped if edit is not None]
    if len(known) < len(mapped):
        return
    plain = apply_edits(template, known)
    safe = apply_edits(template, [Edit(edit.start, edit.end, escaped(edit.text)) for edit in known])
    if safe is not None:
        yield safe
    if plain is not None and plain != safe:
        yield plain


def _parts(spans: Sequence[Span]) -> list[Part]:
    return [Part(span.text, None if span.at is None else "template", span.at or 0) for span in spans]


def _mapped(parts: Sequence[Part], edit: Edit, first: bool) -> Edit | None:
    if _glued(parts, edit):
        return None
    found = owned(parts, edit, first)
    return found[1] if found else None


def _glued(parts: Sequence[Part], edit: Edit) -> bool:
    """Whether an insertion makes a word of its own and what an expression gives: 12 before 8 is an edit of the 8."""
    if edit.start < edit.end:
        return False
    start = 0
    for part in parts:
        end = start + len(part.text)
        if part.key is None and part.text:
            before = edit.start == start and _is_word(edit.text[-1:] + part.text[0])
            after = edit.start == end and _is_word(part.text[-1] + edit.text[:1])
            if before or after or start < edit.start < end:
                return True
        start = end
    return False


def _is_word(text: str) -> bool:
    return re.fullmatch(r"\w\w", text) is not None


def _made(template: str, spans: Sequence[Span], rendered: str, found: list[Edit]) -> Made:
    """Where the first edit is that has no place; where each has one, it is that of a text rendered more than once."""
    parts = _parts(spans)
    start = 0
    homeless = next((edit for edit in found if _mapped(parts, edit, True) is None), None)
    for span in spans if homeless else ():
        end = start + len(span.text)
        assert homeless is not None
        if span.at is None and homeless.start <= end and start <= max(homeless.start, homeless.end - 1):
            return Made(homeless.start, span.text, span.line, True)
        start = end
    edit = homeless or found[0]
    mapped = _mapped(parts, edit, True)
    line = rendered[rendered.rfind("\n", 0, edit.start) + 1 :].split("\n")[0]
    return Made(edit.start, line, template.count("\n", 0, mapped.start if mapped else 0) + 1, False)
