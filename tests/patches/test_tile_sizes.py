"""Every statement of how large a tile is must be the table's, and is compared before a compiler sees it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, edit, git, snapshot

from qlutattn_patch.patches.apply import apply_series
from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.series import Patch, load_series
from qlutattn_patch.patches.tile_sizes import ALIGN_CPP, CONFIG_CPP, STATEMENTS, TYPES_CPP, disagreements
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
PYTHON_ROWS = "".join(
    f"    GGMLQuantizationType.{kind.name.upper()}: (128, {kind.type_size}),\n" for kind in FORMATS.types
)


def rendered() -> dict[str, str]:
    """The files as they are generated, with a piece of constants.py."""
    renderer = Renderer(FORMATS)
    overlay = ROOT / "templates" / "overlay"
    texts = {file: renderer.text((overlay / f"{file}.j2").read_text("utf-8"), file) for file in STATEMENTS}
    return {**texts, CONSTANTS_PY: PYTHON_ROWS}


def test_what_is_generated_agrees() -> None:
    assert disagreements(rendered(), FORMATS) == []
    assert disagreements(rendered()) == []
    assert disagreements({}, FORMATS) == []


K1, K2 = "qlutattn_k1_128x128", "qlutattn_k2_128x128"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            TRAITS_INC,
            "type_size                = 36,",
            "type_size                = 37,",
            f"'{K2}' has 4736 bytes in {TRAITS_INC}, and 4608",
        ),
        (
            TRAITS_INC,
            f'"{K2}"',
            '"qlutattn_k3_128x128"',
            "gives GGML_TYPE_QLUTATTN_K2_128x128 the name 'qlutattn_k3_128x128'",
        ),
        (TRAITS_INC, ".blck_size                = 128,", "", f"does not say how large a tile of '{K1}' is"),
        (TYPES_CPP, "static_assert(36 ", "static_assert(34 ", f"asserts of '{K2}' that 4352 bytes are 4608"),
        (TYPES_CPP, "static_assert(20 * 128", "static_assert(sizeof(x)", f"does not say how large a tile of '{K1}' is"),
        (
            CONFIG_CPP,
            "tile_bytes() == 4608",
            "tile_bytes() == 4352",
            f"'{K2}' has 4352 bytes in {CONFIG_CPP}, and 4608",
        ),
        (ALIGN_CPP, '"k2", true, 2, true', '"k2", true, 2, false', f"'{K2}' has 4352 bytes in {ALIGN_CPP}, and 4608"),
        (
            CONSTANTS_PY,
            "K2_128X128: (128, 36)",
            "K2_128X128: (128, 18)",
            f"'{K2}' has 2304 bytes in {CONSTANTS_PY}, and 4608",
        ),
    ],
)
@pytest.mark.parametrize("with_table", [True, False])
def test_a_disagreement_is_told(file: str, old: str, new: str, said: str, with_table: bool) -> None:
    texts = rendered()
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    found = disagreements(texts, FORMATS if with_table else None)
    assert any(said in one for one in found) or (not with_table and f"tile of '{K2}' has" in found[0])


def test_a_type_that_the_table_lacks_is_told() -> None:
    fewer = replace(FORMATS, types=FORMATS.types[:-1])
    assert any("'qlutattn_v4_128x128', which formats.toml lacks" in one for one in disagreements(rendered(), fewer))


@pytest.mark.vendored
@pytest.mark.parametrize(
    ("template", "old", "new", "said"),
    [
        (
            f"overlay/{TYPES_CPP}.j2",
            "* {{ t.bits }} / 8",
            "* {{ t.bits + 1 }} / 8",
            "asserts of 'qlutattn_k1_128x128' that",
        ),
        (f"overlay/{TRAITS_INC}.j2", "= {{ t.type_size }},", "= {{ t.type_size + 2 }},", f"2816 bytes in {TRAITS_INC}"),
        (f"overlay/{CONFIG_CPP}.j2", "== {{ t.tile_bytes }},", "== {{ t.code_bytes }},", f"2048 bytes in {CONFIG_CPP}"),
        (
            "hooks/types.toml",
            "({{ tile.pack_size }}, {{ t.type_size }})",
            "({{ tile.pack_size }}, {{ t.bits }})",
            f"128 bytes in {CONSTANTS_PY}",
        ),
    ],
)
def test_generate_says_so_and_needs_no_compiler(template: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    edit(tmp_path / "templates" / template, old, new)
    with pytest.raises(ExpectedError) as told:
        make_series(FORMATS, load_templates(tmp_path / "templates"), Repository.open(WORKSPACE.tree))
    assert said in told.value.cause
    assert told.value.hint


@pytest.mark.vendored
def test_apply_says_so_of_patches_that_were_edited(tmp_path: Path) -> None:
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
    assert told.value.hint == "make them from the templates: qlutattn generate"
    assert snapshot(clone.tree) == before
