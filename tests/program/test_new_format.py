"""A type is one table: docs/adding-a-format.md, word by word, in a copy of the project that is thrown away."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, edit, git

from qlutattn_patch.measure.caches import parse
from qlutattn_patch.patches.apply import apply_series
from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.receipt import read_receipt
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.proof.dump import check
from qlutattn_patch.proof.reference.quantise import pack, unpack
from qlutattn_patch.proof.reference.tile import Code, Kind
from qlutattn_patch.system.git import Repository
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.spec import load_templates
from qlutattn_patch.workspace import Workspace

PAGE = (ROOT / "docs" / "adding-a-format.md").read_text(encoding="utf-8")
TABLE = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
STEPS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)]
K, V = "qlutattn_k2u_128x128", "qlutattn_v2u_128x128"
LEVELS = (-96, -32, 32, 96)
PARTS = ("qlutattn_patch", "scripts", "templates", "patches", "docs", "vendor/llama.cpp.toml")


def copy_project(folder: Path) -> Path:
    """A copy of the project, as a git repository with one commit, at a path with a space and a letter beyond ASCII."""
    root = folder / "mein qlutattn ü"
    for part in PARTS:
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
    (root / ".gitignore").write_text("/vendor/llama.cpp/\n/vendor/.*\n/build/\n__pycache__/\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "as it was")
    return root


def add_the_types(root: Path) -> None:
    (table,) = TABLE
    with (root / "templates" / "formats.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n{table}")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A copy of the project's table, with the two types."""
    (tmp_path / "templates").mkdir()
    shutil.copy(ROOT / "templates" / "formats.toml", tmp_path / "templates")
    add_the_types(tmp_path)
    return tmp_path / "templates" / "formats.toml"


def test_the_table_is_enough_for_sizes_names_and_caches(others: Path) -> None:
    *eight, k, v = load_formats(others).types
    assert tuple(eight) == load_formats(ROOT / "templates" / "formats.toml").types
    assert [(t.name, t.id, t.levels, t.metadata) for t in (k, v)] == [
        (K, 56, LEVELS, ("scale",)),
        (V, 57, LEVELS, ("scale",)),
    ]
    for kind in (k, v):
        assert (kind.tile_bytes, kind.tile_bytes - kind.code_bytes, kind.bpw) == (4352, 256, 2.125)
    assert f"{k.tile_bytes} bytes per tile, {k.bpw} bits per value" in PAGE
    cache, mixed = parse("K2uV2u,K4V2u", load_formats(others).types)
    assert (cache.type_k, cache.type_v, cache.bpw) == (K, V, 2.125)
    assert (mixed.type_k, mixed.type_v) == ("qlutattn_k4_128x128", V)


def test_numpy_packs_what_the_table_says(others: Path) -> None:
    kinds = {
        t.name: Kind(t.side, Code(t.levels, t.rms_to_scale, t.layout, t.has_offset)) for t in load_formats(others).types
    }
    source = np.random.default_rng(1).standard_normal((1, 1, 128, 128)).astype(np.float16) + np.float16(0.5)
    for name in (K, V):
        kind = Kind.of(name, kinds)
        tile = pack(source, kind)
        assert tile.shape == (1, 1, 1, 4352)
        tiles = unpack(tile, kind, 1, 1)
        assert not tiles.offset.any()
        values = tiles.values()[0, 0, 0]
        assert set(np.unique(np.round(np.abs(values / tiles.scale[0, 0, 0].astype(float)[:, None]), 9))) == {0.5, 1.5}
        lanes = source[0, 0] if kind.side == "k" else source[0, 0].T
        assert 0.05 < np.square(values - lanes).sum() / np.square(lanes.astype(float)).sum() < 0.16


def test_a_dump_of_a_type_that_the_table_lacks_is_refused(tmp_path: Path, others: Path) -> None:
    from align_helpers import dump_case, write_dump

    write_dump(tmp_path / "dump.gguf", [{**dump_case(), "type_k": K}])
    (verdict,) = check(tmp_path / "dump.gguf")
    assert verdict.wrong == [f"the dump of this case is invalid: '{K}' is not a QLUTATTN type"]
    (verdict,) = check(tmp_path / "dump.gguf", load_formats(others).types)
    assert "kp has " in verdict.wrong[0]


