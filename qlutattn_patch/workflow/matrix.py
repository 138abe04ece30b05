"""Test the patch set on several upstreams: the stages from the anchors to align_attn, up to the first that fails."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from qlutattn_patch.building import cmake, toolchain
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.series import Patch, Series
from qlutattn_patch.proof import align
from qlutattn_patch.system import console, cpu, digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.git import Repository
from qlutattn_patch.system.lock import locked
from qlutattn_patch.system.records import Versioned, encoded, read
from qlutattn_patch.templates.anchors import AnchorFailure, HooksDoNotFit
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.spec import Templates, load_templates, of_templates
from qlutattn_patch.tree import worktree
from qlutattn_patch.upstream.releases import Upstream
from qlutattn_patch.workflow.documents import MissingAnchor, Near, Part, Row
from qlutattn_patch.workflow.stages import SOURCE, STAGES, Stage
from qlutattn_patch.workspace import Workspace

_TAIL = 40
# the packages that decide whether a stage passes
_CHECKER_PACKAGES = ("system", "upstream", "templates", "patches", "tree", "building", "proof", "workflow")


class _Passed(Versioned, frozen=True):
    """The receipt of an upstream that passed."""

    row: Row


@dataclass(frozen=True)
class Checker:
    """Checks upstreams; `until` is the last stage that is tried."""

    root: Path
    cache: Path
    preset: str = "native"
    jobs: int | None = None
    until: Stage = STAGES[-1]

    def check(self, llama: Upstream) -> Row:
        """Run an upstream through the stages, or read the stored result if nothing has changed."""
        receipt = self.cache / "matrix" / f"{self._key(llama)}.json"
        if known := _read(receipt):
            return replace(known, version=llama.name, commit=llama.commit, cached=True)
        with locked(llama.folder.parent / "lock", f"llama.cpp {llama.name}", patience=3600):
            row = self._check(llama)
        if row.ok:
            write_atomically(receipt, encoded(_Passed(row)))
        return row

    # --- the stages

    def _check(self, llama: Upstream) -> Row:
        row = Row(llama.name, llama.commit, STAGES[0], False, "", llama.tree)
        workspace = Workspace(self.root, llama.folder)
        try:
            series, parts = self._generate(llama)
        except HooksDoNotFit as failure:
            return replace(row, detail=failure.cause, moved=_moved(failure.failures))
        except ExpectedError as failure:
            return replace(row, stage="generated", detail=failure.cause)
        row = _with_optional(replace(row, stage="generated", ok=True), parts)
        if not row.ok or self._is_last("generated"):
            return row
        try:
            worktree.apply(workspace, series)
        except ExpectedError as failure:
            return replace(row, stage="applied", ok=False, detail=failure.cause)
        row = replace(row, stage="applied")
        if self._is_last("applied"):
            return row
        row = self._compile(row, workspace, series)
        if not row.ok or self._is_last("compiled"):
            return row
        return self._align(row, workspace)

    def _is_last(self, stage: Stage) -> bool:
        return STAGES.index(self.until) <= STAGES.index(stage)

    def _generate(self, llama: Upstream) -> tuple[Series, tuple[Part, ...]]:
        """The patches for this upstream: all, or without the optional ones from the first that does not fit."""
        formats = load_formats(self.root / "templates" / "formats.toml")
        templates = load_templates(self.root / "templates")
        repository = Repository.open(llama.folder)
        try:
            return make_series(formats, templates, repository), _parts(templates, llama, None, "")
        except HooksDoNotFit as failure:
            optional = [patch.name for patch in templates.patches if patch.optional]
            blamed = {one.hook.patch for one in failure.failures}
            if not optional or not blamed.issubset(optional):
                raise
            first = next(name for name in optional if name in blamed)
            series = make_series(formats, templates.until(first), repository)
            return series, _parts(templates, llama, first, failure.cause)

    def _compile(self, row: Row, workspace: Workspace, series: Series) -> Row:
        """Build align_attn, and the objects of llama that a patch touches, which align_attn does not need."""
        optional = {part.patch for part in row.optional}
        theirs = {patch.title: _objects(patch) for patch in series.patches if patch.title in optional}
        required = {path for patch in series.patches if patch.title not in optional for path in _objects(patch)}
        required.difference_update(*theirs.values())
        try:
            cmake.build(workspace, self.preset, jobs=self.jobs, objects=sorted(required))
        except ExpectedError as failure:
            return replace(row, stage="compiled", ok=False, detail=failure.cause)
        parts = []
        for part in row.optional:
            try:
                if part.ok:
                    cmake.build(workspace, self.preset, jobs=self.jobs, objects=sorted(theirs[part.patch]))
                    part = replace(part, stage="compiled")
            except ExpectedError as failure:
                part = replace(part, stage="compiled", ok=False, detail=failure.cause)
            parts.append(part)
        return _with_optional(replace(row, stage="compiled"), tuple(parts))

    def _align(self, row: Row, workspace: Workspace) -> Row:
        try:
            report = align.align(workspace, self.preset, quick=True)
        except ExpectedError as failure:
            return replace(row, stage="aligned", ok=False, detail=failure.cause)
        detail = "" if report.ok else "\n".join([report.verdict(), *report.failures()[:_TAIL]])
        return replace(row, stage="aligned", ok=report.ok, detail=detail, cases=report.document.passed)

    # --- the receipt

    def _key(self, llama: Upstream) -> str:
        """A digest of everything that a row depends on: templates, upstream files, tools, this program."""
        facts: list[object] = [2, llama.tree, self.preset, self.until, _version(llama)]
        facts += [of_templates(self.root / "templates"), digests.of_rooms(*_CHECKER_PACKAGES)]
        if STAGES.index(self.until) >= STAGES.index("compiled"):
            compilers = toolchain.find_compilers(preset_named(self.preset))
            tools = (toolchain.find_cmake(), toolchain.find_ninja(), compilers.c_program, compilers.cxx_program)
            flags = [os.environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS", "GGML_QLUTATTN_KERNEL")]
            facts += [[str(tool) for tool in tools], compilers, flags, cpu.digest()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def run(checker: Checker, names: Sequence[str], find: Callable[[str], Upstream]) -> list[Row]:
    """Check upstreams one after another; an unavailable one is a failed row."""
    rows = []
    for number, name in enumerate(names, 1):
        console.step(f"[{number}/{len(names)}] {name}")
        try:
            row = checker.check(find(name))
        except ExpectedError as failure:
            row = Row(name, None, SOURCE, False, failure.cause)
        console.step(f"[{number}/{len(names)}] {name}: {row.stage} {_verdict(row)}")
        rows.append(row)
    return rows


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of the table; each optional patch has its own."""
    return ("upstream", "llama.cpp", *STAGES, "cases", *_patches(rows))


