"""Edits of the patched tree come back to the templates: generate then gives exactly that tree, or nothing changes."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import time
from dataclasses import replace

import effort
import pytest
from export_helpers import CMAKE, MAIN, PLAIN, TABLE, C, H, everything, exports, hook_file, patched
from helpers import ROOT, Project, edit, git, killed_at, snapshot

from qlutattn_patch.commands.main import run
from qlutattn_patch.export.export import export
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.tree.worktree import OLD, apply
from qlutattn_patch.workflow.status import read_status
from qlutattn_patch.workspace import Workspace


def test_an_edit_that_another_hook_has_its_anchor_in_is_refused(more):
    toml = (
        '[[hook]]\nfile = "ggml/src/ggml.c"\nplace = "after"\nanchor = "    int one = 1;\\n"\ntext = "    one++;\\n"\n'
    )
    with hook_file(more, "more").open("a") as out:
        out.write(f"\n{toml}")
    generate(more.workspace, more.repository).write()
    apply(more.workspace, load_series(more.workspace.patches))
    edit(more.tree / C, "    one++;\n", "    one += 1;\n")  # inside of another hook's text
    exports(more)
    edit(more.tree / C, "    int one = 1;\n", "    int one = 0;\n")
    before = everything(more)
    with pytest.raises(ExpectedError, match=r"are inconsistent:\n1 hook does not fit") as told:
        export(more.workspace)
    assert "the anchor 'int one = 1;' must occur once" in told.value.cause
    assert str(more.workspace.templates) in told.value.cause
    assert everything(more) == before


def test_trees_that_edits_cannot_be_told_in(project):
    generate(project.workspace, project.repository).write()
    with pytest.raises(ExpectedError, match="No patches of qlutattn are applied"):
        export(project.workspace)
    patched(project)
    edit(project.tree / C, "    // third\n", "    // 3\n")
    git(project.tree, "add", C)
    with pytest.raises(ExpectedError, match="has staged changes"):
        export(project.workspace)
    git(project.tree, "commit", "--quiet", "-m", "mine")
    with pytest.raises(ExpectedError, match=r"HEAD of .* has moved") as told:
        export(project.workspace)
    assert told.value.hint
    git(project.tree, *shlex.split(told.value.hint)[3:])
    exports(project)


# --- all or nothing


@pytest.mark.nightly
def test_killed_at_any_step_the_next_export_has_it_all(here, tmp_path):
    edit(here.tree / C, "    // third\n", "    // 3\n")
    edit(here.tree / PLAIN, "int q", "long q")
    wanted = snapshot(here.tree)
    old = snapshot(here.workspace.templates)
    ends = set()
    for count in range(1, 400, effort.most(29, 3)):
        root = tmp_path / f"kopie {count}"
        shutil.copytree(here.root, root, symlinks=True)
        copy = replace(here, workspace=Workspace(root, root / "vendor" / "llama.cpp"))
        if not killed_at(count, root, lambda it=copy: export(it.workspace)):
            break
        export(copy.workspace)
        ends.add(snapshot(copy.workspace.templates) == old)
        assert snapshot(copy.tree) == wanted
        assert read_status(copy.workspace).state == "applied"
        shutil.rmtree(root)
    assert ends == {False}
    assert count > 10


@pytest.mark.parametrize("seed", range(1, 4))
def test_random_edits_are_carried_exactly_or_refused_wholly(more, seed):
    rng = random.Random(f"20261121 {seed}")
    files = [H, C, CMAKE, "docs/long.md", PLAIN, TABLE, MAIN]
    carried = 0
    for _ in range(6):
        for file in rng.sample(files, rng.randint(1, 2)):
            lines = (more.tree / file).read_text("utf-8").splitlines(keepends=True)
            at = rng.randrange(len(lines) + 1)
            lines[at : at + rng.randint(0, 1)] = rng.choice(
                [[], ["}\n"], ["// {{ a }}\n", "\n"], lines[max(at - 1, 0) : at]]
            )
            (more.tree / file).write_text("".join(lines) or "\n", "utf-8")
        wanted, before = snapshot(more.tree), snapshot(more.workspace.templates)
        try:
            refused = export(more.workspace).refused
        except ExpectedError as failure:
            refused = (failure,)
        assert snapshot(more.tree) == wanted
        if refused:
            assert snapshot(more.workspace.templates) == before
            restore(more)
        else:
            carried += 1
            assert generate(more.workspace, more.repository).drift() == []
            assert read_status(more.workspace).state == "applied"
    assert carried


def restore(project: Project) -> None:
    """The tree as it was applied."""
    git(project.tree, "checkout", "--quiet", ".")
    git(project.tree, "clean", "--quiet", "-dff")
    apply(project.workspace, load_series(project.workspace.patches))


# --- the command


@pytest.fixture
def at_home(here, monkeypatch):
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, here.root)))
    return here


def test_the_command_says_what_went_where(at_home, capfd):
    edit(at_home.tree / C, "    // third\n", "    // 3\n")
    before = everything(at_home)
    assert run(["export", "--dry-run"]) == 0
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        f"carried  {C} -> templates/hooks/align.toml [[hook]] 2",
        "changed  templates/hooks/align.toml",
        "changed  patches/align.patch",
        "changed  patches/receipt.json",
    ]
    assert "would match the tree" in said.err
    assert everything(at_home) == before
    assert run(["export", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["ok"]
    assert told["carried"] == [{"file": C, "to": "templates/hooks/align.toml", "hook": 2, "form": None}]
    assert run(["export"]) == 0
    assert "There is nothing to export." in capfd.readouterr().err


def test_the_command_refuses_with_all_that_is_refused(at_home, capfd):
    edit(at_home.tree / C, "return 2;", "return 22;")
    assert run(["status"]) == 0
    assert "next: qlutattn export" in capfd.readouterr().out
    assert run(["export", "--json"]) == 1
    said = capfd.readouterr()
    (refused,) = json.loads(said.out)["refused"]
    assert (refused["file"], refused["line"]) == (C, 14)
    assert refused["toml"].startswith('[[hook]]\nfile = "ggml/src/ggml.c"\nplace = "replace"\n')
    assert f"{C}, line 14: this is llama.cpp's own text" in said.err
    assert "error: 1 edit of " in said.err


# --- the project's own


@pytest.mark.vendored
def test_our_own_templates(tmp_path):
    """What docs/exporting.md shows."""
    for name in ("templates", "docs", "patches"):
        shutil.copytree(ROOT / name, tmp_path / "projekt ü" / name)
    (tmp_path / "projekt ü" / "vendor").mkdir()
    shutil.copy(ROOT / "vendor" / "llama.cpp.toml", tmp_path / "projekt ü" / "vendor")
    git(tmp_path, "clone", "--quiet", "--shared", str(ROOT / "vendor" / "llama.cpp"), "projekt ü/vendor/llama.cpp")
    workspace = Workspace(tmp_path / "projekt ü", tmp_path / "projekt ü" / "vendor" / "llama.cpp")
    project = patched(Project(workspace, workspace.tree))
    config = "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp"
    edit(project.tree / "src/llama-kv-mixed-cells.cpp", '#include "ggml.h"\n', '#include "ggml.h"\n\n// edited\n')
    edit(project.tree / "common/arg.cpp", "this many of the newest tokens", "so many of the newest tokens")
    edit(
        project.tree / "src/llama-graph.cpp", "    const auto * inp_mixed", "    // packed\n    const auto * inp_mixed"
    )
    exported = exports(project)
    assert len(exported.carried) == 3
    assert exported.warnings
    edit(project.tree / "ggml/include/ggml.h", "GGML_TYPE_COUNT   = 56", "GGML_TYPE_COUNT   = 57")
    edit(project.tree / "ggml/src/ggml-cpu/ops.cpp", "case GGML_TYPE_QLUTATTN_K1", "case  GGML_TYPE_QLUTATTN_K1")
    edit(project.tree / config, "static constexpr int8_t levels_1bit", "constexpr int8_t levels_1bit")
    edit(project.tree / "src/llama.cpp", "\n", "\n// mine\n")
    started = time.process_time()
    refused = export(workspace).refused
    rendered = ["ggml/include/ggml.h", "ggml/src/ggml-cpu/ops.cpp", config]
    assert [one.file for one in refused] == [*rendered, "src/llama.cpp"]
    assert f"rendered from templates/overlay/{config}.j2, line 10," in refused[2].why
    assert time.process_time() - started < 60


def test_a_tree_that_a_killed_vendor_had_moved_away_is_exported(project):
    patched(project)
    (project.tree / MAIN).write_text("int edited;\n", encoding="utf-8")
    project.tree.rename(project.tree.with_name(f"{OLD}1"))
    assert [carried.file for carried in export(project.workspace).carried] == [MAIN]
    assert (project.tree / MAIN).is_file()