@pytest.mark.vendored
def test_between_the_trees_with_and_without_them_only_tables_differ(tmp_path: Path, others: Path) -> None:
    """No kernel, no case, no reference knows a type by name."""
    repository = Repository.open(ROOT / "vendor" / "llama.cpp")
    templates = load_templates(ROOT / "templates")
    eight = apply_series(repository, load_series(ROOT / "patches"), "it").files
    ten = apply_series(repository, make_series(load_formats(others), templates, repository), "it").files
    assert {path for path in {*eight, *ten} if eight.get(path) != ten.get(path)} == {
        "common/arg.cpp",
        "ggml/include/ggml.h",
        "ggml/src/ggml-cpu/ops.cpp",
        "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp",
        "ggml/src/ggml-qlutattn-traits.inc",
        "ggml/src/ggml-qlutattn-types.cpp",
        "gguf-py/gguf/constants.py",
        "tools/align-attn/formats-table.cpp",
        "tools/llama-bench/llama-bench.cpp",
    }


def run(root: Path, line: str) -> str:
    """A command of the page, as typed in the copy; what it prints."""
    words = shlex.split(line)
    env = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *args = words[len(env) :]
    argv = {
        "qlutattn": [sys.executable, "-m", "qlutattn_patch", *args],
        "python": [sys.executable, *args],
        "git": ["git", *args],
    }[program]
    here = {**os.environ, "PYTHONPATH": str(root), **env}
    done = subprocess.run(argv, cwd=root, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.compiler
@pytest.mark.xdist_group("a copy of the project")
def test_the_page_works_word_by_word(tmp_path: Path) -> None:
    """What docs/adding-a-format.md says."""
    start, listed, made, plain, undone = STEPS
    root = copy_project(tmp_path)
    git(
        tmp_path, "clone", "--quiet", "--shared", str(ROOT / "vendor" / "llama.cpp"), str(root / "vendor" / "llama.cpp")
    )
    workspace = Workspace.find(start=root)
    run(root, "qlutattn apply")
    before = tree_id(workspace)
    add_the_types(root)

    assert run(root, start[0]).split()[1:] == ["0.9973", "0.115341"]
    types = run(root, listed[0])
    assert re.search(rf"{K} +56 +token +2 +4352 +2\.125 +86\.7%", types)
    assert re.search(rf"{V} +57 +channel +2 +4352 +2\.125 +86\.7%", types)

    *makes, aligns = made
    for line in makes:
        run(root, line)
    changed = git(root, "status", "--short", "--", ".").splitlines()
    assert {line.split()[-1] for line in changed} >= {
        "templates/formats.toml",
        "patches/types.patch",
        "docs/formats.md",
    }
    assert all(line.split()[-1].startswith(("templates/formats.toml", "patches/", "docs/")) for line in changed)
    for line in (aligns, plain[0]):
        report = run(root, line)
        assert re.search(r"^PASS +\d+ cases passed, 0 failed; numpy checked [1-9]\d* of them$", report, re.M), report
        rows = {tuple(row.split()[:2]): row.split() for row in report.splitlines() if re.match(r"k\d", row)}
        assert float(rows["k2u", "v2u"][-3]) < 1  # numpy's
        assert line != aligns or {("k1", "v2u"), ("k4", "v2u"), ("k2u", "v1"), ("k2u", "v4")} <= {*rows}

    for line in undone:
        run(root, line)
    assert git(root, "status", "--short") == ""
    assert tree_id(workspace) == before


def tree_id(workspace: Workspace) -> str:
    """What the receipt says of the tree's files."""
    receipt = read_receipt(workspace.tree / ".git" / "qlutattn" / "receipt.json")
    assert receipt
    return receipt.result


def test_the_page_shows_nothing_else() -> None:
    assert [len(step) for step in STEPS] == [1, 1, 4, 1, 3]
    assert len(TABLE) == 1


def test_a_hand_made_mistake_in_the_table_is_told(others: Path) -> None:
    edit(others, f'"{V}"\nid = 57', f'"{V}"\nid = 56')
    with pytest.raises(Exception, match=f"the id 56 of '{V}' is that of '{K}'"):
        load_formats(others)
