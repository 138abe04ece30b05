"""A tile has the same number of bytes wherever it is stated; what the compiler does not compare is compared here."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, edit, git, snapshot

from qlutattn_patch.commands import main
from qlutattn_patch.patches.apply import apply_series
from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.series import Patch, load_series
from qlutattn_patch.patches.tile_sizes import disagreements
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Repository
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import Renderer
from qlutattn_patch.templates.spec import load_templates
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.upstream.layout import CONSTANTS_PY, TRAITS_INC
from qlutattn_patch.workspace import Workspace

FORMATS = load_formats(ROOT / "templates" / "formats.toml")
WORKSPACE = Workspace(ROOT, ROOT / "vendor" / "llama.cpp")
OVERLAY = ROOT / "templates" / "overlay"
PYTHON_ROWS = "".join(
    f"    GGMLQuantizationType.{kind.name.upper()}: (128, {kind.type_size}),\n" for kind in FORMATS.types
)
K1, K2 = "qlutattn_k1_128x128", "qlutattn_k2_128x128"


def rendered(file: str) -> str:
    return Renderer(FORMATS).text((OVERLAY / f"{file}.j2").read_text("utf-8"), file)


def tables() -> dict[str, str]:
    """ggml's type traits as they are generated, with a piece of constants.py."""
    return {TRAITS_INC: rendered(TRAITS_INC), CONSTANTS_PY: PYTHON_ROWS}


def test_what_is_generated_agrees() -> None:
    assert disagreements(tables(), FORMATS) == []
    assert disagreements(tables()) == []
    assert disagreements({}, FORMATS) == []
    assert disagreements({CONSTANTS_PY: "upstream's own"}, FORMATS) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            TRAITS_INC,
            "size                = 36,",
            "size                = 37,",
            f"'{K2}' has 4736 bytes in {TRAITS_INC}",
        ),
        (TRAITS_INC, f'"{K2}"', '"qlutattn_k3_128x128"', f"'{K2}' has no size in {TRAITS_INC}, and 4608 bytes in"),
        (TRAITS_INC, ".blck_size                = 128,", "", f"'{K1}' has no size in {TRAITS_INC}"),
        (CONSTANTS_PY, "K2_128X128: (128, 36)", "K2_128X128: (128, 18)", f"'{K2}' has 2304 bytes in {CONSTANTS_PY}"),
        (CONSTANTS_PY, "K2_128X128: (128, 36)", "K2_128X128: ()", f"'{K2}' has no size in {CONSTANTS_PY}"),
        (CONSTANTS_PY, "K2_", "K3_", "'qlutattn_k3_128x128' has 4608 bytes in"),
    ],
)
def test_a_disagreement_is_named(file: str, old: str, new: str, said: str) -> None:
    texts = tables()
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    assert any(said in one and "formats.toml" in one for one in disagreements(texts, FORMATS))
    assert disagreements(texts) != []


@pytest.mark.vendored
@pytest.mark.parametrize(
    ("template", "old", "new", "said"),
    [
        (f"overlay/{TRAITS_INC}.j2", "= {{ t.type_size }},", "= {{ t.type_size + 2 }},", f"2816 bytes in {TRAITS_INC}"),
        (
            "hooks/types.toml",
            "({{ tile.pack_size }}, {{ t.type_size }})",
            "({{ tile.pack_size }}, {{ t.bits }})",
            f"128 bytes in {CONSTANTS_PY}",
        ),
    ],
)
def test_generate_refuses_it(template: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    edit(tmp_path / "templates" / template, old, new)
    with pytest.raises(ExpectedError) as told:
        make_series(FORMATS, load_templates(tmp_path / "templates"), Repository.open(WORKSPACE.tree))
    assert said in told.value.cause
    assert told.value.hint


@pytest.mark.vendored
def test_apply_refuses_patches_that_were_edited(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", str(WORKSPACE.tree), "mein llama.cpp")
    clone = replace(WORKSPACE, tree=tmp_path / "mein llama.cpp")
    series = load_series(WORKSPACE.patches)
    assert apply_series(Repository.open(clone.tree), series, "it")
    wrong = b".type_size                = 36,"
    patches = tuple(Patch(p.name, p.data.replace(wrong, wrong.replace(b"36", b"37"))) for p in series.patches)
    edited = replace(series, patches=patches)
    before = snapshot(clone.tree)
    with pytest.raises(ExpectedError) as told:
        apply(clone, edited)
    assert f"a tile of '{K2}'" in told.value.cause
    assert told.value.hint == "generate them again: qlutattn generate"
    assert snapshot(clone.tree) == before


@pytest.fixture(scope="module")
def tree() -> Path:
    """The project's own vendored tree, patched."""
    assert main.run(["apply"]) == 0
    return WORKSPACE.tree


TYPES = "ggml/src/ggml-qlutattn-types.cpp"
KERNELS = "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp"
ALIGN = "tools/align-attn/formats-table.cpp"


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (TYPES, "static_assert(36 * 128", "static_assert(34 * 128"),
        (TYPES, "128 * 128 * 2 / 8", "128 * 128 * 3 / 8"),
        (KERNELS, "_DOT, true , levels_2bit", "_DOT, false, levels_2bit"),
        (KERNELS, "tile_bytes() == 4608", "tile_bytes() == 4352"),
        (ALIGN, "tile_bytes(2, true)", "tile_bytes(2, false)"),
        (ALIGN, "== 4608", "== 4352"),
    ],
)
def test_the_compiler_refuses_it(tree: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    include = [f"-I{tree / folder}" for folder in ("ggml/include", "ggml/src", str(Path(file).parent))]
    source = tmp_path / "table.cpp"
    said = []
    text = rendered(file)
    assert old in text
    for version in (text, text.replace(old, new, 1)):
        source.write_text(version)
        command = ["c++", "-std=c++17", "-fsyntax-only", *include, str(source)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
    assert said[0] == ""
    assert f"{K2}: bytes of a tile" in said[1]
