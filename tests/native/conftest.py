"""What the tests of the patched tree share."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace


@pytest.fixture(scope="module")
def tree() -> Path:
    """The project's own vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0
    return Workspace.find().tree
