"""Fixtures that several test modules use."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import documents
import effort
import pytest
from helpers import Project, make_project
from status_helpers import applied, built, made  # noqa: F401
from upstream_projects import pinned_project, tools  # noqa: F401

from qlutattn_patch.system import console, lock


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="run in full what is only sampled otherwise; may take hours"
    )


def pytest_configure(config: pytest.Config) -> None:
    effort.thorough = config.getoption("thorough")
    # threads that wait would else keep a core busy, which the tests beside them need
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """What the tests run can be interrupted, though pytest may run in the background or under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_cache(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """No fast test sees or fills the user's cache."""
    if not any(request.node.get_closest_marker(name) for name in ("vendored", "compiler", "qemu")):
        monkeypatch.setenv("QLUTATTN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch):
    """Tables are as wide as they are: the workers of a parallel run are told a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch):
    """Two commands at once wait for each other, however loaded the machine is."""
    monkeypatch.setattr(lock, "PATIENCE", 600.0)


@pytest.fixture(autouse=True)
def documents_as_documented(monkeypatch: pytest.MonkeyPatch):
    """Every document that any test has printed is what its schema says."""
    print_it = console.out_json

    def checked(value: object) -> None:
        print_it(value)
        documents.check(json.loads(json.dumps(value)))

    monkeypatch.setattr(console, "out_json", checked)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project beside a small upstream, at a path with a space and a letter that is not ASCII."""
    return make_project(tmp_path / "Größe 1")
