"""The patch specifications: `templates/hooks/series`, one TOML per patch, and the overlay files of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from qlutattn_patch.system import digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.toml import TomlTable, read_text, read_toml, repository_path, shown, version

PLACES = ("after", "before", "replace")
TEMPLATE_SUFFIX = ".j2"


@dataclass(frozen=True)
class Hook:
    """An edit of a file that is already there: text put after, before or in place of an anchor.

    `variants` are the forms of the same edit for upstreams that look otherwise; exactly one of all variants must fit.
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
    """One patch: why it exists, the new files that it brings and the edits that it makes."""

    name: str
    subject: str
    why: str
    not_a_new_file: str
    until: str
    overlay: tuple[str, ...]
    hooks: tuple[Hook, ...]
    optional: Optional | None = None


@dataclass(frozen=True)
class Optional:
    """What makes a patch optional: an upstream older than the release `since` can do without it, and why."""

    since: str
    because: str


@dataclass(frozen=True)
class Templates:
    """The patch specifications in their order, where the source of each overlay file is, and the digest of it all."""

    patches: tuple[PatchSpec, ...]
    overlay: dict[str, Path]
    digest: str

    def until(self, name: str) -> Templates:
        """The same without the patch of that name and those that follow it."""
        kept = self.patches[: [patch.name for patch in self.patches].index(name)]
        files = {file for patch in kept for file in patch.overlay}
        return Templates(kept, {file: source for file, source in self.overlay.items() if file in files}, self.digest)


def of_templates(folder: Path) -> str:
    """The digest of everything in templates/ that patches are made from."""
    hooks = folder / "hooks"
    overlay = [path for path in (folder / "overlay").rglob("*") if path.is_file()]
    return digests.of_files(folder, [folder / "formats.toml", hooks / "series", *hooks.glob("*.toml"), *overlay])


def load_templates(folder: Path) -> Templates:
    """Read `templates/hooks` and see that every specification and every overlay file has exactly one place."""
    names = read_series(folder / "hooks" / "series", "list the names of the patches in it, one per line")
    patches = tuple(_load_patch(folder / "hooks" / f"{name}.toml", name) for name in names)
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
                problems.append(f"{file} is brought by '{owner[file]}' and again by '{patch.name}'")
            elif file not in overlay:
                problems.append(f"{file} is brought by '{patch.name}', but templates/overlay does not have it")
            owner.setdefault(file, patch.name)
    problems += [f"templates/overlay/{file} is not brought by any patch" for file in overlay if file not in owner]
    first = next((patch.name for patch in patches if patch.optional), None)
    problems += [
        f"'{patch.name}' follows the optional patch '{first}' and is not optional itself"
        for patch in patches[names.index(first) if first else len(names) :]
        if not patch.optional
    ]
    if problems:
        raise ExpectedError(
            "\n".join(["The templates do not fit together:", *(f"  {problem}" for problem in problems)]),
            "mend templates/hooks, then: qlutattn generate",
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


def _load_patch(path: Path, name: str) -> PatchSpec:
    fields = read_toml(path)
    spec = PatchSpec(
        name=name,
        subject=_one_line(fields, "subject"),
        why=_prose(fields, "why"),
        not_a_new_file=_prose(fields, "not_a_new_file"),
        until=_prose(fields, "until"),
        overlay=tuple(repository_path(fields, "overlay", file) for file in fields.texts("overlay", ())),
        hooks=tuple(_load_hook(hook, name) for hook in fields.tables("hook")),
        optional=_load_optional(fields),
    )
    fields.done()
    if not spec.overlay and not spec.hooks:
        raise fields.wrong("it has neither overlay files nor hooks")
    return spec


def _load_optional(fields: TomlTable) -> Optional | None:
    if "optional" not in fields:
        return None
    table = fields.table("optional")
    found = Optional(version(table, "since"), " ".join(table.text("because").split()))
    table.done()
    return found


def _load_hook(fields: TomlTable, patch: str) -> Hook:
    hook = _load_variant(fields, None)
    variants = tuple(_load_variant(other, hook) for other in fields.tables("or"))
    fields.done()
    return replace(hook, patch=patch, variants=tuple(replace(other, patch=patch) for other in variants))


def _load_variant(fields: TomlTable, main: Hook | None) -> Hook:
    """One variant of a hook; another variant has the keys of the first one wherever it does not say otherwise."""
    variant = Hook(
        where=fields.where,
        file=repository_path(fields, "file", fields.text("file", default=main.file if main else None)),
        anchor=fields.text("anchor"),
        place=fields.text("place", default=main.place if main else None),
        text=fields.text("text", blank=True, default=main.text if main else None),
        count=fields.integer("count", main.count if main else 1),
    )
    if variant.place not in PLACES:
        raise fields.wrong(f"'place' must be 'after', 'before' or 'replace', not '{variant.place}'")
    for key, value in (("anchor", variant.anchor), ("text", variant.text)):
        if "\0" in value or "\r" in value:
            raise fields.wrong(f"'{key}' has a NUL or a carriage return, which no source file here has")
    if variant.count < 1:
        raise fields.wrong(f"'count' must be 1 or more, not {variant.count}")
    if main:
        fields.text("upstream")  # which ones look like this: for the reader
        fields.done()
    return variant


def _one_line(fields: TomlTable, key: str) -> str:
    value = fields.text(key).strip()
    if "\n" in value:
        raise fields.wrong(f"'{key}' must be one line")
    return _printable(fields, key, value)


def _prose(fields: TomlTable, key: str) -> str:
    """A paragraph: line breaks and indentation in the TOML mean nothing."""
    return _printable(fields, key, " ".join(fields.text(key).split()))


def _printable(fields: TomlTable, key: str, value: str) -> str:
    if not value.isprintable():
        raise fields.wrong(f"'{key}' has characters that cannot be printed: {shown(value)}")
    return value


def _overlay_sources(folder: Path) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    problems = []
    for source in sorted(folder.rglob("*")):
        if source.is_dir() and not source.is_symlink():
            continue
        file = source.relative_to(folder).as_posix().removesuffix(TEMPLATE_SUFFIX)
        if file in found:
            problems.append(f"{file} is in templates/overlay both as it is and as {TEMPLATE_SUFFIX}")
        if source.is_symlink():
            problems.append(f"templates/overlay/{file} is a link")
        found[file] = source
    return found, problems
