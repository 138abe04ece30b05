"""Twenty ways in which a llama.cpp may have changed: each is caught before a file is touched, and named."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, git

from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Repository
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.spec import Hook, load_templates
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.vendored

WORKSPACE = Workspace(ROOT, ROOT / "vendor" / "llama.cpp")
TEMPLATES = load_templates(WORKSPACE.templates)
SEED = 20261121

Mutation = Callable[[Path, random.Random], str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the vendored base, for all tests here."""
    folder = tmp_path_factory.mktemp("klon")
    git(folder, "clone", "--quiet", "--shared", str(WORKSPACE.tree), "mein llama.cpp")
    return folder / "mein llama.cpp"


@pytest.fixture
def clone(checkout: Path) -> Iterator[Workspace]:
    """That clone, which is as it was afterwards."""
    base = git(checkout, "rev-parse", "HEAD")
    yield replace(WORKSPACE, tree=checkout)
    git(checkout, "reset", "--quiet", "--hard", base)
    git(checkout, "clean", "--quiet", "-dffx")
    shutil.rmtree(checkout / ".git" / "qlutattn", ignore_errors=True)


def anchored(tree: Path, rng: random.Random) -> Hook:
    """A hook whose anchor is upstream's own text, and not that of an earlier hook."""
    hooks = [hook for patch in TEMPLATES.patches for hook in patch.hooks if hook.count == 1 and "{{" not in hook.anchor]
    return rng.choice([hook for hook in hooks if (tree / hook.file).read_text("utf-8").count(hook.anchor) == 1])


def rewrite(tree: Path, file: str, old: str, new: str, count: int = -1) -> None:
    text = (tree / file).read_text("utf-8")
    assert old in text, (file, old)
    (tree / file).write_text(text.replace(old, new, count), "utf-8")


def with_anchor(change: Callable[[str], str]) -> Mutation:
    """Change the text of some hook's anchor; its file must be named."""

    def mutate(tree: Path, rng: random.Random) -> str:
        hook = anchored(tree, rng)
        while change(hook.anchor) == hook.anchor:
            hook = anchored(tree, rng)
        rewrite(tree, hook.file, hook.anchor, change(hook.anchor))
        return hook.file

    return mutate


def moved(tree: Path, rng: random.Random) -> str:
    """The anchor is in another file now."""
    hook = anchored(tree, rng)
    rewrite(tree, hook.file, hook.anchor, "")
    with (tree / "LICENSE").open("a", encoding="utf-8") as file:
        file.write(hook.anchor)
    return hook.file


def moved_file(tree: Path, rng: random.Random) -> str:
    hook = anchored(tree, rng)
    (tree / hook.file).rename(tree / f"{hook.file}.moved")
    return hook.file


def renamed(anchor: str) -> str:
    """The longest name in an anchor has a new name."""
    name = max(re.findall(r"\w+", anchor), key=len)
    return anchor.replace(name, f"{name}_v2")


def text(file: str, old: str, new: str, said: str) -> Mutation:
    def mutate(tree: Path, rng: random.Random) -> str:
        rewrite(tree, file, old, new, 1)
        return said

    return mutate


def new_file(file: str) -> Mutation:
    def mutate(tree: Path, rng: random.Random) -> str:
        (tree / file).write_text("// theirs\n", "utf-8")
        return file

    return mutate


