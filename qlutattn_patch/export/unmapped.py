"""Edits of the tree that belong to no template: the reason, and the TOML to add."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

from qlutattn_patch.export.diff import Edit, apply_edits
from qlutattn_patch.export.hookfile import place_of, written
from qlutattn_patch.export.patched_file import Owner, PatchedFile
from qlutattn_patch.system.records import Record, doc
from qlutattn_patch.templates.render import escaped
from qlutattn_patch.templates.spec import Hook, PatchSpec

_CONTEXT = 12
_MOST = 20


class Refused(Record, frozen=True):
    """A refused edit: where it is in the edited tree, why it is refused, and how to make it exportable."""

    file: Annotated[str, doc("of the tree")]
    line: Annotated[int | None, doc("where")]
    why: Annotated[str, doc("why it is refused")]
    next: Annotated[str, doc("how to make it exportable")]
    toml: Annotated[str, doc("the hook to paste, or empty")] = ""

    @property
    def lines(self) -> list[str]:
        """The message; TOML begins in the first column, so that it can be copied."""
        at = f", line {self.line}" if self.line else ""
        return [f"{self.file}{at}: {self.why}.", f"  next: {self.next}", *(["", self.toml] if self.toml else [])]


def hook_name(variant: Hook) -> str:
    """The name of a hook's variant: its file and its table there."""
    number, other = place_of(variant)
    return f"templates/hooks/{variant.patch}.toml [[hook]] {number}" + (f" [[or]] {other}" if other else "")


def upstream_edits(
    file: PatchedFile, found: Sequence[Edit], unmapped: Sequence[Edit], patches: Sequence[PatchSpec]
) -> list[Refused]:
    """The refusals of edits of llama.cpp's own text, one for neighbouring lines."""
    text = file.text
    passages = _passages(text, unmapped)
    if len(passages) > _MOST:
        why = f"llama.cpp's own text is edited in {len(passages)} places, this is the first"
        line = line_of(found, text, unmapped[0].start)
        return [Refused(file.path, line, why, f"revert most of them (git diff {file.path}), then: qlutattn export")]
    refused = []
    for start, end, inside in passages:
        rebased = [Edit(edit.start - start, edit.end - start, edit.text) for edit in inside]
        new = apply_edits(text[start:end], rebased) or ""
        patch = _patch_of(file.path, patches)
        toml = _hook_for(file, start, end, new)
        refused.append(
            Refused(
                file.path,
                line_of(found, text, inside[0].start),
                f"this is llama.cpp's own text, not a hook's{_near(file, inside[0])}",
                f"{_add(patch, toml)}, then: qlutattn export",
                toml,
            )
        )
    return refused


def new_file(path: str, patches: Sequence[PatchSpec]) -> Refused:
    """The refusal of a file that no patch adds."""
    patch = max(patches, key=lambda one: (_nearness(path, one.overlay), patches.index(one)))
    return Refused(
        path,
        None,
        "no patch adds this file",
        f"add it to the list `overlay` of templates/hooks/{patch.name}.toml or of another patch, then: qlutattn export"
        " (or move it out of the tree)",
        f"    {written(path)},",
    )


def deleted_file(path: str, patches: Sequence[PatchSpec]) -> Refused:
    """The refusal of a deleted file."""
    owner = next((patch for patch in patches if path in patch.overlay), None)
    if owner is None:
        why = "this file of llama.cpp is deleted, which a hook cannot do"
        return Refused(
            path, None, why, "git checkout it; to exclude it from the build, edit the CMakeLists.txt that names it"
        )
    why = f"this file is deleted, and templates/hooks/{owner.name}.toml adds it"
    return Refused(
        path,
        None,
        why,
        "remove it from the list `overlay` there, remove it from templates/overlay, then: qlutattn export",
    )


