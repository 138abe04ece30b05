"""For pytest-xdist: tests that share a build run one after another in one worker, beside it the others run.

Tests that build share the vendored tree, and are one group; a test with an `xdist_group` of its own is in that one.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

BUILDS = ("compiler", "qemu")


def group_of(item: pytest.Item) -> str:
    """The group of tests that must not run beside this one; empty where any may."""
    mark = item.get_closest_marker("xdist_group")
    if mark:
        return str(mark.args[0])
    return "vendored tree" if any(item.get_closest_marker(name) for name in BUILDS) else ""


class Scheduler(LoadScopeScheduling):
    """A worker takes a whole group, or single tests that are in none."""

    def __init__(self, config: pytest.Config, log: Any, groups: Path) -> None:
        super().__init__(config, log)
        self._file = groups
        self._groups: dict[str, str] = {}

    def schedule(self) -> None:
        self._groups = self._groups or json.loads(self._file.read_text(encoding="utf-8"))
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


class Controller:
    """The process that starts the workers; it does not collect tests, so a worker writes the groups to a file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "groups.json"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["groups"] = str(self._file)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Scheduler:
        return Scheduler(config, log, self._file)


class Worker:
    """A process that runs tests."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        groups = {item.nodeid: group for item in session.items if (group := group_of(item))}
        new = self._file.with_name(f"groups-{os.getpid()}.json")
        new.write_text(json.dumps(groups), encoding="utf-8")
        new.replace(self._file)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Worker(Path(config.workerinput["groups"])))
    elif config.getoption("numprocesses", None):
        config.pluginmanager.register(Controller())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, since they are long; those that need an emulator last in them."""
    items.sort(key=lambda item: (not group_of(item), group_of(item), bool(item.get_closest_marker("qemu"))))