def table(rows: Sequence[Row]) -> list[list[str]]:
    """One line per upstream, one cell per stage."""
    lines = []
    for row in rows:
        parts = {part.patch: part for part in row.optional}
        cells = [_part_cell(parts.get(name)) for name in _patches(rows)]
        lines.append(
            [
                row.version,
                (row.commit or "-")[:9],
                *(_cell(row, stage) for stage in STAGES),
                str(row.cases or "-"),
                *cells,
            ]
        )
    return lines


def details(rows: Sequence[Row]) -> list[str]:
    """The details of each failed upstream, and of each optional patch that was left out."""
    lines = []
    for row in rows:
        if not row.ok:
            lines += [f"FAILED {row.version}, {row.stage}: {row.detail}"]
        elif row.detail:
            lines += [f"{row.version}: {row.detail}"]
        for part in row.optional:
            if not part.ok and not part.needed:
                lines.append(f"{row.version} does without '{part.patch}': {part.detail}")
    return lines


def _with_optional(row: Row, parts: tuple[Part, ...]) -> Row:
    """The row with its optional patches; the row fails if a needed one fails."""
    row = replace(row, optional=parts)
    for part in parts:
        if part.needed and not part.ok:
            return replace(row, stage=part.stage, ok=False, detail=f"{part.patch}: {part.detail}")
    return row


def _objects(patch: Patch) -> set[str]:
    """The sources of llama that a patch changes or adds; those of ggml are built with align_attn."""
    return {file.path for file in patch.files if file.path.startswith("src/") and file.path.endswith((".c", ".cpp"))}


def _patches(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(part.patch for row in rows for part in row.optional))


def _part_cell(part: Part | None) -> str:
    return "-" if part is None else "ok" if part.ok else "FAIL" if part.needed else "without"


def _verdict(row: Row) -> str:
    return ("unchanged since it passed" if row.cached else "ok") if row.ok else "FAILED"


def _parts(templates: Templates, llama: Upstream, first: str | None, cause: str) -> tuple[Part, ...]:
    """The optional patches; those from `first` on do not fit."""
    parts = []
    failed = False
    for patch in templates.patches:
        if patch.optional is None:
            continue
        failed = failed or patch.name == first
        needed = not _is_older(_version(llama), patch.optional.since)
        why = cause if needed else f"{patch.optional.because} ({_counted(cause)})"
        detail = (why if patch.name == first else f"it follows '{first}'") if failed else ""
        parts.append(Part(patch.name, "anchors" if failed else "generated", not failed, needed, detail))
    return tuple(parts)


def _counted(cause: str) -> str:
    return cause.splitlines()[0].rstrip(":") if cause else ""


def _version(llama: Upstream) -> str | None:
    return llama.release.version if llama.release else None


def _is_older(version: str | None, since: str) -> bool:
    """Whether a release is older than another; a commit counts as the newest."""
    if version is None:
        return False
    return [int(part) for part in re.findall(r"\d+", version)] < [int(part) for part in re.findall(r"\d+", since)]


def _moved(failures: Sequence[AnchorFailure]) -> tuple[MissingAnchor, ...]:
    return tuple(
        MissingAnchor(
            hook=Path(one.variant.where).name,
            patch=failure.hook.patch,
            file=one.variant.file,
            anchor=one.anchor,
            found=one.found,
            near=tuple(Near(line, text) for line, text in one.candidates),
            follows=Path(failure.cascade_of.where).name if failure.cascade_of else None,
        )
        for failure in failures
        for one in failure.tried
    )


def _cell(row: Row, stage: Stage) -> str:
    """The table cell of a stage."""
    if row.stage == SOURCE:
        return "-"
    at, here = STAGES.index(row.stage), STAGES.index(stage)
    return "ok" if here < at or (here == at and row.ok) else "FAIL" if here == at else "-"


def _read(receipt: Path) -> Row | None:
    """Read a receipt; None if it is unreadable."""
    try:
        return read(receipt, _Passed).row
    except (OSError, ValueError):
        return None