def _passages(text: str, unmapped: Sequence[Edit]) -> list[tuple[int, int, list[Edit]]]:
    """The edits grouped by the lines that they are in; an insertion between two lines is in none."""
    found: list[tuple[int, int, list[Edit]]] = []
    for edit in sorted(unmapped, key=lambda one: one.start):
        start = text.rfind("\n", 0, edit.start) + 1
        at_line_start = edit.end == 0 or text[edit.end - 1] == "\n"
        whole = at_line_start and edit.start == start and (not edit.text or edit.text.endswith("\n"))
        end = edit.end if whole else (text.find("\n", edit.end) + 1 or len(text))
        if found and start <= found[-1][1]:
            first, last, inside = found.pop()
            found.append((first, max(last, end), [*inside, edit]))
        else:
            found.append((start, end, [edit]))
    return found


def _hook_for(file: PatchedFile, start: int, end: int, new: str) -> str:
    """A hook for the edit of some lines, with enough lines around them to make its anchor unique."""
    text = file.text
    before, after = text[:start].splitlines(keepends=True), text[end:].splitlines(keepends=True)
    sizes = sorted(
        ((up, down) for up in range(_CONTEXT) for down in range(_CONTEXT)), key=lambda one: (sum(one), one[1])
    )
    for up, down in sizes:
        head, tail = "".join(before[len(before) - up :] if up else []), "".join(after[:down])
        anchor = head + text[start:end] + tail
        if anchor.strip() and text.count(anchor) == 1 and _is_upstream(file, start - len(head), end + len(tail)):
            if start == end and not down:
                return _toml(file.path, "after", head, new)
            if start == end and not up:
                return _toml(file.path, "before", tail, new)
            return _toml(file.path, "replace", anchor, head + new + tail)
    return ""


def _toml(path: str, place: str, anchor: str, text: str) -> str:
    fields = (
        f"file = {written(path)}",
        f'place = "{place}"',
        f"anchor = {written(anchor)}",
        f"text = {written(escaped(text))}",
    )
    return "\n".join(["[[hook]]", *fields, ""])


def _is_upstream(file: PatchedFile, start: int, end: int) -> bool:
    at = 0
    for part in file.parts:
        if part.key is not None and part.text and at < end and start < at + len(part.text):
            return False
        at += len(part.text)
    return True


def _near(file: PatchedFile, edit: Edit) -> str:
    """The hook whose anchor an edit is in, or the nearest hook."""
    hooks = [(owner, owner.placed.variant) for owner in file.owners if owner.placed]
    for owner, variant in hooks:
        start, end = file.anchor_of(owner)
        if start < edit.start < end or (start < edit.end and edit.start < end and edit.start < edit.end):
            return f": it is the anchor of {hook_name(variant)}"
    if not hooks:
        return " (no hook edits this file)"
    owner, variant = min(hooks, key=lambda one: _distance(file, one[0], edit))
    return f" (the nearest is {hook_name(variant)}, at {_lines(file, owner)} of the patched file)"


def _distance(file: PatchedFile, owner: Owner, edit: Edit) -> int:
    start, end = file.range_of(owner)
    return max(start - edit.end, edit.start - end, 0)


def _lines(file: PatchedFile, owner: Owner) -> str:
    start, end = file.range_of(owner)
    first, last = (file.text.count("\n", 0, at) + 1 for at in (start, max(start, end - 1)))
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _patch_of(path: str, patches: Sequence[PatchSpec]) -> PatchSpec:
    """The patch that an edit of a file most likely belongs to: the last that edits it, or has files near it."""

    def fitness(patch: PatchSpec) -> tuple[bool, int, int]:
        edited = [hook.file for hook in patch.hooks]
        return path in edited, _nearness(path, [*patch.overlay, *edited]), patches.index(patch)

    return max(patches, key=fitness)


def _nearness(path: str, files: Sequence[str]) -> int:
    return max((len(os.path.commonpath([path, file])) for file in files), default=0)


def _add(patch: PatchSpec, toml: str) -> str:
    where = f"templates/hooks/{patch.name}.toml"
    return f"add this to the end of {where}" if toml else f"add a hook to {where} with a unique anchor"


def line_of(found: Sequence[Edit], text: str, at: int) -> int:
    """The line of the edited text for an offset in the text before the edits."""
    before = [edit for edit in found if edit.start < at and edit.end <= at]
    moved = sum(edit.text.count("\n") - text.count("\n", edit.start, edit.end) for edit in before)
    return text.count("\n", 0, at) + 1 + moved
