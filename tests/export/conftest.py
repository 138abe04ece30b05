"""Patched trees to export from."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_helpers import LONG, MORE_TOML, patched
from helpers import Project, edit, make_project


@pytest.fixture
def here(project: Project) -> Project:
    return patched(project)


@pytest.fixture
def more(tmp_path: Path) -> Project:
    """A project with one more patch, whose hooks have other variants, and more than one place."""
    project = make_project(tmp_path / "Größe 2", {"docs/long.md": LONG})
    hooks = project.workspace.templates / "hooks"
    (hooks / "more.toml").write_text(MORE_TOML, "utf-8")
    edit(hooks / "series", "align\n", "align\nmore\n")
    return patched(project)
