"""The commands print what they should, where they should, and exit as documented."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers import edit, git

from qlutattn_patch.commands.main import run
from qlutattn_patch.workspace import Workspace


@pytest.fixture
def here(project, monkeypatch):
    """A project that the commands find."""
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project


def test_from_nothing_to_applied_and_back(here, capsys):
    shutil.rmtree(here.tree)
    for command in (["vendor"], ["generate"], ["apply"], ["apply"], ["generate", "--check"], ["status"], ["revert"]):
        assert run(command) == 0, command
    output = capsys.readouterr().out
    assert "created  patches/types.patch" in output
    assert f"{here.tree}: applied" in output
    assert git(here.tree, "status", "--porcelain") == ""


def test_check_exits_1_and_names_what_differs(here, capsys):
    run(["generate"])
    edit(here.workspace.patches / "types.patch", "k4", "k5")
    capsys.readouterr()
    assert run(["generate", "--check"]) == 1
    said = capsys.readouterr()
    assert said.out == "changed  patches/types.patch\n"
    assert "fix with: qlutattn generate" in said.err
    assert run(["generate"]) == 0
    assert run(["generate", "--check"]) == 0


def test_an_expected_failure_exits_3_with_the_next_command(here, capsys):
    run(["generate"])
    (here.tree / "LICENSE").write_text("mine\n")
    capsys.readouterr()
    assert run(["apply"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "has changes that qlutattn did not make:\n  LICENSE\n  next: " in said.err
    assert "Traceback" not in said.err


def test_status_prints_one_json_document(here, capsys):
    run(["generate"])
    run(["apply"])
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == 1
    assert record["state"] == "applied"
    assert record["stale"] == []
    assert record["pin"]["tree"] == git(here.upstream, "rev-parse", "HEAD^{tree}")
    assert [(patch["name"], patch["upstream_lines"]) for patch in record["patches"]] == [("types", 11), ("align", 2)]
    assert record["patches"][0]["files"][0] == "ggml/include/ggml.h"
    edit(here.workspace.patches / "types.patch", "k4", "k5")
    run(["status", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["state"] == "stale"
    assert [item["link"] for item in record["stale"]] == ["templates -> patches", "patches -> tree"]
    assert all(item["why"] for item in record["stale"])


def test_types_prints_a_table_and_json(here, capsys):
    assert run(["types"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["type", "id", "lanes"]
    assert table[3].split() == ["qlutattn_k4_128x128", "50", "token", "4", "8704", "4.25", "73.4%"]
    assert run(["types", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    wanted = {"name": "qlutattn_v2_128x128", "id": 52, "bits": 2, "lanes": "channel", "tile_bytes": 4608, "bpw": 2.25}
    assert record["schema"] == 1
    assert wanted.items() <= record["types"][4].items()


def test_a_tree_of_ones_own(here, tmp_path, capsys):
    run(["generate"])
    git(tmp_path, "clone", "--quiet", str(here.upstream), "mein Baum")
    tree = str(tmp_path / "mein Baum")
    for command in (["apply"], ["status"], ["generate", "--check"], ["revert"]):
        assert run([*command, "--tree", tree]) == 0
    assert run(["apply", "--tree", str(tmp_path / "none")]) == 3
    assert "There is no folder" in capsys.readouterr().err
    assert run(["apply", "--tree", str(here.root / "docs")]) == 3
    assert "is not the top of a git work tree" in capsys.readouterr().err
