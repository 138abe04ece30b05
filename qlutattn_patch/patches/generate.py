"""Generate the patch set from the templates and a pristine llama.cpp commit, and compare it with `patches/`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qlutattn_patch.patches.docs import formats_page, patches_page
from qlutattn_patch.patches.series import RECEIPT, SERIES, SUFFIX, Patch, Series
from qlutattn_patch.patches.tables import collisions, facts, mismatches
from qlutattn_patch.patches.tile_sizes import disagreements
from qlutattn_patch.patches.untouched import changes
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.git import IDENTITY, MAIL, Entry, Repository
from qlutattn_patch.system.toml import FIX, read_text
from qlutattn_patch.system.transaction import Contents
from qlutattn_patch.templates.anchors import Placed, Placer
from qlutattn_patch.templates.formats import Formats, load_formats
from qlutattn_patch.templates.render import Renderer
from qlutattn_patch.templates.spec import TEMPLATE_SUFFIX, PatchSpec, Templates, load_templates
from qlutattn_patch.upstream.layout import CHECKED, check_is_llama_cpp
from qlutattn_patch.workspace import Workspace

_OTHER = "use another llama.cpp, or remove that file from templates/hooks"
_LICENCE = "Context lines are from llama.cpp (MIT licence, The ggml authors)."
# git am would end the message at such a line
_ENDS_A_MESSAGE = re.compile(r"^(---|diff -|Index: |From )")


@dataclass(frozen=True)
class Drift:
    """A generated file that does not match the templates."""

    # foreign: a patch that is not in the series and was not generated
    kind: Literal["missing", "changed", "orphaned", "foreign"]
    path: Path


@dataclass(frozen=True)
class Generated:
    """The output of `generate`: contents by path, and the folder of patches, which contains nothing else."""

    series: Series
    files: Mapping[Path, bytes]
    folder: Path

    def drift(self) -> list[Drift]:
        """How the files on disk differ from what was generated."""
        compared = [(path, _kind(path, data)) for path, data in self.files.items()]
        found = [Drift(kind, path) for path, kind in compared if kind != "same"]
        there = sorted(self.folder.glob(f"*{SUFFIX}")) + sorted(self.folder.glob(".*.new"))
        for folder in sorted({path.parent for path in self.files if path.suffix == ".json"} - {self.folder}):
            there += sorted(folder.glob("*.json"))
        strays = [path for path in there if path not in self.files]
        return found + [Drift("orphaned" if _is_generated(path) else "foreign", path) for path in strays]

    def changes(self, root: Path) -> dict[str, Contents | None]:
        """The changes that `write` would make, by path below the project's root."""
        return {
            item.path.relative_to(root).as_posix(): Contents(self.files[item.path]) if item.path in self.files else None
            for item in self.drift()
            if item.kind != "foreign"
        }

    def write(self) -> list[Drift]:
        """Write what differs and remove orphans; returns the drift. Foreign patches are kept."""
        drift = self.drift()
        for item in drift:
            if item.kind == "orphaned":
                item.path.unlink()
            elif item.kind != "foreign":
                write_atomically(item.path, self.files[item.path])
        return drift


@dataclass(frozen=True)
class Layout:
    """The templates applied to an upstream: each patch's files, and the touched files before and after."""

    base: Mapping[str, Entry]
    steps: tuple[Mapping[str, str], ...]
    before: Mapping[str, str]  # upstream's texts of the files that hooks touch or whose tables are read
    overlay: Mapping[str, str]
    placed: tuple[Placed, ...]
    renderer: Renderer


def generate(workspace: Workspace, repository: Repository) -> Generated:
    """Compute every generated file from the templates and the commit at HEAD of a tree, without writing."""
    formats = load_formats(workspace.templates / "formats.toml")
    templates = load_templates(workspace.templates)
    series = make_series(formats, templates, repository)
    page = workspace.root / "docs" / "formats.md"
    files = {
        **{workspace.patches / patch.name: patch.data for patch in series.patches},
        workspace.patches / SERIES: series.file,
        workspace.patches / RECEIPT: series.receipt.encode(),
        page: formats_page(read_text(page), formats, page).encode(),
        workspace.root / "docs" / "patches.md": patches_page(templates.patches, series).encode(),
    }
    return Generated(series, files, workspace.patches)


