"""The JSON documents of matrix, bisect, rebase and status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from qlutattn_patch.building.origin import Origin
from qlutattn_patch.system.records import Count, Digest, Record, Versioned, doc
from qlutattn_patch.upstream.pin import Pinned
from qlutattn_patch.workflow.stages import Reached, Stage

Until = Literal["generated", "applied", "compiled", "aligned"]
_Commit = Annotated[str | None, doc("the commit of llama.cpp, where it is known")]
_Detail = Annotated[str, doc("details")]


class Near(Record, frozen=True):
    """A line similar to an anchor."""

    line: int
    text: str


class MissingAnchor(Record, frozen=True):
    """A hook whose anchor is missing or ambiguous: the number of matches, and similar lines."""

    hook: str
    patch: str
    file: str
    anchor: str
    found: Annotated[int | None, doc("number of matches; null: there is no such file")]
    near: Annotated[tuple[Near, ...], doc("the most similar lines")]
    follows: Annotated[str | None, doc("the failed hook that caused this")]


class Part(Record, frozen=True):
    """An optional patch: whether it fits, and whether this upstream needs it."""

    patch: str
    stage: Stage
    ok: Annotated[bool, doc("whether it fits")]
    needed: Annotated[bool, doc("whether this upstream needs it")]
    detail: str


class Row(Record, frozen=True):
    """An upstream: the last stage that passed, or the first that failed, and why."""

    version: Annotated[str, doc("as given")]
    commit: _Commit
    stage: Annotated[Reached, doc("the last stage that passed or the first that failed")]
    ok: Annotated[bool, doc("whether that stage passed")]
    detail: _Detail
    tree: Annotated[str, doc("the git tree id of its files")] = ""
    moved: Annotated[tuple[MissingAnchor, ...], doc("missing or ambiguous anchors")] = ()
    optional: Annotated[tuple[Part, ...], doc("the optional patches")] = ()
    cases: Annotated[int | None, doc("number of passed cases of align_attn")] = None
    cached: Annotated[bool, doc("whether this is the result of an earlier run")] = False


class MatrixDocument(Versioned, frozen=True):
    """Each upstream and the stage that it reached."""

    until: Annotated[Until, doc("the last stage that was tried")]
    rows: list[Row]


class BisectDocument(Versioned, frozen=True):
    """The first upstream that fails."""

    first_bad: str
    last_good: str
    stage: Annotated[str, doc("the stage that fails")]
    detail: _Detail
    tried: tuple[Row, ...]


class RebaseDocument(Versioned, frozen=True):
    """The project at its new pin."""

    version: Annotated[str, doc("the release")]
    commit: Annotated[str | None, doc("its commit of llama.cpp")]
    changed: Annotated[tuple[str, ...], doc("the files of the project that changed")]
    row: Row


class Stale(Record, frozen=True):
    """A stale link of the chain, its cause, and the command that fixes it."""

    link: Annotated[str, doc("a link of the chain, such as patches -> tree")]
    why: Annotated[str, doc("what differs")]
    next: Annotated[str, doc("the command that fixes it")]


class PatchEntry(Record, frozen=True):
    """A patch, and its cost when upstream changes."""

    name: str
    files: list[str]
    upstream_lines: Annotated[Count, doc("lines of llama.cpp's own files that it adds or removes")]


class PatchesMade(Record, frozen=True):
    """The receipt of the patches."""

    templates: Annotated[str, doc("digest of the templates that they were generated from")]
    upstream: Annotated[str, doc("id of the upstream tree")]
    patches: Annotated[Mapping[str, str], doc("digest of each")]


class TreeMade(Record, frozen=True):
    """The receipt of the tree."""

    commit: Annotated[str, doc("the base commit")]
    base: Annotated[str, doc("id of the base's tree")]
    series: Annotated[str, doc("digest of the patches that were applied")]
    templates: Annotated[str | None, doc("of the templates behind them")]
    result: Annotated[str, doc("id of the patched tree")]
    now: Annotated[str | None, doc("id of the current files")]


_Facts = Annotated[Mapping[str, str], doc("what cmake's cache was configured with")]


class Target(Record, frozen=True):
    """A program."""

    origin: Annotated[Origin, doc("from which tree")]
    facts: _Facts


class ResultEntry(Record, frozen=True):
    """The last result of align, bench, sampling or eval, without its rows."""

    when: Annotated[str, doc("when it was taken")]
    part: Annotated[bool, doc("a partial run")]
    cpu: Annotated[str, doc("on which processor")]
    kernel: Annotated[str | None, doc("GGML_QLUTATTN_KERNEL")]
    of: Annotated[Origin, doc("of the program")]
    facts: _Facts
    result: Annotated[dict[str, Any], doc("counts")]


class BuildFolder(Record, frozen=True):
    """A build folder."""

    preset: Annotated[str, doc("its preset")]
    targets: Annotated[dict[str, Target], doc("each program")]
    results: Annotated[dict[str, ResultEntry], doc("align, bench, sampling or eval")]


class Chain(Record, frozen=True):
    """Every receipt, from the templates to the results (docs/provenance.md)."""

    templates: Annotated[str | None, doc("digest of the current templates")]
    patches: Annotated[PatchesMade | None, doc("null if it cannot be read")]
    tree: Annotated[TreeMade | None, doc("null if nothing is applied")]
    builds: Annotated[list[BuildFolder], doc("each build folder")]


State = Literal["absent", "clean", "applied", "stale", "dirty"]


class StatusDocument(Versioned, frozen=True):
    """The state of the tree."""

    pin: Pinned
    state: Annotated[State, doc("of the tree")]
    stale: Annotated[list[Stale], doc("stale links of the chain")]
    series: Annotated[Digest | None, doc("the sha256 of the patch set")]
    yours: Annotated[list[str], doc("files with changes that qlutattn did not make")]
    patches: Annotated[list[PatchEntry], doc("the patches, in order")]
    chain: Chain
