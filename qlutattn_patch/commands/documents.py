"""The JSON documents of commands that have no result type of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from qlutattn_patch.system.records import Digest, Record, Versioned, doc
from qlutattn_patch.upstream.pin import Pinned

_Tree = Annotated[str, doc("the folder of the tree")]
_Changed = Annotated[bool, doc("whether anything changed")]
_Series = Annotated[Digest, doc("the sha256 of the patch set")]
FileKind = Literal["missing", "changed", "orphaned", "foreign", "created", "removed"]
_Patches = Annotated[list[str], doc("the patches, in order")]


class VendorDocument(Versioned, frozen=True):
    """The llama.cpp that is in the vendored tree."""

    tree: _Tree
    changed: _Changed
    pin: Pinned


class ApplyDocument(Versioned, frozen=True):
    """The patch set in the tree."""

    tree: _Tree
    changed: _Changed
    series: _Series
    patches: _Patches


class RevertDocument(Versioned, frozen=True):
    """The tree without the patch set."""

    tree: _Tree
    changed: _Changed


class GeneratedFile(Record, frozen=True):
    """A generated file that differed."""

    kind: Annotated[
        FileKind,
        doc(
            "with --check, the difference: missing, changed, orphaned; without, the action: created, changed, removed;"
            " foreign: not a generated file, never changed"
        ),
    ]
    path: Annotated[str, doc("relative to the project")]


class GenerateDocument(Versioned, frozen=True):
    """The patches, and which of the generated files were not up to date."""

    check: Annotated[bool, doc("whether --check was given: nothing was written")]
    series: _Series
    patches: _Patches
    files: Annotated[list[GeneratedFile], doc("those that differed")]


class BuildDocument(Versioned, frozen=True):
    """What was built, and where."""

    preset: Annotated[str, doc("the preset")]
    targets: Annotated[tuple[str, ...], Meta(min_length=1, description="the targets")]
    folder: Annotated[str, doc("the build folder")]
    bin: Annotated[str, doc("where the programs are")]


class InstallDocument(Versioned, frozen=True, kw_only=True):
    """What was installed."""

    prefix: Annotated[str, doc("the folder")]
    files: Annotated[list[str], doc("all files, written now or the same before")]


class CachePart(Record, frozen=True):
    """A part of the cache."""

    name: str
    what: Annotated[str, doc("what is in it")]
    path: str
    bytes: Annotated[int, doc("of its files")]


class CacheDocument(Versioned, frozen=True):
    """The cache directory."""

    path: str
    removed: Annotated[bool, doc("whether the parts were removed")]
    parts: Annotated[list[CachePart], doc("those that there are, or that were removed")]


class CompletionDocument(Versioned, frozen=True):
    """A shell's completion."""

    shell: str
    script: Annotated[str, doc("for the shell to read")]


class WheelDocument(Versioned, frozen=True, kw_only=True):
    """The patched llama-cpp-python as a wheel."""

    wheel: Annotated[str, doc("its path")]
    version: Annotated[str, doc("of the release, with a local part that names qlutattn's")]
    cached: Annotated[bool, doc("whether it was there already")]


class TypeEntry(Record, frozen=True):
    """A tensor type."""

    name: str
    id: Annotated[int, doc("in ggml's enum")]
    bits: Annotated[int, doc("of a code")]
    lanes: Annotated[Literal["token", "channel"], doc("the axis whose values share a scale and an offset")]
    tile_bytes: Annotated[int, doc("of a tile of 128 × 128")]
    bpw: Annotated[float, doc("bits per value")]
    saving: Annotated[float, doc("the fraction of f16's memory that is saved")]


class TypesDocument(Versioned, frozen=True):
    """The tensor types."""

    types: Annotated[list[TypeEntry], Meta(min_length=1)]


class FindingEntry(Record, frozen=True):
    """A tool, package or resource that was checked."""

    name: str
    ok: Annotated[bool, doc("whether it is there")]
    required: Annotated[bool, doc("whether `qlutattn run` needs it")]
    needed_for: str
    path: str
    version: str


class DoctorDocument(Versioned, frozen=True):
    """What this machine has and lacks."""

    machine: Annotated[str, doc("its instruction set family")]
    isa: Annotated[list[str], doc("the processor's relevant instruction sets")]
    findings: list[FindingEntry]
    install: Annotated[str | None, doc("the command that installs what is missing")]


class ReportDocument(Versioned, frozen=True):
    """The page that was written."""

    path: Annotated[str, doc("the HTML file")]