def lay_out(formats: Formats, templates: Templates, repository: Repository) -> Layout:
    """Render every overlay file and place every hook in the files of the commit at HEAD."""
    upstream = f"{repository.work_tree} at {(repository.commit_id() or '')[:12]}"
    base = repository.files("HEAD")
    check_is_llama_cpp(base, upstream)
    hooks = [variant for patch in templates.patches for hook in patch.hooks for variant in (hook, *hook.variants)]
    touched = {hook.file for hook in hooks} | set(CHECKED)
    before = _upstream_texts(repository, {file: base[file] for file in sorted(touched) if file in base})
    texts = dict(before)
    problems = [*collisions(formats, texts), *mismatches(texts)]
    there = [file for file in templates.overlay if file in base]
    problems += [f"the file {file} of templates/overlay is already there" for file in there]

    before = dict(texts)
    renderer = Renderer(formats, facts(texts))
    placer = Placer(renderer)
    steps: list[dict[str, str]] = []
    overlay: dict[str, str] = {}
    for patch in templates.patches:
        changed = {file: _overlay_text(renderer, templates.overlay[file], file) for file in patch.overlay}
        texts.update(changed)
        overlay.update(changed)
        for hook in patch.hooks:
            placed = placer.place(hook, texts)
            if placed is not None:
                file, text = placed
                texts[file] = changed[file] = text
        steps.append(changed)
    placer.check(upstream, problems)
    changed_upstream = sorted({file for step in steps for file in step if file in base})
    wrong = [*mismatches(texts), *disagreements(texts, formats), *changes(before, texts, changed_upstream)]
    placer.check(f"{upstream} with the patches", wrong)
    return Layout(base, tuple(steps), before, overlay, tuple(placer.placed), renderer)


def make_series(formats: Formats, templates: Templates, repository: Repository) -> Series:
    """The patches from the commit at HEAD to the templates' result."""
    layout = lay_out(formats, templates, repository)
    base, pristine = layout.base, repository.tree_id()
    with repository.scratch() as scratch:
        scratch.read_tree(pristine)
        tree, parent = pristine, scratch.commit_tree(pristine, "base")
        made = []
        for patch, changed in zip(templates.patches, layout.steps, strict=True):
            blobs = scratch.store(text.encode() for text in changed.values())
            modes = {file: base[file].mode if file in base else _new_mode(text) for file, text in changed.items()}
            scratch.update_index({file: Entry(modes[file], blob) for file, blob in zip(changed, blobs, strict=True)})
            before, tree = tree, scratch.write_tree()
            if tree == before:
                raise ExpectedError(f"The patch '{patch.name}' changes nothing.", "fix or remove it in templates/hooks")
            parent = scratch.commit_tree(tree, _message(patch), parent)
            made.append(Patch(patch.name + SUFFIX, scratch.format_patch(parent)))
    return Series(tuple(made), templates.digest, pristine)


def _upstream_texts(repository: Repository, entries: Mapping[str, Entry]) -> dict[str, str]:
    blobs = repository.blobs(entry.blob for entry in entries.values())
    texts = {}
    for file, entry in entries.items():
        try:
            texts[file] = blobs[entry.blob].decode("utf-8")
        except UnicodeDecodeError:
            raise ExpectedError(f"Upstream's {file} is not UTF-8, so no hook can edit it.", _OTHER) from None
        if "\r" in texts[file]:
            raise ExpectedError(f"Upstream's {file} has CRLF line endings, which git am would lose.", _OTHER)
    return texts


def _overlay_text(renderer: Renderer, source: Path, file: str) -> str:
    text = read_text(source)
    where = f"templates/overlay/{file}"
    if source.suffix == TEMPLATE_SUFFIX:
        where += TEMPLATE_SUFFIX
        text = renderer.text(text.replace("\r\n", "\n"), where)
    if "\r" in text or "\0" in text or not text.endswith("\n"):
        raise ExpectedError(f"{where} must be text with LF line endings, also on the last line.", FIX)
    return text


def _new_mode(text: str) -> str:
    # not the mode in templates/, which a checkout may lose
    return "100755" if text.startswith("#!") else "100644"


def _message(patch: PatchSpec) -> str:
    paragraphs = [
        f"Why: {patch.why}",
        f"Not a new file: {patch.not_a_new_file}",
        f"Until: {patch.until}",
        _LICENCE,
    ]
    wrapped = (textwrap.fill(text, 72, break_long_words=False, break_on_hyphens=False) for text in paragraphs)
    message = "\n\n".join([patch.subject, *wrapped]) + "\n"
    for line in message.splitlines():
        if _ENDS_A_MESSAGE.match(line):
            raise ExpectedError(
                f"templates/hooks/{patch.name}.toml: git am would end the message at the line '{line}'.", FIX
            )
    return message


def _is_generated(path: Path) -> bool:
    """Whether a file in patches/ was generated, or is a leftover of a killed run."""
    return path.suffix == ".new" or f"\nFrom: {IDENTITY} <{MAIL}>\n".encode() in path.read_bytes()[:200]


def _kind(path: Path, data: bytes) -> Literal["same", "changed", "missing"]:
    try:
        return "same" if path.read_bytes() == data else "changed"
    except FileNotFoundError:
        return "missing"
