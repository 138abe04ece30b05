"""Every command's --json prints one document, which is what its schema and docs/json.md say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import documents
import fake_tools
import pytest
from helpers import ROOT, Project, edit
from releases import make_release, only_index, pin_release

from qlutattn_patch.commands import main, schemas
from qlutattn_patch.workspace import Workspace

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that the commands find."""
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project


def printed(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    """The document that a command prints, which must be all that it prints."""
    capfd.readouterr()
    assert main.run([*argv, "--json"]) == code
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    documents.check(document)
    assert list(document)[:3] == ["schema", "command", "ok"]
    assert (document["schema"], document["command"], document["ok"]) == (1, argv[0], code == 0)
    return document


def test_every_command_has_a_schema_and_is_told_of() -> None:
    assert set(schemas.DOCUMENTS) == set(main.COMMANDS)
    assert {path: path.read_bytes() for path in documents.SCHEMAS.iterdir()} == schemas.files(ROOT), "qlutattn generate"
    assert set(re.findall(r"\]\(schemas/(\w+)\.json\)", PAGE)) == set(main.COMMANDS)


def test_a_schema_that_is_not_as_made_is_drift(here: Project, capfd: pytest.CaptureFixture[str]) -> None:
    folder = here.root / "docs" / "schemas"
    (here.root / "docs" / "json.md").touch()
    made = printed(capfd, "generate")["files"]
    assert {"kind": "created", "path": "docs/schemas/revert.json"} in made
    assert (folder / "revert.json").read_bytes() == (documents.SCHEMAS / "revert.json").read_bytes()
    edit(folder / "revert.json", "boolean", "string")
    found = printed(capfd, "generate", "--check", code=1)
    assert found["files"] == [{"kind": "changed", "path": "docs/schemas/revert.json"}]
    printed(capfd, "generate")
    (folder / "gone.json").write_text("{}")
    found = printed(capfd, "generate", "--check", code=1)
    assert found["files"] == [{"kind": "foreign", "path": "docs/schemas/gone.json"}]
    shutil.rmtree(folder)
    assert len(printed(capfd, "generate", "--check", code=1)["files"]) == len(schemas.DOCUMENTS) + len(schemas.OTHERS)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_can_print_json(name: str) -> None:
    command = main.group.get_command(main.click.Context(main.group), name)
    assert command is not None
    assert any("--json" in param.opts for param in command.params)


def test_a_document_that_is_not_as_documented_is_noticed() -> None:
    good = {"schema": 1, "command": "revert", "ok": True, "tree": "/t", "changed": False}
    documents.check(good)
    for wrong in ({"more": 1}, {"changed": "no"}, {"ok": False}, {"schema": 2}):
        with pytest.raises(AssertionError, match=r"docs/schemas/revert\.json"):
            documents.check(good | wrong)


def test_from_nothing_to_applied_and_back(here: Project, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(here.tree)
    assert printed(capfd, "status")["state"] == "absent"
    assert printed(capfd, "vendor")["changed"] is True
    assert printed(capfd, "vendor")["changed"] is False
    made = printed(capfd, "generate")
    assert {"kind": "created", "path": "patches/types.patch"} in made["files"]
    applied = printed(capfd, "apply")
    assert (applied["changed"], applied["series"]) == (True, made["series"])
    assert printed(capfd, "apply")["changed"] is False
    assert printed(capfd, "status")["state"] == "applied"
    assert printed(capfd, "revert")["changed"] is True


def test_what_is_wrong_is_in_the_document(here: Project, capfd: pytest.CaptureFixture[str]) -> None:
    main.run(["generate"])
    edit(here.workspace.patches / "types.patch", "k4", "k5")
    found = printed(capfd, "generate", "--check", code=1)
    assert found["files"] == [{"kind": "changed", "path": "patches/types.patch"}]


def test_an_expected_failure_prints_no_document(here: Project, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main.run(["apply", "--json"]) == 3
    said = capfd.readouterr()
    assert said.out == ""
    assert "next: qlutattn generate" in said.err


def test_build(
    here: Project, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tools.install(tmp_path / "bin", "cc", "c++", "cmake", "ninja")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (here.tree / "tools" / "align-attn").mkdir(parents=True)
    found = printed(capfd, "build")
    assert found["targets"] == ["align_attn"]
    assert found["bin"] == str(here.root / "build" / "native" / "bin")


def test_matrix_and_bisect(
    here: Project, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = only_index(tmp_path / "index", monkeypatch)
    pin_release(here, make_release(index, "0.1"), "0.1")
    make_release(index, "0.2", {"CMakeLists.txt": "project(llama.cpp)\n"})
    rows = printed(capfd, "matrix", "--until", "applied", "0.2", "0.1", "0.9", code=1)["rows"]
    assert [row["stage"] for row in rows] == ["anchors", "applied", "source"]
    assert rows[0]["moved"]
    assert printed(capfd, "bisect", "--until", "applied", "0.1", "0.2")["first_bad"] == "0.2"


def test_size(here: Project, capfd: pytest.CaptureFixture[str]) -> None:
    types = ROOT / "templates" / "formats.toml"
    shutil.copy(types, here.workspace.templates / "formats.toml")
    found = printed(
        capfd, "size", "--shape", "llama-3.1-8b", "--shape", "deepseek-v3", "-c", "4096", "--types", "K4V4,V4"
    )
    assert (found["sequences"], found["unified"]) == (4, True)
    assert [[row["bytes"] is None for row in model["caches"]] for model in found["models"]] == [[0, 0], [0, 1]]
    assert main.run(["size", "-c", "4096"]) == 2


@pytest.mark.parametrize("name", ["types", "doctor"])
def test_what_there_is(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    printed(capfd, name)
