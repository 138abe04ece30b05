"""Apply the patch set to a commit outside its work tree; all misfits are reported together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qlutattn_patch.patches.patchfile import FilePatch
from qlutattn_patch.patches.series import Patch, Series
from qlutattn_patch.patches.tables import mismatches
from qlutattn_patch.patches.tile_sizes import disagreements
from qlutattn_patch.patches.untouched import changes
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Entry, Repository
from qlutattn_patch.upstream.layout import CHECKED, TRAITS_INC


@dataclass(frozen=True)
class PatchedTree:
    """A patched tree: its id, the files that differ from the base (None: removed), and contents by blob id."""

    tree: str
    files: Mapping[str, Entry | None]
    contents: Mapping[str, bytes]


@dataclass(frozen=True)
class _Misfit:
    """A part of a patch that does not fit."""

    patch: str
    file: str
    what: str


def apply_series(repository: Repository, series: Series, base: str) -> PatchedTree:
    """Apply the series to the commit at HEAD in a scratch index, as `git am` would; `base` names it in an error."""
    head = repository.tree_id()
    with repository.scratch() as scratch:
        scratch.read_tree(head)
        misfits: list[_Misfit] = []
        for patch in series.patches:
            if misfits or scratch.apply(patch.data).status:
                misfits += _apply_what_fits(scratch, patch)
        if misfits:
            raise _misfit_error(misfits, base)
        tree = scratch.write_tree()
        files = scratch.differences(head, tree)
        _check_tables(scratch, head, tree, files, base)
        return PatchedTree(tree, files, scratch.blobs(entry.blob for entry in files.values() if entry))


def _check_tables(scratch: Repository, head: str, tree: str, files: Mapping[str, Entry | None], base: str) -> None:
    """Refuse a result whose tables contradict each other although every hunk fits, such as an id that upstream took."""
    before, after = _texts(scratch, head), _texts(scratch, tree)
    if problems := mismatches(after):
        raise ExpectedError(
            "\n".join([f"The tables of {base} with the patches are inconsistent:", *(f"  {one}" for one in problems)]),
            "change the ids or names in templates/formats.toml, or use another llama.cpp",
        )
    there = scratch.files(head)
    if problems := [*disagreements(after), *changes(before, after, sorted(path for path in files if path in there))]:
        raise ExpectedError(
            "\n".join([f"The patches do not match {base}:", *(f"  {one}" for one in problems)]),
            "generate them again: qlutattn generate",
        )


def _texts(scratch: Repository, tree: str) -> dict[str, str]:
    """The files of a tree whose contents are checked."""
    entries = {path: entry for path, entry in scratch.files(tree).items() if path in (*CHECKED, TRAITS_INC)}
    blobs = scratch.blobs(entry.blob for entry in entries.values())
    return {path: blobs[entry.blob].decode("utf-8", "replace") for path, entry in entries.items()}


def _apply_what_fits(scratch: Repository, patch: Patch) -> list[_Misfit]:
    """Apply the files and hunks that fit, so that later patches fail only on their own; returns the misfits."""
    misfits = []
    for file in patch.files:
        if scratch.apply(file.data).status == 0:
            continue
        if len(file.hunks) < 2 or file.is_new:
            misfits.append(_Misfit(patch.name, file.path, _reason(scratch, file)))
            continue
        for hunk in file.hunks:
            if scratch.apply(file.head + hunk.data).status:
                misfits.append(_Misfit(patch.name, file.path, _hunk_text(hunk.data)))
    return misfits


def _reason(scratch: Repository, file: FilePatch) -> str:
    errors = [line.removeprefix("error: ") for line in scratch.apply(file.data, check=True).stderr.splitlines()]
    if file.hunks and not file.is_new and not any("does not exist" in line for line in errors):
        return _hunk_text(file.hunks[0].data)
    return next((line.removeprefix(f"{file.path}: ") for line in errors), "does not apply")


def _hunk_text(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").splitlines()
    place = lines[0].split("@@")[1].strip()
    change = next((line for line in lines[1:] if line[:1] in "+-"), "")
    return f"the hunk {place} does not fit (it begins with '{change.strip()}')"


def _misfit_error(misfits: list[_Misfit], base: str) -> ExpectedError:
    seen: dict[str, str] = {}
    roots, cascades = [], []
    for misfit in misfits:
        line = f"  {misfit.patch}: {misfit.file}: {misfit.what}"
        first = seen.setdefault(misfit.file, misfit.patch)
        if first == misfit.patch:
            roots.append(line)
        else:
            cascades.append(f"{line} (may follow from {first})")
    patches = len({misfit.patch for misfit in misfits})
    lines = [f"{patches} of the patches {'does' if patches == 1 else 'do'} not fit {base}:", *roots, *cascades]
    return ExpectedError("\n".join(lines), "generate patches for this llama.cpp, with --tree: qlutattn generate --help")
