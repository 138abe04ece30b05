"""Map each edit of a patched tree to the template that it belongs to, or refuse it with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from qlutattn_patch.export.diff import Edit, Part, apply_edits, edits, owned
from qlutattn_patch.export.hookfile import place_of, text_is_shared, with_text
from qlutattn_patch.export.patched_file import Owner, PatchedFile, patched_file
from qlutattn_patch.export.unmapped import Refused, deleted_file, hook_name, line_of, new_file, upstream_edits
from qlutattn_patch.patches.apply import apply_series
from qlutattn_patch.patches.generate import Layout, lay_out
from qlutattn_patch.patches.series import Series
from qlutattn_patch.system.git import is_plain_file
from qlutattn_patch.system.process import shown
from qlutattn_patch.system.records import Record, doc
from qlutattn_patch.system.toml import read_text
from qlutattn_patch.templates.anchors import Placed
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import escaped
from qlutattn_patch.templates.spec import TEMPLATE_SUFFIX, Hook, Templates, load_patch, load_templates, read_series
from qlutattn_patch.tree.worktree import Tree
from qlutattn_patch.workspace import Workspace


class Carried(Record, frozen=True):
    """An exported edit: the file of the tree, and the template (hook, variant) that now contains it."""

    file: Annotated[str, doc("of the tree")]
    to: Annotated[str, doc("the template that now contains it")]
    hook: Annotated[int | None, doc("number of its [[hook]]")] = None
    form: Annotated[int | None, doc("number of the hook's [[or]]")] = None


class Collector:
    """Exports the edits of a tree to a copy of the project's templates; `edited` has the files' blob ids."""

    def __init__(self, staging: Workspace, tree: Tree, applied: Series | None, options: tuple[str, ...]) -> None:
        self._again = f"then: {shown(['qlutattn', 'export', *options])}"
        self._staging = staging
        self._tree = tree
        self._applied = applied
        self.carried: list[Carried] = []
        self.refused: list[Refused] = []
        self.warnings: list[str] = []
        self.edited: dict[str, str | None] = {}

    @cached_property
    def _templates(self) -> Templates:
        return load_templates(self._staging.templates)

    @cached_property
    def _layout(self) -> Layout:
        return lay_out(load_formats(self._staging.templates / "formats.toml"), self._templates, self._tree.repository)

    @cached_property
    def _texts(self) -> dict[str, str]:
        """The files that the templates touch, as generated."""
        return {file: text for step in self._layout.steps for file, text in step.items()}

    @cached_property
    def _texts_applied(self) -> dict[str, str]:
        """The files as they were applied, if those patches still exist."""
        if self._applied is None:
            return {}
        patched = apply_series(self._tree.repository, self._applied, str(self._tree.top))
        return {path: patched.contents[entry.blob].decode() for path, entry in patched.files.items() if entry}

    def collect(self) -> None:
        """Export or refuse every edit."""
        self._take_listed()
        if self.refused:
            return
        before: Mapping[str, str | None] = self._tree.receipt.files if self._tree.receipt else {}
        paths = sorted({*self._tree.repository.changed(), *before, *self._texts})
        for path, blob in self._tree.repository.work_tree_hashes(paths).items():
            was = before[path] if path in before else self._tree.blob_at_base(path)
            target = self._tree.top / path
            if target.is_symlink() or (target.exists() and not is_plain_file(self._tree.top, path)):
                self._refuse(path, "this is now a link, or not a plain file", f"put a plain file there, {self._again}")
            elif blob != was:
                self.edited[path] = blob
                self._file(path, was)
            else:
                self._see_mode(path)

    def _take_listed(self) -> None:
        """Copy from the tree the new files that a patch lists and templates/overlay lacks."""
        for name in read_series(self._staging.templates / "hooks" / "series", ""):
            for file in load_patch(self._staging.templates / "hooks" / f"{name}.toml", name).overlay:
                source = self._staging.templates / "overlay" / file
                known = source.exists() or source.with_name(source.name + TEMPLATE_SUFFIX).exists()
                if known or file in self._tree.base or not is_plain_file(self._tree.top, file):
                    continue
                text = self._text(file)
                if text is not None:
                    source.parent.mkdir(parents=True, exist_ok=True)
                    self._write(source, text, file)

    # --- one file

    def _file(self, path: str, was: str | None) -> None:
        now = self._texts.get(path, self._base_text(path))
        if not (self._tree.top / path).exists():
            if now is not None:
                self.refused.append(deleted_file(path, self._templates.patches))
            return
        if now is None:
            self.refused.append(new_file(path, self._templates.patches))
            return
        self._see_mode(path)
        text = self._text(path)
        if text is not None and text != now and self._is_current(path, was, now, text):
            self._edits(path, now, text)

    def _is_current(self, path: str, was: str | None, now: str, text: str) -> bool:
        """Refuse to revert a change of the templates that was made after they were applied."""
        if self._tree.repository.line("hash-object", "--stdin", "--no-filters", stdin=now.encode()) == was:
            return True
        before = self._texts_applied.get(path, self._base_text(path) if self._applied else None)
        ours = edits(now, text)
        clash = before is None or next(
            (mine for other in edits(now, before) for mine in ours if _overlap(mine, other)), None
        )
        if not clash:
            return True
        self._refuse(
            path,
            "templates/ have changed for this file since they were applied, and the tree does not have that change",
            f"make it in the tree too, or undo it in templates/, {self._again}",
            line_of(ours, now, clash.start) if isinstance(clash, Edit) else None,
        )
        return False

    def _edits(self, path: str, now: str, text: str) -> None:
        source = self._templates.overlay.get(path)
        file = patched_file(self._layout, path) if path in self._texts else PatchedFile(path, (Part(now),))
        homeless: list[Edit] = []
        theirs: dict[Owner, list[Edit]] = {}
        found = edits(now, text)
        for edit in found:
            home = owned(file.parts, edit)
            if home is None:
                homeless.append(edit)
            else:
                owner, inside = home
                assert isinstance(owner, Owner)
                theirs.setdefault(owner, []).append(inside)
        self.refused += upstream_edits(file, found, homeless, self._templates.patches)
        overlay = theirs.pop(Owner(None), None)
        if overlay and source:
            self._overlay(file, source, overlay, found)
        for placed in dict.fromkeys(owner.placed for owner in theirs):
            assert placed is not None
            self._hook(file, placed, theirs, found)

    def _overlay(self, file: PatchedFile, source: Path, ours: Sequence[Edit], found: Sequence[Edit]) -> None:
        if source.suffix == TEMPLATE_SUFFIX:
            template = read_text(source).replace("\r\n", "\n")
            self._refuse_rendered(
                file, Owner(None), ours, template, source.relative_to(self._staging.root).as_posix(), found
            )
        else:
            self._write(source, apply_edits(self._layout.overlay[file.path], ours) or "", file.path)

    def _hook(
        self, file: PatchedFile, placed: Placed, theirs: Mapping[Owner, list[Edit]], found: Sequence[Edit]
    ) -> None:
        owners = [owner for owner in file.owners if owner.placed == placed]
        edited = next(owner for owner in owners if owner in theirs)
        variant, name = placed.variant, hook_name(placed.variant)
        if variant.text not in (placed.text, escaped(placed.text)):
            self._refuse_rendered(file, edited, theirs[edited], variant.text, f"the text of {name}", found)
            return
        results = {apply_edits(placed.text, theirs.get(owner, [])) for owner in owners}
        line = line_of(found, file.text, file.range_of(edited)[0] + theirs[edited][0].start)
        wanted = results.pop() or ""
        if results:
            why = f"{name} puts its text in {len(owners)} places, and these are edited differently"
            self._refuse(file.path, why, f"make the same edit in all of them, {self._again}", line)
            return
        if wanted == (placed.anchor if variant.place == "replace" else ""):
            why = f"without this text, {name} does nothing"
            self._refuse(file.path, why, f"remove that hook there, {self._again}", line)
            return
        path = self._staging.templates / "hooks" / f"{variant.patch}.toml"
        self._warn_of_variants(read_text(path), variant)
        path.write_bytes(with_text(read_text(path), variant, escaped(wanted)).encode())
        number, other = place_of(variant)
        self.carried.append(Carried(file.path, f"templates/hooks/{variant.patch}.toml", number, other))

    def _warn_of_variants(self, toml: str, variant: Hook) -> None:
        hooks = (hook for patch in self._templates.patches for hook in patch.hooks)
        if text_is_shared(toml, variant):
            self.warnings.append(
                f"{hook_name(variant)}: another variant of this hook has the same text, which is now edited too"
            )
        elif next(hook for hook in hooks if variant in (hook, *hook.variants)).variants:
            self.warnings.append(
                f"{hook_name(variant)}: this hook has variants for other upstreams, which are unchanged"
            )

    # --- output

    def _write(self, source: Path, text: str, file: str) -> None:
        source.write_bytes(text.encode())
        self.carried.append(Carried(file, source.relative_to(self._staging.root).as_posix()))

    def _refuse(self, file: str, why: str, hint: str, line: int | None = None) -> None:
        self.refused.append(Refused(file, line, why, hint))

    def _refuse_rendered(
        self, file: PatchedFile, owner: Owner, ours: Sequence[Edit], template: str, where: str, found: Sequence[Edit]
    ) -> None:
        """Refuse the edits of what a template renders, once for each line of the template."""
        start = file.range_of(owner)[0]
        lines: dict[int, int] = {}
        for edit in ours:
            at = self._layout.renderer.template_line(template, edit.start)
            lines.setdefault(at, line_of(found, file.text, start + edit.start))
        for at, line in lines.items():
            why = f"this is rendered from {where}, line {at}, and edits of rendered text cannot be exported"
            hint = f"make the edit there, or in templates/formats.toml if its values come from there, {self._again}"
            self._refuse(file.path, why, hint, line)

    def _see_mode(self, path: str) -> None:
        """Refuse a change of mode: new files: by their `#!` line; upstream's: unchanged."""
        target = self._tree.top / path
        entry = self._tree.base.get(path)
        if not self._modes_count or not target.is_file() or not (entry or path in self._templates.overlay):
            return
        wanted = entry.mode == "100755" if entry else target.read_bytes().startswith(b"#!")
        if bool(target.stat().st_mode & 0o100) != wanted:
            why = "its mode has changed" if entry else "its mode does not match its first line"
            self._refuse(path, why, f"chmod {'+x' if wanted else '-x'} '{target}', {self._again}")

    @cached_property
    def _modes_count(self) -> bool:
        return self._tree.repository.call("config", "--type=bool", "core.fileMode").stdout.strip() != b"false"

    def _base_text(self, path: str) -> str | None:
        entry = self._tree.base.get(path)
        return self._tree.repository.blobs([entry.blob])[entry.blob].decode("utf-8", "replace") if entry else None

    def _text(self, path: str) -> str | None:
        """The text of a file of the tree; a file that no patch can contain is refused."""
        try:
            text = (self._tree.top / path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        wrong = {
            "this is not UTF-8 text, as templates are": "\0" in text,
            "it has CRLF line endings, which git am would lose": "\r" in text,
            "its last line has no line ending": path not in self._tree.base and not text.endswith("\n"),
        }
        for why, is_so in wrong.items():
            if is_so:
                self._refuse(path, why, f"save it as text with LF line endings, also on the last line, {self._again}")
                return None
        return text


def _overlap(one: Edit, other: Edit) -> bool:
    """Whether two edits of a text overlap."""
    return (one.start < other.end and other.start < one.end) or (one.start, one.end) == (other.start, other.end)
