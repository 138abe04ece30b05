"""numpy's copy of the levels does not fall behind the table."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import ROOT, Project, edit

from qlutattn_patch.commands import main
from qlutattn_patch.proof.codes import check_copy
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.workspace import Workspace

FORMATS = ROOT / "templates" / "formats.toml"


def test_the_table_as_it_is() -> None:
    check_copy(load_formats(FORMATS).types)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("levels = [-120, -36, 36, 120]", "levels = [-120, -24, 24, 120]", "k2"),
        ("rms_to_scale = 1.4050294", "rms_to_scale = 1.5", "k4"),
        ('layout = "lookup"', 'layout = "dot"', "k1"),
    ],
)
def test_another_table_must_change_both(old: str, new: str, kind: str, tmp_path: Path) -> None:
    shutil.copy(FORMATS, tmp_path)
    edit(tmp_path / "formats.toml", old, new)
    with pytest.raises(ExpectedError, match=f"for qlutattn_{kind}_128x128 than numpy's copy, which must change too"):
        check_copy(load_formats(tmp_path / "formats.toml").types)


def test_generate_writes_nothing_then(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: project.workspace))
    edit(project.workspace.templates / "formats.toml", "[-120, -36, 36, 120]", "[-120, -24, 24, 120]")
    for argv in (["generate"], ["generate", "--check"]):
        assert main.run(argv) == 3
        assert "numpy's copy, which must change too" in capsys.readouterr().err
    assert not project.workspace.patches.exists()
