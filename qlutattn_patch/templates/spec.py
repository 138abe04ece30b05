"""The patch specifications: `templates/hooks/series`, one TOML per patch, and the overlay files of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field, structs

from qlutattn_patch.system import digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import files_below
from qlutattn_patch.system.records import Record
from qlutattn_patch.system.toml import RepositoryPath, Text, Version, load, read_text, shown

TEMPLATE_SUFFIX = ".j2"
_SOURCE = "a text without NUL and carriage returns"
_Source = Annotated[str, Meta(pattern=r"\A[^\0\r]*\Z", description=_SOURCE)]
_Anchor = Annotated[str, Meta(pattern=r"\A[^\0\r]*[^\0\r\s][^\0\r]*\Z", description=f"{_SOURCE}, and not blank")]
_Place = Literal["after", "before", "replace"]
_Count = Annotated[int, Meta(ge=1, le=1000)]


class _Line(str):
    """One line."""

    def __new__(cls, value: str) -> _Line:
        if "\n" in value.strip():
            raise ValueError("must be one line")
        return super().__new__(cls, _printable(value.strip()))


class _Prose(str):
    """A paragraph: line breaks and indentation in the TOML are ignored."""

    def __new__(cls, value: str) -> _Prose:
        return super().__new__(cls, _printable(" ".join(value.split())))


class Optional(Record, frozen=True):
    """A patch is optional for upstreams older than the release `since`, with the reason."""

    since: Version
    because: _Prose


class _VariantTable(Record, frozen=True):
    """Another variant of a hook; missing keys default to the hook's."""

    upstream: Text  # the upstreams that it fits, as a comment
    anchor: _Anchor
    file: RepositoryPath | None = None
    place: _Place | None = None
    text: _Source | None = None
    count: _Count | None = None


class _HookTable(Record, frozen=True):
    file: RepositoryPath
    anchor: _Anchor
    place: _Place
    text: _Source
    count: _Count = 1
    variants: tuple[_VariantTable, ...] = field(name="or", default=())


class _PatchTable(Record, frozen=True):
    subject: _Line
    why: _Prose
    not_a_new_file: _Prose
    until: _Prose
    overlay: tuple[RepositoryPath, ...] = ()
    hooks: tuple[_HookTable, ...] = field(name="hook", default=())
    optional: Optional | None = None

    def __post_init__(self) -> None:
        if not self.overlay and not self.hooks:
            raise ValueError("it has neither overlay files nor hooks")


@dataclass(frozen=True)
class Hook:
    """An edit of an existing file: text after, before or instead of an anchor.

    `variants` are the same edit for other upstreams; exactly one of all variants must fit.
    """

    where: str
    file: str
    anchor: str
    place: str
    text: str
    count: int
    patch: str = ""
    variants: tuple[Hook, ...] = ()


@dataclass(frozen=True)
class PatchSpec:
    """One patch: its purpose, its new files and its edits."""

    name: str
    subject: str
    why: str
    not_a_new_file: str
    until: str
    overlay: tuple[str, ...]
    hooks: tuple[Hook, ...]
    optional: Optional | None = None


@dataclass(frozen=True)
class Templates:
    """The patch specifications in order, the source of each overlay file, and the digest of the templates."""

    patches: tuple[PatchSpec, ...]
    overlay: dict[str, Path]
    digest: str

    def until(self, name: str) -> Templates:
        """The templates without this patch and those after it."""
        kept = self.patches[: [patch.name for patch in self.patches].index(name)]
        files = {file for patch in kept for file in patch.overlay}
        return Templates(kept, {file: source for file, source in self.overlay.items() if file in files}, self.digest)


def of_templates(folder: Path) -> str:
    """The digest of everything in templates/ that patches are generated from."""
    hooks = folder / "hooks"
    overlay = files_below(folder / "overlay")
    return digests.of_files(folder, [folder / "formats.toml", hooks / "series", *hooks.glob("*.toml"), *overlay])


def load_templates(folder: Path) -> Templates:
    """Read `templates/hooks`, and check that every specification and overlay file is used exactly once."""
    names = read_series(folder / "hooks" / "series", "list the names of the patches there, one per line")
    patches = tuple(load_patch(folder / "hooks" / f"{name}.toml", name) for name in names)
    overlay, problems = _overlay_sources(folder / "overlay")
    problems += [
        f"templates/hooks/{path.name} is not named in templates/hooks/series"
        for path in sorted((folder / "hooks").glob("*.toml"))
        if path.stem not in names
    ]
    owner: dict[str, str] = {}
    for patch in patches:
        for file in patch.overlay:
            if file in owner:
                problems.append(f"{file} is added by '{owner[file]}' and again by '{patch.name}'")
            elif file not in overlay:
                problems.append(f"{file} is added by '{patch.name}', but missing from templates/overlay")
            owner.setdefault(file, patch.name)
    problems += [f"templates/overlay/{file} is not added by any patch" for file in overlay if file not in owner]
    first = next((patch.name for patch in patches if patch.optional), None)
    problems += [
        f"'{patch.name}' follows the optional patch '{first}' and is not optional itself"
        for patch in patches[names.index(first) if first else len(names) :]
        if not patch.optional
    ]
    if problems:
        raise ExpectedError(
            "\n".join(["The templates are inconsistent:", *(f"  {problem}" for problem in problems)]),
            "fix templates/hooks, then: qlutattn generate",
        )
    return Templates(patches, overlay, of_templates(folder))


def read_series(path: Path, hint: str) -> list[str]:
    """The names in a series file, one per line; `#` starts a comment."""
    lines = (line.split("#", 1)[0].strip() for line in read_text(path, hint).splitlines())
    names = [line for line in lines if line]
    for name in names:
        if "/" in name or "\\" in name or name.startswith((".", "-")) or " " in name or not name.isprintable():
            raise ExpectedError(f"{path}: {shown(name)} is not a plain file name.", hint)
        if names.count(name) > 1:
            raise ExpectedError(f"{path}: '{name}' is listed twice.", hint)
    return names


def load_patch(path: Path, name: str) -> PatchSpec:
    """Read the specification of one patch."""
    table = load(path, _PatchTable)
    hooks = tuple(_hook(hook, name, f"{path} [[hook]] {number}") for number, hook in enumerate(table.hooks, 1))
    return PatchSpec(
        name, table.subject, table.why, table.not_a_new_file, table.until, table.overlay, hooks, table.optional
    )


def _hook(table: _HookTable, patch: str, where: str) -> Hook:
    variants = []
    for number, other in enumerate(table.variants, 1):
        stated = {key: value for key, value in structs.asdict(other).items() if value is not None and key != "upstream"}
        variants.append(_hook(structs.replace(table, **stated, variants=()), patch, f"{where} [[or]] {number}"))
    return Hook(where, table.file, table.anchor, table.place, table.text, table.count, patch, tuple(variants))


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"has characters that cannot be printed: {shown(value)}")
    if not value:
        raise ValueError("is empty")
    return value


def _overlay_sources(folder: Path) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    problems = []
    for source in sorted(folder.rglob("*")):
        if source.is_dir() and not source.is_symlink():
            continue
        file = source.relative_to(folder).as_posix().removesuffix(TEMPLATE_SUFFIX)
        if file in found:
            problems.append(f"{file} is in templates/overlay both without and with {TEMPLATE_SUFFIX}")
        if source.is_symlink():
            problems.append(f"templates/overlay/{file} is a link")
        found[file] = source
    return found, problems