H, C, RPC, PY = "ggml/include/ggml.h", "ggml/src/ggml.c", "ggml/include/ggml-rpc.h", "gguf-py/gguf/constants.py"
LAST = "        GGML_TYPE_COUNT   ="
MUTATIONS: dict[str, Mutation] = {
    "anchor deleted": with_anchor(lambda anchor: ""),
    "another anchor deleted": with_anchor(lambda anchor: ""),
    "anchor duplicated": with_anchor(lambda anchor: anchor * 2),
    "another anchor duplicated": with_anchor(lambda anchor: anchor + "\n" + anchor),
    "anchor renamed": with_anchor(renamed),
    "another anchor renamed": with_anchor(renamed),
    "anchor indented otherwise": with_anchor(lambda anchor: anchor.replace("    ", "\t").replace("(", "( ")),
    "anchor moved to another file": moved,
    "file of an anchor moved": moved_file,
    "file that we bring taken": new_file("ggml/src/ggml-qlutattn.cpp"),
    "id taken": text(H, LAST, f"        GGML_TYPE_THEIRS = 50,\n{LAST}", "id 50 of 'qlutattn_k4_128x128'"),
    "ids grown past ours": text(H, f"{LAST} 43", f"{LAST} 60", "GGML_TYPE_COUNT is 60, above"),
    "constant taken": text(H, "GGML_TYPE_Q2_0 ", "GGML_TYPE_QLUTATTN_V2_128x128 ", "GGML_TYPE_QLUTATTN_V2_128x128"),
    "name taken": text(C, '= "q2_0"', '= "qlutattn_v1_128x128"', "a type named 'qlutattn_v1_128x128'"),
    "traits row lost": text(C, "    [GGML_TYPE_Q8_0] = {", "    [8] = {", "no row for GGML_TYPE_Q8_0"),
    "op added": text(H, "        GGML_OP_COUNT,", "        GGML_OP_THEIRS,\n\n        GGML_OP_COUNT,", "GGML_OP_COUNT"),
    "op names out of order": text(
        C, '    "DUP",\n    "ADD",', '    "ADD",\n    "DUP",', "where enum ggml_op has GGML_OP_DUP"
    ),
    "op symbol lost": text(C, '    "x+y",\n', "", "GGML_OP_SYMBOL has"),
    "rpc counts otherwise": text(
        RPC, "GGML_OP_COUNT == ", "GGML_OP_COUNT == 1", "ggml-rpc.h asserts that GGML_OP_COUNT"
    ),
    "gguf-py disagrees": text(PY, "    Q8_K    = 15", "    Q8_K    = 115", "GGML_TYPE_Q8_K is 15"),
}


def generated(clone: Workspace) -> None:
    make_series(load_formats(clone.templates / "formats.toml"), TEMPLATES, Repository.open(clone.tree))


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "-m", "upstream moves on")


def is_untouched(tree: Path) -> bool:
    """Whether every file is unchanged committed, and no other is there."""
    return git(tree, "status", "--porcelain", "--ignored") == ""


def test_there_are_twenty() -> None:
    assert len(MUTATIONS) == 20


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_is_caught_and_named(clone: Workspace, name: str) -> None:
    said = MUTATIONS[name](clone.tree, random.Random(f"{SEED} {name}"))
    commit(clone.tree)
    with pytest.raises(ExpectedError) as told:
        generated(clone)
    assert said in told.value.cause
    assert told.value.hint
    assert is_untouched(clone.tree)


@pytest.mark.parametrize(
    "name", ["id taken", "traits row lost", "op names out of order", "gguf-py disagrees", "file that we bring taken"]
)
def test_what_leaves_every_hunk_in_its_place_does_not_slip_through_apply(clone: Workspace, name: str) -> None:
    """Patches that are made already would fit such a tree, or nearly: the guard is not the context of a hunk."""
    MUTATIONS[name](clone.tree, random.Random(SEED))
    commit(clone.tree)
    with pytest.raises(ExpectedError):
        apply(clone, load_series(clone.patches))
    assert is_untouched(clone.tree)


def test_what_does_not_concern_us_is_let_through(clone: Workspace) -> None:
    """The mutations are caught for what they change, and not for having changed something."""
    rng = random.Random(SEED)
    hook = anchored(clone.tree, rng)
    rewrite(clone.tree, hook.file, hook.anchor, f"\n\n\n{hook.anchor}")
    rewrite(clone.tree, H, f"{LAST} 43", f"        GGML_TYPE_THEIRS = 43,\n{LAST} 44")
    rewrite(
        clone.tree,
        C,
        "    [GGML_TYPE_Q8_0] = {",
        '    [GGML_TYPE_THEIRS] = { .type_name = "x" },\n    [GGML_TYPE_Q8_0] = {',
    )
    rewrite(clone.tree, PY, "    Q2_0    = 42\n", "    Q2_0    = 42\n    THEIRS  = 43\n")
    rewrite(
        clone.tree,
        PY,
        "    GGMLQuantizationType.F16:",
        "    GGMLQuantizationType.THEIRS: (1, 1),\n    GGMLQuantizationType.F16:",
    )
    commit(clone.tree)
    generated(clone)
